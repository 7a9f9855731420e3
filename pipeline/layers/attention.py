"""Attention between a handful of fields, for all rows of a batch at a time."""

from math import sqrt
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import Function

from pipeline.layers.mlp import Dropout, dense
from pipeline.layers.pieces import by_hand, contract

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

    def columns(self, e: Float[Tensor, "D F B"]) -> Float[Tensor, "W F B"]:
        """The same with the batch as last axis, in which few fields are attended faster."""
        parts = [self.query.weight / self.scale, self.key.weight, self.value.weight, self.residual.weight]
        _, f, b = e.shape
        p = (torch.cat(parts) @ e.flatten(1)).view(4, self.heads, -1, f, b)
        drops = self.training and self.dropout.p
        keep = self.dropout(e.new_ones(self.heads, f, f, b)) if drops else None
        return attend(p, keep).flatten(0, 1)


def is_small(e: Tensor, fields: int, size: int) -> bool:
    """Whether `attend` is the faster way for so many fields, heads of this size, and e's device."""
    return fields * fields * size <= SMALL and by_hand(e)


def attend(p: Float[Tensor, "4 heads K F B"], keep: Float[Tensor, "heads F F B"] | None = None) -> Tensor:
    """relu(softmax(q . k) v + r) with q, k, v and r = p, the batch as last axis: -> (heads, K, F, B).

    Every number of a row's small matrices is then a run over the batch, and one operation serves all rows.
    It goes through the rows in pieces, and the gradient is written by hand: autograd would keep the
    products. On five to twelve fields that takes a third to a half of the time of a matrix product a row.

    Args:
        p: of each field and head query, key, value, and what the result is added to.
        keep: what the attention weights are multiplied by, (heads, of m, to k, B): dropout's mask.
    """
    result: Tensor = _Attend.apply(p, keep)  # type: ignore[no-untyped-call]
    return result


class _Attend(Function):
    @staticmethod
    def forward(ctx: Any, p: Tensor, keep: Tensor | None) -> Tensor:
        outs, weights = [], []
        for i, part in enumerate(p.split(ROWS, -1)):
            q, k, v, r = part.unbind()
            a = contract(q.unsqueeze(3), k.unsqueeze(2), 1).softmax(2)
            kept = a if keep is None else a * keep[..., i * ROWS : (i + 1) * ROWS]
            outs.append(contract(kept.unsqueeze(1), v.unsqueeze(2), 3, r.clone()).relu_())
            weights.append(a)
        out = outs[0] if len(outs) == 1 else torch.cat(outs, -1)
        ctx.save_for_backward(p, keep, out, *weights)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        p, keep, out, *weights = ctx.saved_tensors
        grad_p = torch.empty_like(p)
        pieces = zip(*(x.split(ROWS, -1) for x in (p, out, grad, grad_p)), strict=True)
        for i, (part, out_i, g, grad_part) in enumerate(pieces):
            q, k, v, _ = part.unbind()
            a, g = weights[i], torch.ops.aten.threshold_backward(g, out_i, 0)
            kept, grad_a = a, contract(g.unsqueeze(3), v.unsqueeze(2), 1)
            if keep is not None:
                mask = keep[..., i * ROWS : (i + 1) * ROWS]
                kept, grad_a = a * mask, grad_a.mul_(mask)
            scores = grad_a.sub_(contract(grad_a, a, 2).unsqueeze(2)).mul_(a).unsqueeze(1)
            grad_part[0] = contract(scores, k.unsqueeze(2), 3)
            grad_part[1] = contract(scores, q.unsqueeze(3), 2)
            grad_part[2] = contract(kept.unsqueeze(1), g.unsqueeze(3), 2)
            grad_part[3] = g
        return grad_p, None
