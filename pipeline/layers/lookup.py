"""Rows of a table by id, and the gradient of the table."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from pipeline.layers.pieces import by_hand
from pipeline.schema import EMPTY

FEW = 1024  # below so many ids the calls cost more than the loop


def lookup(
    table: Float[Tensor, "V D"], ids: Int[Tensor, "B S"], *, sparse: bool = False
) -> Float[Tensor, "B S D"]:
    """Return the row of every id; the gradient never reaches the row of the empty slot.

    It is `torch.nn.functional.embedding`, whose dense gradient on a CPU takes the ids one by one in
    two to twenty times as long.

    Args:
        sparse: the table's gradient is a sparse tensor of the rows that were looked up, so that its
            cost does not depend on V.
    """
    if sparse or not torch.is_grad_enabled() or not by_hand(table) or ids.numel() < FEW:
        return F.embedding(ids, table, padding_idx=EMPTY, sparse=sparse)
    rows: Tensor = _Lookup.apply(table, ids)  # type: ignore[no-untyped-call]
    return rows


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, ids: Tensor) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.shape = table.shape
        if table.shape[1] > 1:
            return F.embedding(ids, table)
        return table.view(-1).index_select(0, ids.reshape(-1)).view(*ids.shape, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        ids = ctx.saved_tensors[0].reshape(-1)
        if ctx.shape[1] > 1:
            rows = grad.reshape(-1, ctx.shape[1])
            # one id for all columns: torch sorts the ids, so that each thread sums rows of its own
            index = ids.long().unsqueeze(1).expand_as(rows)
            result = grad.new_zeros(ctx.shape).scatter_add_(0, index, rows)
        else:  # a loop over numbers instead of one over rows
            result = grad.new_zeros(ctx.shape[0]).index_add_(0, ids, grad.reshape(-1)).view(ctx.shape)
        result[EMPTY] = 0.0
        return result, None
