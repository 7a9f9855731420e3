"""Products of a batch and a matrix of weights, by the faster of the two libraries that torch contains."""

from typing import Any, TypeGuard

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pipeline.kernels import applies, is_bare
from pipeline.kernels.private import ONEDNN, onednn_linear
from pipeline.layers.mlp import Linear

# Multiplications per thread from which oneDNN is used: a call of it costs some ten microseconds more than one
# of the BLAS, and it first copies a transposed batch.
MIN_MULTIPLICATIONS, MIN_MULTIPLICATIONS_TRANSPOSED = 2_750_000, 11_000_000
MIN_INPUT_ELEMENTS = 2**17  # from which a layer with one output gains from its own gradient


def product(x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x w^T, plus a bias if given; not recorded by autograd.

    torch's own float32 products go to the BLAS it was built with, usually MKL, which takes twice oneDNN's
    time on processors not made by Intel. The choice depends on shapes and the number of threads alone, so
    that the same seed gives the same bits. oneDNN could apply the relu in the same pass, but it would turn
    NaN into zero and hide that a training diverged.

    Args:
        x: (M, K), any strides.
        w: (N, K), any strides.
        bias: (N,).

    Returns:
        (M, N), new memory.
    """
    if x.shape[1] == 1 and bias is None:
        return x * w.t()  # a BLAS takes five times as long
    least = MIN_MULTIPLICATIONS if x.stride(1) == 1 else MIN_MULTIPLICATIONS_TRANSPOSED
    large = x.shape[0] * w.numel() >= least * torch.get_num_threads()
    if large and x.dtype is torch.float32 and x.is_cpu and ONEDNN:
        if not (w.is_contiguous() or w.t().is_contiguous()):
            w = w.contiguous()  # oneDNN takes a thousand times as long for a slice
        return onednn_linear(x, w, bias)
    return x @ w.t() if bias is None else torch.addmm(bias, x, w.t())


def is_linear(layer: Any, *, bias: bool) -> TypeGuard[Linear]:
    """Whether a layer is `layers.mlp.Linear`, with or without a bias, and nothing besides."""
    return is_bare(layer, Linear) and (layer.bias is not None) is bias


def linear(self: Linear, x: Tensor) -> Tensor:
    """`layers.mlp.Linear` where the batch is large enough for `product` to matter."""
    if not applies(x) or x.dim() < 2:  # first: the size of a recorded graph's batch is unknown
        return NotImplemented
    wide = self.out_features > 1
    least = MIN_MULTIPLICATIONS * torch.get_num_threads() if wide else MIN_INPUT_ELEMENTS
    if x.numel() * self.out_features <= least:
        return NotImplemented
    rows = x.reshape(-1, self.in_features)
    if torch.is_grad_enabled():
        result: Tensor = _Linear.apply(rows, self.weight, self.bias)  # type: ignore[no-untyped-call]
    else:
        result = product(rows, self.weight, self.bias)
    return result.view(*x.shape[:-1], self.out_features)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, w)
        return product(x, w, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, w = ctx.saved_tensors
        return (
            product(grad, w.t()) if ctx.needs_input_grad[0] else None,
            product(grad.t(), x.t()) if ctx.needs_input_grad[1] else None,
            grad.sum(0) if ctx.needs_input_grad[2] else None,
        )
