"""Attention between a handful of fields, for all rows of a batch at a time."""

from collections.abc import Sequence
from math import prod, sqrt
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from pipeline.layers.mlp import Dropout, dense
from pipeline.layers.pieces import NUMBERS, by_hand
from pipeline.layers.product import product

# Numbers in a head's F x F products of `size` each, up to which a matrix product a row and head is too small.
SMALL = 1200
ROWS = 1024


class Interacting(nn.Module):
    """One layer: every field looks at all fields, head by head, and keeps a projection of itself."""

    def __init__(self, inputs: int, size: int, heads: int, *, scaling: bool, dropout: float) -> None:
        super().__init__()
        self.query = dense(inputs, heads * size, bias=False)
        self.key = dense(inputs, heads * size, bias=False)
        self.value = dense(inputs, heads * size, bias=False)
        self.residual = dense(inputs, heads * size, bias=False)
        self.heads, self.scale = heads, sqrt(size) if scaling else 1.0
        self.dropout = Dropout(dropout)

    def split(self, x: Float[Tensor, "B F W"]) -> Float[Tensor, "B heads F K"]:
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def weights(self, e: Float[Tensor, "B F D"]) -> Float[Tensor, "B heads F F"]:
        scores = self.split(self.query(e)) @ self.split(self.key(e)).transpose(2, 3)
        return (scores / self.scale).softmax(3)

    def forward(self, e: Float[Tensor, "B F D"]) -> Float[Tensor, "B F W"]:
        attended = self.dropout(self.weights(e)) @ self.split(self.value(e))
        return torch.relu(attended.transpose(1, 2).flatten(2) + self.residual(e))

    @property
    def projections(self) -> tuple[nn.Linear, ...]:
        """What makes query, key, value and what the result is added to."""
        return self.query, self.key, self.value, self.residual


def is_small(e: Tensor, fields: int, size: int) -> bool:
    """Whether `interact` is the faster way for so many fields, heads of this size, and e's device."""
    return fields * fields * size <= SMALL and by_hand(e)


def interact(layers: Sequence[Interacting], e: Float[Tensor, "B F D"]) -> Float[Tensor, "B F W"]:
    """Apply the layers one after another, with the batch as last axis.

    Every number of a row's small matrices is then a run over the batch, and one operation serves all rows.
    It goes through the rows in pieces, each through all layers while it is in the cache, and the gradient
    is written by hand: autograd would keep the products. On five to twelve fields that takes a third
    to a half of the time of a matrix product a row.

    Args:
        layers: all of the same number of heads.
        e: the fields; also the first layer's dtype and device.
    """
    keeps = masks(layers, e)
    weights = [part.weight for layer in layers for part in layer.projections]
    scales = [layer.scale for layer in layers]
    if torch.is_grad_enabled():
        result: Tensor = _Interact.apply(e, layers[0].heads, scales, keeps, *weights)  # type: ignore[no-untyped-call]
        return result
    matrices = _matrices(weights, scales)
    return _through(e, layers[0].heads, matrices, keeps)


def masks(
    layers: Sequence[Interacting], e: Float[Tensor, "B F D"]
) -> list[Float[Tensor, "heads F F B"] | None]:
    """Draw what dropout multiplies the attention weights of each layer by, if it drops any."""
    b, f, _ = e.shape
    return [
        layer.dropout(e.new_ones(layer.heads, f, f, b)) if layer.training and layer.dropout.p else None
        for layer in layers
    ]


def _matrices(weights: Sequence[Tensor], scales: list[float]) -> list[Tensor]:
    """The four projections of each layer under one another, (4 * heads * K, W), the scale in the query's."""
    found = []
    for i, scale in enumerate(scales):
        query, *rest = weights[4 * i : 4 * i + 4]
        found.append(torch.cat([query if scale == 1 else query / scale, *rest]))
    return found


