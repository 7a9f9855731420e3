"""Deep interest network: what of a user's past matters for this item.

Paper: Zhou et al., "Deep Interest Network for Click-Through Rate Prediction", KDD 2018,
https://arxiv.org/abs/1706.06978.

Equation (eq. 3): the user before item v is u(v) = sum_j a(h_j, v) h_j, over the last items h_j of the
user, with the local activation unit a(h, v) = MLP([h, h - v, h * v, v]); then
logit = MLP([field embeddings, u(v)]).

Shapes: ids (B, S) -> E (B, F, D), history (B, n, D) -> u(v) (B, D) -> logit (B,).

Differs from the paper: the history is the train part's positive rows of the user strictly earlier than
the row, and its items are read from the item field's embeddings; their other fields are not. The
unit's activation is that of the network, for Dice and PReLU; the tables' L2 stands for the
regularisation by mini-batch. `normalise` is the softmax over the history that the paper leaves out.
Dropout on the embeddings, a transform of the fields' and batch norm are options.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.data.batches import Batch
from pipeline.layers.columns import column_of
from pipeline.layers.embedding import FieldEmbedding, Transform
from pipeline.layers.memory import Memory, clicks
from pipeline.layers.mlp import MLP, Activation, dense
from pipeline.schema import EMPTY, Schema


class DIN(nn.Module):
    """Attention of the target item on the user's past, beside the fields."""

    timed = True

    def __init__(
        self,
        schema: Schema,
        *,
        embedding_size: int = 16,
        embedding_std: float = 0.01,
        embedding_dropout: float = 0.0,
        embedding_transform: Transform = "none",
        user: str | None = None,
        item: str | None = None,
        history: int = 20,
        attention_hidden: list[int] = [36],  # noqa: B006  never changed, only read
        normalise: bool = False,
        hidden: list[int] = [200, 80],  # noqa: B006  never changed, only read
        dropout: float = 0.0,
        batch_norm: bool = False,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        self.schema, self.history, self.normalise = schema, history, normalise
        self.user, self.item = column_of(schema, user, "user"), column_of(schema, item, "item")
        self.memory = Memory()
        self.embedding = FieldEmbedding(
            schema,
            embedding_size,
            dropout=embedding_dropout,
            std=embedding_std,
            transform=embedding_transform,
        )
        unit = MLP(4 * embedding_size, attention_hidden, activation=activation)
        self.unit = nn.Sequential(unit, dense(unit.outputs, 1))
        self.mlp = MLP(
            (len(schema.fields) + 1) * embedding_size,
            hidden,
            dropout=dropout,
            batch_norm=batch_norm,
            activation=activation,
        )
        self.out = dense(self.mlp.outputs, 1)

    def prepare(self, rows: Batch, _train: Callable[[nn.Module], object]) -> None:
        """Remember what the users of the train rows clicked, and when."""
        self.memory.remember(*clicks(rows, self.schema, self.user, self.item))

    def interest(self, items: Int[Tensor, "B n"], target: Int[Tensor, "B 1"]) -> Float[Tensor, "B D"]:
        """The user before this item; an item that is not there is a zero vector."""
        v, h = self.embedding.slots(torch.cat([target, items], 1)).split([1, self.history], 1)
        a = self.unit(torch.cat([h, h - v, h * v, v.expand_as(h)], 2))
        if self.normalise:
            a = a.masked_fill((items == EMPTY).unsqueeze(2), -1e9).softmax(1)
        return (a * h).sum(1)

    def forward(self, ids: Int[Tensor, "B S"], time: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
        items, _ = self.memory.recent(ids[:, self.user], time, self.history)
        u = self.interest(items, ids[:, self.item].unsqueeze(1))
        return self.out(self.mlp(torch.cat([self.embedding(ids).flatten(1), u], 1))).squeeze(1)
