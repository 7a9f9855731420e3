"""Layers of self-attention between a handful of fields, with the batch as last axis.

Every element of a row's small matrices is then a vector over the batch, and one operation serves all rows.
The batch goes through all layers in chunks that fit into the cache, and the gradient is hand-written:
autograd would keep the products. On five to twelve fields it takes a third to a half of the time of one
matrix product per row and head.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from pipeline.kernels import applies, is_bare
from pipeline.kernels.private import relu_backward, softmax_backward
from pipeline.kernels.product import is_linear, product
from pipeline.layers.attention import Interacting, InteractingLayers

MAX_MULTIPLICATIONS = 1200  # in a head's F x F inner products; above this a matrix product per row is faster
CHUNK_ROWS = 1024
CHUNK_ELEMENTS = 2**18  # 1 MiB of float32, about a core's second-level cache


def interactinglayers(self: InteractingLayers, e: Tensor) -> Tensor:
    """`layers.attention.InteractingLayers` on few fields."""
    layers = [layer for layer in self if isinstance(layer, Interacting) and is_bare(layer, Interacting)]
    if not layers or len(layers) < len(self) or not applies(e):
        return NotImplemented
    heads, f = layers[0].heads, e.shape[1]
    size = max(layer.query.out_features for layer in layers) // heads
    if f * f * size > MAX_MULTIPLICATIONS or any(layer.heads != heads for layer in layers):
        return NotImplemented
    projections = [p for layer in layers for p in (layer.query, layer.key, layer.value, layer.residual)]
    if not all(is_linear(projection, bias=False) for projection in projections):
        return NotImplemented
    weights = [projection.weight for projection in projections]
    scales, masks = [layer.scale for layer in layers], dropout_masks(layers, e)
    if torch.is_grad_enabled():
        result: Tensor = _InteractingLayers.apply(e, heads, scales, masks, *weights)  # type: ignore[no-untyped-call]
        return result
    return _forward(e, heads, _matrices(weights, scales), masks)


def dropout_masks(
    layers: Sequence[Interacting], e: Float[Tensor, "B F D"]
) -> list[Float[Tensor, "heads F F B"] | None]:
    """Draw the factors by which dropout multiplies each layer's attention weights; None without dropout."""
    b, f, _ = e.shape
    return [
        layer.dropout(e.new_ones(layer.heads, f, f, b)) if layer.training and layer.dropout.p else None
        for layer in layers
    ]


def _matrices(weights: Sequence[Tensor], scales: list[float]) -> list[Tensor]:
    """Stack each layer's four projections, (4 * heads * K, W); the query's includes the scale."""
    matrices = []
    for i, scale in enumerate(scales):
        query, *rest = weights[4 * i : 4 * i + 4]
        matrices.append(torch.cat([query if scale == 1 else query / scale, *rest]))
    return matrices


