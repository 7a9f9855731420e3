"""Rows of a table by id."""

from typing import NamedTuple

import torch
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


class Bags(NamedTuple):
    """Bags of rows, which several tables of a model sum.

    Attributes:
        rows: of all bags (C,), one bag after the other.
        first: where each bag begins (K,).
        found: what a backward pass needs of them, once one has found it; empty before.
    """

    rows: Int[Tensor, " C"]
    first: Int[Tensor, " K"]
    found: dict[str, Tensor]

    def bag(self) -> Int[Tensor, " C"]:
        """Return the bag of each row."""
        if "bag" not in self.found:
            count = self.first.diff(append=self.first.new_tensor([len(self.rows)]))
            bags = torch.arange(len(self.first), device=count.device)
            self.found["bag"] = bags.repeat_interleave(count)
        return self.found["bag"]

    def transposed(self) -> tuple[Int[Tensor, " C"], Int[Tensor, " C"]]:
        """Return the bags by the row of the table that is in them, and the row of each."""
        if "ordered" not in self.found:
            ordered, order = self.rows.int().sort(stable=True)  # twice as fast as in 64 bits
            self.found.update(ordered=ordered, bags=self.bag()[order])
        return self.found["bags"], self.found["ordered"]


@accelerated("lookup")
def sum_bags(table: Float[Tensor, "V D"], bags: Bags, *, sparse: bool = False) -> Float[Tensor, "K D"]:
    """Return the sum of the table's rows in each bag; `sparse` as for `lookup`."""
    return F.embedding_bag(bags.rows, table, bags.first, mode="sum", sparse=sparse)
