"""Rows of a table by id."""

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from pipeline.layers.accelerated import accelerated
from pipeline.schema import EMPTY


@accelerated("lookup")
def lookup(
    table: Float[Tensor, "V D"], ids: Int[Tensor, "B S"], *, sparse: bool = False
) -> Float[Tensor, "B S D"]:
    """Return the row of every id; the row of the empty slot gets no gradient.

    Args:
        sparse: return the table's gradient as a sparse tensor of the rows that were looked up, so that its
            cost does not depend on V.
    """
    return F.embedding(ids, table, padding_idx=EMPTY, sparse=sparse)


@accelerated("lookup")
def sum_bags(
    table: Float[Tensor, "V D"], rows: Int[Tensor, " C"], first: Int[Tensor, " K"], *, sparse: bool = False
) -> Float[Tensor, "K D"]:
    """Return the sum of the table's rows in each bag.

    Args:
        rows: of all bags, one bag after the other.
        first: where each bag begins.
        sparse: as for `lookup`.
    """
    return F.embedding_bag(rows, table, first, mode="sum", sparse=sparse)