def _forward(
    e: Tensor,
    heads: int,
    matrices: list[Tensor],
    masks: list[Tensor | None],
    kept: list[Tensor] | None = None,
) -> Tensor:
    """All layers, chunk by chunk; appends what the gradient needs to `kept`: x, then p and a per layer."""
    out = e.new_empty(*e.shape[:2], len(matrices[-1]) // 4)
    for i, rows in enumerate(e.split(CHUNK_ROWS)):
        x = rows.permute(2, 1, 0).contiguous()
        states = [x]
        for w, mask in zip(matrices, masks, strict=True):
            p, a = _attend(x, w, heads, _chunk(mask, i))
            x = p[3].flatten(0, 1)
            states += [p, a]
        if kept is not None:
            kept += states
        _batch_first(x, out[i * CHUNK_ROWS : (i + 1) * CHUNK_ROWS])
    return out


def _chunk(mask: Tensor | None, i: int) -> Tensor | None:
    return None if mask is None else mask[..., i * CHUNK_ROWS : (i + 1) * CHUNK_ROWS]


def _batch_first(x: Tensor, rows: Tensor) -> None:
    """Write (W, F, b) to rows (b, F, W), via (F, W, b): torch transposes only matrices block by block."""
    rows.flatten(1).copy_(x.transpose(0, 1).reshape(-1, len(rows)).t())


def _attend(x: Tensor, w: Tensor, heads: int, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """One layer on (W, F, b): q, k, v and the output in one (4, heads, K, F, b), and the weights a."""
    _, f, b = x.shape
    p = product(w, x.flatten(1).t()).view(4, heads, -1, f, b)
    q, k, v, out = p.unbind()
    a = _contract(q.unsqueeze(3), k.unsqueeze(2), 1).softmax(2)
    out.add_(_contract((a if mask is None else a * mask).unsqueeze(1), v.unsqueeze(2), 3)).relu_()
    return p, a


def _contract(x: Tensor, y: Tensor, axis: int, out: Tensor | None = None) -> Tensor:
    """Sum x * y over an axis, both broadcast; a large product is never stored."""
    if prod(map(max, x.shape, y.shape)) <= CHUNK_ELEMENTS:
        return torch.sum(x * y, axis, out=out)
    slices = zip(x.unbind(axis), y.unbind(axis), strict=True)
    a, b = next(slices)
    total = torch.mul(a, b, out=out)
    for a, b in slices:
        total.addcmul_(a, b)
    return total


class _InteractingLayers(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, e: Tensor, heads: int, scales: list[float], masks: list[Tensor | None], *weights: Tensor
    ) -> Tensor:
        kept: list[Tensor] = []
        matrices = _matrices(weights, scales)
        out = _forward(e, heads, matrices, masks, kept)
        ctx.save_for_backward(*matrices, *kept)
        ctx.scales, ctx.masks = scales, masks
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        layers = len(ctx.scales)
        matrices, kept = ctx.saved_tensors[:layers], iter(ctx.saved_tensors[layers:])
        transposed = [w.t().contiguous() for w in matrices]
        grads = [torch.zeros_like(w) for w in matrices]
        grad_e = grad.new_empty(*grad.shape[:2], matrices[0].shape[1])
        for i, rows in enumerate(grad.split(CHUNK_ROWS)):
            x, *states = (next(kept) for _ in range(1 + 2 * layers))
            g = rows.permute(2, 1, 0).contiguous()
            for n in reversed(range(layers)):
                p, a = states[2 * n], states[2 * n + 1]
                before = states[2 * n - 2][3].flatten(0, 1) if n else x
                flat = _backward(g, p, a, _chunk(ctx.masks[n], i)).view(len(matrices[n]), -1)
                grads[n].add_(product(flat, before.flatten(1)))
                g = product(transposed[n], flat.t()).view(before.shape)
            _batch_first(g, grad_e[i * CHUNK_ROWS : (i + 1) * CHUNK_ROWS])
        grad_weights: list[Tensor] = []
        for grad_w, scale in zip(grads, ctx.scales, strict=True):
            query, *rest = grad_w.chunk(4)
            grad_weights += [query if scale == 1 else query / scale, *rest]
        return grad_e, None, None, None, *grad_weights


def _backward(g: Tensor, p: Tensor, a: Tensor, mask: Tensor | None) -> Tensor:
    """The gradient of q, k, v and the residual from that of a layer's output (W, F, b)."""
    grad = torch.empty_like(p)
    (q, k, v, out), (grad_q, grad_k, grad_v, grad_residual) = p.unbind(), grad.unbind()
    relu_backward(g.view(out.shape), out, out=grad_residual)
    grad_a = _contract(grad_residual.unsqueeze(3), v.unsqueeze(2), 1)
    if mask is not None:
        grad_a.mul_(mask)
    scores = softmax_backward(grad_a, a, 2).unsqueeze(1)
    _contract(scores, k.unsqueeze(2), 3, grad_q)
    _contract(scores, q.unsqueeze(3), 2, grad_k)
    _contract((a if mask is None else a * mask).unsqueeze(1), grad_residual.unsqueeze(3), 2, grad_v)
    return grad
