"""SENET as one step of autograd: its matrices are so small that each call costs more than it computes."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pipeline.kernels import applies, is_bare
from pipeline.kernels.private import relu_backward
from pipeline.kernels.product import is_linear
from pipeline.layers.excitation import SENET, Excitation
from pipeline.layers.mechanism import Mechanism


def senet(self: SENET, e: Tensor) -> Tensor:
    """`layers.excitation.SENET` in training."""
    unit = self.reweight
    if not (torch.is_grad_enabled() and applies(e) and is_bare(unit, Excitation)):
        return NotImplemented
    bare = is_bare(self.gates, Mechanism)
    linear = bare and is_linear(unit.w1, bias=False) and is_linear(unit.w2, bias=False)
    if not linear or unit.final is not torch.relu:
        return NotImplemented
    result: Tensor = _Senet.apply(e, unit.w1.weight, unit.w2.weight, self.residual)  # type: ignore[no-untyped-call]
    return result


class _Senet(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, e: Tensor, w1: Tensor, w2: Tensor, residual: bool) -> Tensor:
        z = e.mean(2)
        h = (z @ w1.t()).relu_()
        a = (h @ w2.t()).relu_()
        factor = (a + 1 if residual else a).unsqueeze(2)
        ctx.save_for_backward(e, w1, w2, z, h, a, factor)
        return e * factor

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        e, w1, w2, z, h, a, factor = ctx.saved_tensors
        grad_a = relu_backward((grad * e).sum(2), a)
        grad_h = relu_backward(grad_a @ w2, h)
        grad_z = (grad_h @ w1).div_(e.shape[2])
        grad_e = torch.addcmul(grad_z.unsqueeze(2), grad, factor)
        return grad_e, grad_h.t() @ z, grad_a.t() @ h, None
