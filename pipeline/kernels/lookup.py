"""Rows of a table by id."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from pipeline.kernels import applies
from pipeline.schema import EMPTY

MIN_IDS = 1024  # below this many ids the call overhead exceeds the gain


def lookup(table: Tensor, ids: Tensor, *, sparse: bool = False) -> Tensor:
    """`layers.lookup.lookup` with a dense gradient; torch takes two to twenty times as long."""
    if sparse or not torch.is_grad_enabled() or not applies(table):
        return NotImplemented
    if ids.numel() < MIN_IDS:  # only now: an exported graph must not depend on the size of the batch
        return NotImplemented
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
            # an index expanded over the columns: torch sorts it and gives each thread its own rows
            index = ids.long().unsqueeze(1).expand_as(rows)
            result = grad.new_zeros(ctx.shape).scatter_add_(0, index, rows)
        else:  # a loop over numbers instead of rows
            result = grad.new_zeros(ctx.shape[0]).index_add_(0, ids, grad.reshape(-1)).view(ctx.shape)
        result[EMPTY] = 0.0
        return result, None


def sum_bags(table: Tensor, bags: Any, *, sparse: bool = False) -> Tensor:
    """`layers.lookup.sum_bags` with a dense gradient; torch takes three to twelve times as long."""
    if sparse or not torch.is_grad_enabled() or not applies(table):
        return NotImplemented
    sums: Tensor = _SumBags.apply(table, bags)  # type: ignore[no-untyped-call]
    return sums


class _SumBags(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, bags: Any) -> Tensor:
        ctx.bags, ctx.shape = bags, table.shape
        return F.embedding_bag(bags.rows, table, bags.first, mode="sum")

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        bags, shape = ctx.bags, ctx.shape
        if shape[1] == 1:
            sums = grad.new_zeros(shape[0]).index_add_(0, bags.rows, grad.view(-1)[bags.bag()])
            return sums.view(-1, 1), None
        # the transpose: for each row the sum of the gradients of the bags that it is in
        bag, ordered = bags.transposed()
        start = torch.searchsorted(ordered, torch.arange(shape[0], dtype=ordered.dtype))
        return F.embedding_bag(bag, grad.contiguous(), start, mode="sum"), None
