"""DIN: attention of the target item on the user's history.

Paper: Zhou et al., "Deep Interest Network for Click-Through Rate Prediction", KDD 2018,
https://arxiv.org/abs/1706.06978.

Equation (eq. 3): the user's interest in item v is u(v) = sum_j a(h_j, v) h_j, over the last items h_j that
the user clicked, with the local activation unit a(h, v) = MLP([h, h - v, h * v, v]); then
logit = MLP([field embeddings, u(v)]). With `negatives` a second u(v), with an activation unit of its own, is
that of the last items shown to the user without a click, so that the network has both. A field that is a bag
of items (`table`) is a history that the log itself brings, and has a u(v) of its own.

Shapes: ids (B, S) -> E (B, F, D), history (B, n, D) -> u(v) (B, D) -> logit (B,).

Differs from the paper: histories are of the train split, strictly earlier than the row; `negatives` is not in
the paper, which has positives alone. Of a past item only its id is embedded, not its other fields, with the
table of the target. h - v and h * v in the activation unit are the authors' code's; the paper names an outer
product. It has the network's activation instead of Dice or PReLU. The mini-batch aware regularisation is that
of all models here (`train/adam.py`). `normalise` adds the softmax over the history that the paper leaves out.
"""

from collections.abc import Callable, Sequence
from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from pipeline.data.batches import Batch
from pipeline.layers.columns import bags_of, column_of
from pipeline.layers.mechanism import Mechanism
from pipeline.layers.memory import Memory, clicks
from pipeline.layers.mlp import MLP, Activation, dense
from pipeline.layers.options import Count, Embed, Net
from pipeline.schema import EMPTY, Schema


class Interest(nn.Module):
    """u(v) of one history, which it remembers: (B, n, D), (B, 1, D) -> (B, D)."""

    def __init__(self, dim: int, hidden: Sequence[int], activation: Activation, normalise: bool) -> None:
        super().__init__()
        self.memory, self.normalise = Memory(), normalise
        unit = MLP(4 * dim, hidden, activation=activation)
        self.unit = nn.Sequential(unit, dense(unit.outputs, 1))
        self.attention = Mechanism("attention", "uniform")

    def forward(
        self, h: Float[Tensor, "B n D"], v: Float[Tensor, "B 1 D"], there: Bool[Tensor, "B n"]
    ) -> Float[Tensor, "B D"]:
        a, there = self.unit(torch.cat([h, h - v, h * v, v.expand_as(h)], 2)), there.unsqueeze(2)
        if self.normalise:
            a = a.masked_fill(~there, -1e9).softmax(1)
        return (self.attention(a, there) * h).sum(1)


class DIN(nn.Module):
    """The fields and the attended histories, in one network."""

    timed = True

    def __init__(
        self,
        schema: Schema,
        *,
        embedding: Embed = Embed(16),
        history: Count = 20,
        negatives: bool = False,
        attention_hidden: Sequence[Count] = (36,),
        normalise: bool = False,
        network: Net = Net((200, 80)),
    ) -> None:
        super().__init__()
        self.schema, self.history = schema, history
        self.user, self.item = column_of(schema, "user"), column_of(schema, "item")
        self.embedding = embedding(schema)
        self.given = bags_of(schema, self.item)
        self.interests = nn.ModuleList(
            Interest(embedding.size, attention_hidden, network.activation, normalise)
            for _ in range(1 + negatives + len(self.given))
        )
        self.mlp = network(self.embedding.width + len(self.interests) * embedding.size)
        self.out = dense(self.mlp.outputs, 1)

    def parts(self) -> list[Interest]:
        """Return the interest in what was clicked and, with `negatives`, in what was not."""
        return cast(list[Interest], list(self.interests)[: len(self.interests) - len(self.given)])

    def prepare(self, rows: Batch, _train: Callable[[nn.Module], object]) -> None:
        """Store what each user clicked in the train rows, or did not, and when."""
        for part, label in zip(self.parts(), (True, False), strict=False):
            part.memory.remember(*clicks(rows, self.schema, self.user, self.item, label=label))

    def forward(self, ids: Int[Tensor, "B S"], time: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
        past = [part.memory.recent(ids[:, self.user], time, self.history)[0] for part in self.parts()]
        past += [ids[:, columns] for columns in self.given]
        v, *h = self.embedding.slots(torch.cat([ids[:, [self.item]], *past], 1)).split(
            [1, *(p.shape[1] for p in past)], 1
        )
        u = [part(h_, v, p != EMPTY) for part, h_, p in zip(self.interests, h, past, strict=True)]
        return self.out(self.mlp(torch.cat([self.embedding(ids).flatten(1), *u], 1))).squeeze(1)
