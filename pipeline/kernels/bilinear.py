"""Bilinear pairs of several layers, all written to one result."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pipeline.kernels import applies, is_bare
from pipeline.kernels.product import product
from pipeline.layers.bilinear import Bilinear, Bilinears

Blocks = list[tuple[slice, slice]]  # of each left field: its rows of `_stacked` weights, its pairs


def bilinears(self: Bilinears, fields: Sequence[Tensor]) -> Tensor:
    """`layers.bilinear.Bilinears`; with autograd, each slice of the fields would get a gradient of full size.

    On 25 fields it takes half of the body's time.
    """
    layers: list[Bilinear] = [layer for layer in self if is_bare(layer, Bilinear)]
    if len(layers) < len(self) or len(layers) != len(fields) or not applies(fields[0]):
        return NotImplemented
    if not torch.is_grad_enabled():
        return torch.cat([_score(layer, v) for layer, v in zip(layers, fields, strict=True)], 1)
    blocks = [_blocks(layer, fields[0].shape[1]) for layer in layers]
    weights = [layer.weight for layer in layers]
    result: Tensor = _Bilinears.apply(blocks, *fields, *weights)  # type: ignore[no-untyped-call]
    return result


def bilinear(self: Bilinear, v: Tensor) -> Tensor:
    """`layers.bilinear.Bilinear`."""
    if not applies(v):
        return NotImplemented
    if not torch.is_grad_enabled():
        return _score(self, v)
    result: Tensor = _Bilinears.apply([_blocks(self, v.shape[1])], v, self.weight)  # type: ignore[no-untyped-call]
    return result


def _counts(layer: Bilinear, fields: int) -> list[int]:
    """How many matrices each left field has."""
    return [fields - 1 - i if layer.kind == "interaction" else 1 for i in range(fields - 1)]


def _score(layer: Bilinear, v: Tensor) -> Tensor:
    """For each left field one product with all its matrices side by side."""
    (_, f, d), counts = v.shape, _counts(layer, v.shape[1])
    weights = [layer.weight] * (f - 1) if layer.kind == "all" else layer.weight.split(counts)
    left = [v[:, i] @ w.transpose(0, 1).flatten(1) for i, w in enumerate(weights)]
    return torch.cat([x.unflatten(1, (-1, d)) * v[:, i + 1 :] for i, x in enumerate(left)], 1)


def _stacked(weight: Tensor) -> Tensor:
    """Transpose the matrices and stack them, (N, D, D) -> (N * D, D), so that neighbours form one matrix."""
    return weight.transpose(1, 2).flatten(0, 1)


def _blocks(layer: Bilinear, fields: int) -> Blocks:
    d, blocks, row, pair = layer.weight.shape[1], [], 0, 0
    for i, count in enumerate(_counts(layer, fields)):
        end, last = row + count * d, pair + fields - 1 - i
        blocks.append((slice(row, end), slice(pair, last)))
        row, pair = 0 if layer.kind == "all" else end, last
    return blocks


class _Bilinears(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, blocks: list[Blocks], *tensors: Tensor) -> Tensor:
        n = len(blocks)
        fields, weights = tensors[:n], [_stacked(w) for w in tensors[n:]]
        b, f, d = fields[0].shape
        c = f * (f - 1) // 2
        out, lefts = fields[0].new_empty(b, n * c, d), []
        for v, w, pairs, of_layer in zip(fields, weights, out.split(c, 1), blocks, strict=True):
            for i, (matrices, own) in enumerate(of_layer):
                left = product(v[:, i], w[matrices]).unflatten(1, (-1, d))
                torch.mul(left, v[:, i + 1 :], out=pairs[:, own])
                lefts.append(left)
        ctx.save_for_backward(*fields, *weights, *lefts)
        ctx.blocks = blocks
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        n = len(ctx.blocks)
        saved = ctx.saved_tensors
        fields, weights, lefts = saved[:n], saved[n : 2 * n], iter(saved[2 * n :])
        _, f, d = fields[0].shape
        grads, grads_w = [], []
        for v, w, g, blocks in zip(fields, weights, grad.split(f * (f - 1) // 2, 1), ctx.blocks, strict=True):
            grad_v, grad_w = torch.zeros_like(v), torch.zeros_like(w)
            transposed = v.flatten(1).t().contiguous()
            for i, (matrices, own) in enumerate(blocks):
                left, right, g_i = next(lefts), slice(i + 1, None), g[:, own]
                grad_v[:, right].addcmul_(g_i, left)
                grad_left = g_i * v[:, right]
                grad_left = grad_left.flatten(1) if left.shape == grad_left.shape else grad_left.sum(1)
                grad_w[matrices].add_(product(transposed[i * d : (i + 1) * d], grad_left.t()).t())
                grad_v[:, i].add_(product(grad_left, w[matrices].t()))
            grads.append(grad_v)
            grads_w.append(grad_w.view(-1, d, d).transpose(1, 2))
        return None, *grads, *grads_w
