"""DIN: attention of the target item on the user's history.

Paper: Zhou et al., "Deep Interest Network for Click-Through Rate Prediction", KDD 2018,
https://arxiv.org/abs/1706.06978.

Equation (eq. 3): the user's interest in item v is u(v) = sum_j a(h_j, v) h_j, over the last items h_j that
the user clicked, with the local activation unit a(h, v) = MLP([h, h - v, h * v, v]); then
logit = MLP([field embeddings, u(v)]).

Shapes: ids (B, S) -> E (B, F, D), history (B, n, D) -> u(v) (B, D) -> logit (B,).

Differs from the paper: the history is the user's clicks in the train split strictly earlier than the row,
and of a past item only its id is embedded, not its other fields. The activation unit uses the network's
activation instead of Dice or PReLU, and the tables' L2 replaces the mini-batch aware regularisation.
`normalise` adds the softmax over the history that the paper leaves out.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.data.batches import Batch
from pipeline.layers.columns import column_of
from pipeline.layers.mechanism import Mechanism
from pipeline.layers.memory import Memory, clicks
from pipeline.layers.mlp import MLP, dense
from pipeline.layers.options import Count, Embed, Net
from pipeline.schema import EMPTY, Schema


class DIN(nn.Module):
    """The fields and the attended history, in one network."""

    timed = True

    def __init__(
        self,
        schema: Schema,
        *,
        embedding: Embed = Embed(16),
        history: Count = 20,
        attention_hidden: Sequence[Count] = (36,),
        normalise: bool = False,
        network: Net = Net((200, 80)),
    ) -> None:
        super().__init__()
        self.schema, self.history, self.normalise = schema, history, normalise
        self.user, self.item = column_of(schema, "user"), column_of(schema, "item")
        self.memory = Memory()
        self.embedding = embedding(schema)
        unit = MLP(4 * embedding.size, attention_hidden, activation=network.activation)
        self.unit = nn.Sequential(unit, dense(unit.outputs, 1))
        self.attention = Mechanism("attention", "uniform")
        self.mlp = network(self.embedding.width + embedding.size)
        self.out = dense(self.mlp.outputs, 1)

    def prepare(self, rows: Batch, _train: Callable[[nn.Module], object]) -> None:
        """Store what each user clicked in the train rows, and when."""
        self.memory.remember(*clicks(rows, self.schema, self.user, self.item))

    def interest(self, items: Int[Tensor, "B n"], target: Int[Tensor, "B 1"]) -> Float[Tensor, "B D"]:
        """Return u(v); an empty place in the history is a zero vector."""
        v, h = self.embedding.slots(torch.cat([target, items], 1)).split([1, self.history], 1)
        a = self.unit(torch.cat([h, h - v, h * v, v.expand_as(h)], 2))
        clicked = (items != EMPTY).unsqueeze(2)
        if self.normalise:
            a = a.masked_fill(~clicked, -1e9).softmax(1)
        return (self.attention(a, clicked) * h).sum(1)

    def forward(self, ids: Int[Tensor, "B S"], time: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
        items, _ = self.memory.recent(ids[:, self.user], time, self.history)
        u = self.interest(items, ids[:, self.item].unsqueeze(1))
        return self.out(self.mlp(torch.cat([self.embedding(ids).flatten(1), u], 1))).squeeze(1)
