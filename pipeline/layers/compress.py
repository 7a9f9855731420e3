"""Products of fields compressed to channels, component by component: the step of xDeepFM's network.

Columns n are the components of all rows, (row, component) in this order: the product of two channels is then
one elementwise product of two long runs of numbers, and compressing all products is one matrix product.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import Function

from pipeline.layers.pieces import by_hand, contract, rows_of

LEAST = 256  # columns of a piece: with fewer, a matrix product is too thin to be fast


class Compress(nn.Linear):
    """sum_{h,f} W_khf x_h x0_f in every column: (H, n), (F, n) -> (K, n).

    The products (H * F, n) are never there as a whole: they are made piece by piece, and a second time
    for the gradient, which keeps a step inside the cache and bounds its memory. Where x is x0 itself,
    each pair of fields is made once, with the sum of its two weights.

    Args:
        channels: H.
        fields: F.
        size: K.
    """

    upper: Tensor
    both: Tensor

    def __init__(self, channels: int, fields: int, size: int) -> None:
        super().__init__(channels * fields, size, bias=False)
        nn.init.xavier_uniform_(self.weight)
        i, j = torch.triu_indices(fields, fields)  # the pairs i <= j
        place = torch.zeros(fields, fields, dtype=torch.long)
        place[i, j] = place[j, i] = torch.arange(len(i))
        self.register_buffer("upper", torch.stack([i, j]), persistent=False)
        self.register_buffer("both", place.flatten(), persistent=False)

    def forward(  # type: ignore[override]
        self, x: Float[Tensor, "H n"], x0: Float[Tensor, "F n"], *, columns: bool = False
    ) -> Tensor:
        """Compress; with `columns` the result lies column by column in memory: its transpose is flat."""
        if not by_hand(x0):
            return self.weight @ (x.unsqueeze(1) * x0).flatten(0, 1)
        result: Tensor
        if x is not x0:
            result = _Compress.apply(x, x0, self.weight, columns)  # type: ignore[no-untyped-call]
            return result
        w = self.weight.unflatten(1, (len(x0), -1))
        w = (w + w.mT - torch.diag_embed(w.diagonal(dim1=1, dim2=2))).flatten(1)
        i, j = self.upper
        pairs = w.index_select(1, i * len(x0) + j)
        result = _CompressPairs.apply(x0, pairs, self.upper, self.both, columns)  # type: ignore[no-untyped-call]
        return result


def _empty(x: Tensor, size: int, columns: bool) -> Tensor:
    n = x.shape[1]
    return x.new_empty(n, size).T if columns else x.new_empty(size, n)


class _Compress(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, x0: Tensor, w: Tensor, columns: bool) -> Tensor:
        ctx.save_for_backward(x, x0, w)
        out = _empty(x, len(w), columns)
        size = rows_of(w.shape[1], LEAST)
        for a, b, out_i in zip(*(t.split(size, 1) for t in (x, x0, out)), strict=True):
            torch.mm(w, (a.unsqueeze(1) * b).flatten(0, 1), out=out_i)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, x0, w = ctx.saved_tensors
        grads = torch.empty_like(x), torch.empty_like(x0), torch.zeros_like(w)
        size = rows_of(w.shape[1], LEAST)
        for a, b, g, grad_a, grad_b in zip(
            *(t.split(size, 1) for t in (x, x0, grad, *grads[:2])), strict=True
        ):
            products = a.unsqueeze(1) * b
            grads[2].addmm_(g, products.flatten(0, 1).T)
            torch.mm(w.T, g, out=products.flatten(0, 1))  # from here on their gradient
            grad_a.copy_(contract(products, b.unsqueeze(0), 1))
            torch.sum(products.mul_(a.unsqueeze(1)), 0, out=grad_b)
        return *grads, None


class _CompressPairs(Function):
    @staticmethod
    def forward(ctx: Any, x0: Tensor, w: Tensor, upper: Tensor, both: Tensor, columns: bool) -> Tensor:
        ctx.save_for_backward(x0, w, upper, both)
        out = _empty(x0, len(w), columns)
        size = rows_of(w.shape[1], LEAST)
        for a, out_i in zip(x0.split(size, 1), out.split(size, 1), strict=True):
            torch.mm(w, a[upper[0]].mul_(a[upper[1]]), out=out_i)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        x0, w, upper, both = ctx.saved_tensors
        f = len(x0)
        squares = both[:: f + 1]
        grad_x0, grad_w = torch.empty_like(x0), torch.zeros_like(w)
        size = rows_of(w.shape[1], LEAST)
        for a, g, grad_a in zip(*(t.split(size, 1) for t in (x0, grad, grad_x0)), strict=True):
            products = a[upper[0]].mul_(a[upper[1]])
            grad_w.addmm_(g, products.T)
            torch.mm(w.T, g, out=products)  # from here on their gradient
            once = products[squares] * a  # a field with itself counts twice
            grad_a.copy_(contract(products[both].unflatten(0, (f, f)), a.unsqueeze(0), 1, once))
        return grad_x0, grad_w, None, None, None
