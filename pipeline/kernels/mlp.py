"""A multi-layer perceptron of plain relu layers as one step of autograd."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from pipeline.kernels import applies, is_bare
from pipeline.kernels.private import relu_backward
from pipeline.kernels.product import is_linear, product
from pipeline.layers.mlp import Dropout, dropout_mask


def mlp(self: nn.Sequential, x: Tensor) -> Tensor:
    """`layers.mlp.MLP` in training, if its layers are linear -> relu -> dropout, any number of times."""
    if not (torch.is_grad_enabled() and applies(x)) or x.dim() != 2:
        return NotImplemented
    layers = list(self)
    thresholds, weights = [], []
    for linear, relu, dropout in zip(*[iter(layers)] * 3, strict=False):
        if not (is_linear(linear, bias=True) and is_bare(relu, nn.ReLU) and is_bare(dropout, Dropout)):
            return NotImplemented
        if dropout.p == 1:
            return NotImplemented
        thresholds.append(dropout.threshold16 if dropout.training else 0)
        weights += [linear.weight, linear.bias]
    if not layers or len(layers) % 3:
        return NotImplemented
    result: Tensor = _ReluLayers.apply(x, thresholds, *weights)  # type: ignore[no-untyped-call]
    return result


class _ReluLayers(torch.autograd.Function):
    """h <- dropout(relu(W h + b)), layer by layer, in place where the tensor has no other user.

    What is dropped is zero, as is what relu cuts off: so the outputs are the mask that the backward pass
    needs, and no other mask is kept.
    """

    @staticmethod
    def forward(ctx: Any, h: Tensor, thresholds: Sequence[int], *weights: Tensor) -> Tensor:
        outputs = [h]
        ctx.scales = [2**16 / (2**16 - threshold) for threshold in thresholds]
        for w, b, threshold, scale in zip(weights[::2], weights[1::2], thresholds, ctx.scales, strict=True):
            h = product(h, w, b).relu_()
            if threshold:
                h.mul_(dropout_mask(h, threshold) * scale)
            outputs.append(h)
        ctx.save_for_backward(*outputs, *weights[::2])
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        layers = len(ctx.scales)
        outputs, weights = ctx.saved_tensors[: layers + 1], ctx.saved_tensors[layers + 1 :]
        grads: list[Tensor | None] = []
        grad = relu_backward(grad, outputs[-1])
        for k in reversed(range(layers)):
            if ctx.scales[k] != 1:
                grad.mul_(ctx.scales[k])
            grads[:0] = [product(grad.t(), outputs[k].t()), grad.sum(0)]
            if k:
                grad = product(grad, weights[k].t())
                relu_backward(grad, outputs[k], out=grad)
        return (product(grad, weights[0].t()) if ctx.needs_input_grad[0] else None), None, *grads
