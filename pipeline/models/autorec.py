"""AutoRec: an autoencoder that fills an item's column of the matrix of users and items.

Paper: Sedhain, Menon, Sanner and Xie, "AutoRec: Autoencoders Meet Collaborative Filtering", WWW 2015
companion, https://doi.org/10.1145/2740908.2742726 (I-AutoRec).

Equation (eq. 1): h_i = tanh(sum_{v in N(i)} (m_v + r_vi w_v) + a), logit = <s_u, h_i> + b_u + b_i + b, with
N(i) the users who met item i in the train rows and r_vi what they said, -1 to 1.

Shapes: ids (B, S) -> users and values of the items' columns (E,) -> h (B, H) -> logit (B,).

Differs from the paper: a logit with logloss in place of a rating with squared error. Besides r, the input
says who has met the item (m), without which a missing value would be a zero. The row's own value is left
out of h, in training as in prediction, so that no row sees its label. The input has dropout, and b_i was
added. A batch has the rows of few items (`grouped`), since an item costs all of its column; `values: grade`
reads the grades behind the labels.
"""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.common.errors import PipelineError
from pipeline.data.batches import Batch
from pipeline.layers.columns import column_of
from pipeline.layers.embedding import FieldEmbedding, FieldLinear
from pipeline.layers.mlp import Dropout
from pipeline.layers.neighbours import places, refuse_neighbours, sizes
from pipeline.layers.options import Count, NonNegative, Probability
from pipeline.layers.prepared import Prepared
from pipeline.schema import Field, Schema


class Columns(Prepared):
    """Who met each item in the train rows, and what they said.

    Attributes:
        pairs: item * number of users + user, ascending; the first is a sentinel.
        values: -1 to 1, the mean of a pair's rows, for each pair.
    """

    pairs: Tensor
    values: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("pairs", torch.tensor([-1]))
        self.register_buffer("values", torch.zeros(1))

    def remember(
        self, user: Int[Tensor, " N"], item: Int[Tensor, " N"], value: Float[Tensor, " N"], users: int
    ) -> None:
        """Replace all pairs; those of an unseen user or item are left out."""
        known = (user > 0) & (item > 0)
        pairs, place = (item * users + user)[known].unique(return_inverse=True)
        total = torch.zeros(len(pairs), 2, dtype=torch.float64, device=pairs.device)
        total.index_add_(0, place, torch.stack([value, torch.ones_like(value)], 1)[known].double())
        mean = (total[:, 0] / total[:, 1]).float()
        self.pairs = torch.cat([pairs.new_tensor([-1]), pairs])
        self.values = torch.cat([mean.new_zeros(1), mean])


class AutoRec(nn.Module):
    """One hidden layer over the users of an item."""

    grouped = "item"

    def __init__(
        self,
        schema: Schema,
        *,
        hidden_size: Count = 500,
        std: NonNegative = 0.01,
        input_dropout: Probability = 0.0,
        dropout: Probability = 0.0,
        values: Literal["label", "grade"] = "label",
    ) -> None:
        refuse_neighbours(schema, "the model's input are these pairs already")
        self.columns = column_of(schema, "user"), column_of(schema, "item")
        super().__init__()
        self.schema, self.users = schema, sizes(schema)[0]
        one = Schema((Field("user", self.users),))  # its ids are the user's places, and 1
        self.m, self.w, self.s = (FieldEmbedding(one, hidden_size, std=std) for _ in range(3))
        self.a = nn.Parameter(torch.zeros(hidden_size))
        self.linear = FieldLinear(Schema((*one.fields, Field("item", sizes(schema)[1]))))
        self.input_dropout, self.dropout = Dropout(input_dropout), Dropout(dropout)
        self.said, self.values = Columns(), values

    def prepare(self, rows: Batch, _train: Callable[[nn.Module], object]) -> None:
        """Record who met what in the train rows, and what they said."""
        value = rows.label
        if self.values == "grade":
            if rows.grade is None:
                raise PipelineError(
                    "autorec: `values: grade` needs grades behind the labels, which these rows do not have; "
                    "use `values: label`"
                )
            value = rows.grade.float()
        low, high = value.min(), value.max()
        value = 2 * (value - low) / (high - low).clamp(min=1) - 1
        self.said.remember(*places(self.schema, rows.ids), value, self.users)

    def hidden(self, user: Int[Tensor, " B"], item: Int[Tensor, " B"]) -> Float[Tensor, "B H"]:
        """Return h of each row's item, without what the row's user said of it."""
        pairs = self.said.pairs
        items, place = item.unique(return_inverse=True)
        start, end = torch.searchsorted(pairs, torch.stack([items, items + 1]) * self.users)
        count = end - start
        first = count.cumsum(0) - count
        index = torch.arange(int(count.sum()), device=item.device) + (start - first).repeat_interleave(count)
        there = self.input_dropout(torch.ones_like(self.said.values[index], dtype=self.a.dtype))
        said, who = there * self.said.values[index], pairs[index] % self.users + 1
        total = self.column(who, there, first, self.m) + self.column(who, said, first, self.w)
        own = item * self.users + user
        at = torch.searchsorted(pairs, own).clamp(max=len(pairs) - 1)
        is_own = (pairs[at] == own).to(said.dtype)
        edge = (at - start[place] + first[place]).clamp(0, max(0, len(index) - 1))
        z = total.index_select(0, place)
        if len(index):
            ids = (user + 1).unsqueeze(1)
            m, w = self.m(ids).squeeze(1), self.w(ids).squeeze(1)
            z = z - ((is_own * there[edge]).unsqueeze(1) * m + (is_own * said[edge]).unsqueeze(1) * w)
        return self.dropout((z + self.a).tanh())

    @staticmethod
    def column(
        who: Int[Tensor, " E"], weight: Float[Tensor, " E"], first: Int[Tensor, " K"], layer: FieldEmbedding
    ) -> Float[Tensor, "K H"]:
        """Return the weighted sum of the rows of each item's users."""
        table: Tensor = layer.table
        return F.embedding_bag(
            who, table, first, mode="sum", per_sample_weights=weight.to(table.dtype), sparse=layer.lazy
        )

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        user, item = places(self.schema, ids)
        h = self.hidden(user, item)
        s = self.s((user + 1).unsqueeze(1)).squeeze(1)
        return self.linear(torch.stack([user + 1, item + 1 + self.users], 1)) + (s * h).sum(1)
