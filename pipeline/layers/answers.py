"""What the users who met an item in the train rows said of it: a column of the matrix of users and items."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from pipeline.common.errors import PipelineError
from pipeline.data.batches import Batch
from pipeline.layers.embedding import FieldEmbedding
from pipeline.layers.mlp import Dropout
from pipeline.layers.neighbours import places, sizes
from pipeline.layers.prepared import Prepared
from pipeline.schema import Schema


class Answers(Prepared):
    """Who met each item in the train rows, and what they said, -1 to 1.

    Args:
        schema: of the rows.
        dropout: probability with which an answer is left out in training.
        kind: whether the answers are labels or grades.

    Attributes:
        pairs: item * number of users + user, both as positions in their fields, ascending; the first is a
            sentinel.
        values: for each pair the mean over its rows.
    """

    pairs: Tensor
    values: Tensor

    def __init__(self, schema: Schema, dropout: float, kind: Literal["label", "grade"]) -> None:
        super().__init__()
        self.schema, self.users, self.kind = schema, sizes(schema)[0], kind
        self.dropout = Dropout(dropout)
        self.register_buffer("pairs", torch.tensor([-1]))
        self.register_buffer("values", torch.zeros(1))

    def remember(self, rows: Batch) -> None:
        """Replace all answers by those of these rows; those of an unseen user or item are left out.

        Raises:
            PipelineError: the answers are grades, which the rows do not have.
        """
        given = rows.label if self.kind == "label" else rows.grade
        if given is None:
            raise PipelineError(
                "`values: grade` needs grades behind the labels, which these rows do not have; use "
                "`values: label`"
            )
        (user, item), value = places(self.schema, rows.ids), given.double()
        low, high = value.min(), value.max()
        value = 2 * (value - low) / (high - low).clamp(min=1) - 1
        known = (user > 0) & (item > 0)
        pairs, place = (item * self.users + user)[known].unique(return_inverse=True)
        total = torch.zeros(len(pairs), 2, dtype=torch.float64, device=pairs.device)
        total.index_add_(0, place, torch.stack([value, torch.ones_like(value)], 1)[known])
        self.pairs = torch.cat([pairs.new_tensor([-1]), pairs])
        self.values = torch.cat([total.new_zeros(1), total[:, 0] / total[:, 1]]).float()

    def forward(
        self,
        user: Int[Tensor, " B"],
        item: Int[Tensor, " B"],
        met: FieldEmbedding,
        said: FieldEmbedding,
    ) -> Float[Tensor, "B H"]:
        """Return sum_v (m_v + r_vi w_v) over the users v of each row's item, but for the row's own.

        Each item of the batch is summed once.

        Args:
            met, said: m and w, whose row of a user is its position + 1.
        """
        pairs, users = self.pairs, self.users
        items, place = item.unique(return_inverse=True)
        start, end = torch.searchsorted(pairs, torch.stack([items, items + 1]) * users)
        count = end - start
        first = count.cumsum(0) - count
        index = torch.arange(int(count.sum()), device=item.device) + (start - first).repeat_interleave(count)
        here = self.dropout(torch.ones(len(index), dtype=met.table.dtype, device=item.device))
        r, who = here * self.values[index].to(here.dtype), pairs[index] % users + 1
        total = _weighted(who, here, first, met) + _weighted(who, r, first, said)
        z = total.index_select(0, place)
        at = torch.searchsorted(pairs, item * users + user).clamp(max=len(pairs) - 1)
        own = (pairs[at] == item * users + user).nonzero().squeeze(1)  # rows that are known themselves
        edge, ids = (at - start[place] + first[place])[own], (user[own] + 1).unsqueeze(1)
        own_m, own_w = (layer.slots(ids).squeeze(1) for layer in (met, said))
        minus = here[edge].unsqueeze(1) * own_m + r[edge].unsqueeze(1) * own_w
        return z.index_add(0, own, minus, alpha=-1)


def _weighted(
    who: Int[Tensor, " E"], weight: Float[Tensor, " E"], first: Int[Tensor, " K"], layer: FieldEmbedding
) -> Float[Tensor, "K H"]:
    table = layer.table
    return F.embedding_bag(who, table, first, mode="sum", per_sample_weights=weight, sparse=layer.lazy)
