"""Products of a batch and a matrix of weights, by the faster of the two libraries that torch carries."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from pipeline.layers.pieces import by_hand

# Multiplications a thread from which on oneDNN is asked: a call of it takes some ten microseconds more than
# one of the BLAS, and it copies a transposed batch first.
LEAST, LEAST_TRANSPOSED = 2_750_000, 11_000_000
WIDE = 2**17  # numbers from which on the gradient of a sum over columns is worth a function of our own
_ONEDNN = torch.backends.mkldnn.is_available()


def product(x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x w^T, with a bias if asked; outside autograd.

    torch's own products of float32 go to the BLAS it was built with, mostly MKL, which takes twice oneDNN's
    time on processors other than its maker's. Which of the two it is depends on the shapes and the
    number of threads alone, so that the same seed gives the same bits. oneDNN could cut off at zero in the
    same pass, but it would make a NaN zero, too, and hide that a training diverged.

    Args:
        x: (M, K), any strides.
        w: (N, K), any strides.
        bias: (N,).

    Returns:
        (M, N), new memory.
    """
    if x.shape[1] == 1 and bias is None:
        return x * w.t()  # where a BLAS takes five times as long
    least = (LEAST if x.stride(1) == 1 else LEAST_TRANSPOSED) * torch.get_num_threads()
    if x.shape[0] * w.numel() >= least and x.dtype is torch.float32 and x.is_cpu and _ONEDNN:
        if not (w.is_contiguous() or w.t().is_contiguous()):  # a slice takes oneDNN a thousand times as long
            w = w.contiguous()
        result: Tensor = torch.ops.mkldnn._linear_pointwise(x, w, bias, "none", [], "")
        return result
    return x @ w.t() if bias is None else torch.addmm(bias, x, w.t())


class Linear(nn.Linear):
    """`nn.Linear`, by `product` where the batch is large enough for it to matter."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  as the parent names it
        if not by_hand(input) or input.dim() < 2:  # first, for a recorded graph must not see the size
            return super().forward(input)
        least = WIDE if self.out_features == 1 else LEAST * torch.get_num_threads()
        if input.numel() * self.out_features <= least:
            return super().forward(input)
        rows = input.reshape(-1, self.in_features)
        if torch.is_grad_enabled():
            result: Tensor = _Linear.apply(rows, self.weight, self.bias)  # type: ignore[no-untyped-call]
        else:
            result = product(rows, self.weight, self.bias)
        return result.view(*input.shape[:-1], self.out_features)


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