def _through(
    e: Tensor,
    heads: int,
    matrices: list[Tensor],
    keeps: list[Tensor | None],
    kept: list[Tensor] | None = None,
) -> Tensor:
    """All layers, piece by piece; what the gradient needs is appended to `kept`: x, then p and a a layer."""
    out = e.new_empty(*e.shape[:2], len(matrices[-1]) // 4)
    for i, part in enumerate(e.split(ROWS)):
        x = part.permute(2, 1, 0).contiguous()
        states = [x]
        for w, keep in zip(matrices, keeps, strict=True):
            p, a = _attend(x, w, heads, None if keep is None else keep[..., i * ROWS : (i + 1) * ROWS])
            x = p[3].flatten(0, 1)
            states += [p, a]
        if kept is not None:
            kept += states
        _turn_back(x, out[i * ROWS : (i + 1) * ROWS])
    return out


def _turn_back(x: Tensor, rows: Tensor) -> None:
    """Write (W, F, b) to rows (b, F, W): field by field first, since torch turns matrices alone in blocks."""
    rows.flatten(1).copy_(x.transpose(0, 1).reshape(-1, len(rows)).t())


def _attend(x: Tensor, w: Tensor, heads: int, keep: Tensor | None) -> tuple[Tensor, Tensor]:
    """One layer on (W, F, b): q, k, v and the result in one (4, heads, K, F, b), and the weights."""
    _, f, b = x.shape
    p = product(w, x.flatten(1).t()).view(4, heads, -1, f, b)
    q, k, v, out = p.unbind()
    a = _sum(q.unsqueeze(3), k.unsqueeze(2), 1).softmax(2)
    out.add_(_sum((a if keep is None else a * keep).unsqueeze(1), v.unsqueeze(2), 3)).relu_()
    return p, a


def _sum(x: Tensor, y: Tensor, axis: int, out: Tensor | None = None) -> Tensor:
    """Sum x * y over an axis, both broadcast: in two calls where that is little, else without the product."""
    if prod(map(max, x.shape, y.shape)) <= NUMBERS:
        return torch.sum(x * y, axis, out=out)
    terms = zip(x.unbind(axis), y.unbind(axis), strict=True)
    a, b = next(terms)
    total = torch.mul(a, b, out=out)
    for a, b in terms:
        total.addcmul_(a, b)
    return total


class _Interact(Function):
    @staticmethod
    def forward(
        ctx: Any, e: Tensor, heads: int, scales: list[float], keeps: list[Tensor | None], *weights: Tensor
    ) -> Tensor:
        kept: list[Tensor] = []
        matrices = _matrices(weights, scales)
        out = _through(e, heads, matrices, keeps, kept)
        ctx.save_for_backward(*matrices, *kept)
        ctx.scales, ctx.keeps = scales, keeps
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        layers = len(ctx.scales)
        matrices, kept = ctx.saved_tensors[:layers], iter(ctx.saved_tensors[layers:])
        transposed = [w.t().contiguous() for w in matrices]
        grads = [torch.zeros_like(w) for w in matrices]
        grad_e = grad.new_empty(*grad.shape[:2], matrices[0].shape[1])
        for i, part in enumerate(grad.split(ROWS)):
            x, *states = (next(kept) for _ in range(1 + 2 * layers))
            g = part.permute(2, 1, 0).contiguous()
            for n in reversed(range(layers)):
                p, a, keep = states[2 * n], states[2 * n + 1], ctx.keeps[n]
                before = states[2 * n - 2][3].flatten(0, 1) if n else x
                grad_p = _backward(g, p, a, None if keep is None else keep[..., i * ROWS : (i + 1) * ROWS])
                flat = grad_p.view(len(matrices[n]), -1)
                grads[n].add_(product(flat, before.flatten(1)))
                g = product(transposed[n], flat.t()).view(before.shape)
            _turn_back(g, grad_e[i * ROWS : (i + 1) * ROWS])
        parts: list[Tensor] = []
        for of_w, scale in zip(grads, ctx.scales, strict=True):
            query, *rest = of_w.chunk(4)
            parts += [query if scale == 1 else query / scale, *rest]
        return grad_e, None, None, None, *parts


def _backward(g: Tensor, p: Tensor, a: Tensor, keep: Tensor | None) -> Tensor:
    """The gradient of q, k, v and of what is added, from that of a layer's result (W, F, b)."""
    grad = torch.empty_like(p)
    (q, k, v, out), (grad_q, grad_k, grad_v, grad_r) = p.unbind(), grad.unbind()
    torch.ops.aten.threshold_backward.grad_input(g.view(out.shape), out, 0, grad_input=grad_r)
    grad_a = _sum(grad_r.unsqueeze(3), v.unsqueeze(2), 1)
    if keep is not None:
        grad_a.mul_(keep)
    scores = torch._softmax_backward_data(grad_a, a, 2, a.dtype).unsqueeze(1)
    _sum(scores, k.unsqueeze(2), 3, grad_q)
    _sum(scores, q.unsqueeze(3), 2, grad_k)
    _sum((a if keep is None else a * keep).unsqueeze(1), grad_r.unsqueeze(3), 2, grad_v)
    return grad
