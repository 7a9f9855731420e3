"""Pairs of fields through a learnt matrix."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from pipeline.layers.pieces import by_hand
from pipeline.layers.product import product

BilinearKind = Literal["all", "each", "interaction"]


class Bilinear(nn.Module):
    """Bilinear interaction of every pair i < j: p_ij = (v_i W) * v_j, a vector.

    Source: Huang, Zhang and Zhang, "FiBiNET", RecSys 2019, https://arxiv.org/abs/1905.09433, section 3.5.
    With W = I it is the Hadamard product of the pair.

    Shapes: (B, F, D) -> (B, C, D) with C = F (F - 1) / 2, in the order of `itertools.combinations`.

    Args:
        fields: F.
        dim: D.
        kind: which pairs share a matrix: `all` of them, `each` left field its own (the last field is
            never on the left, so F - 1 matrices), or every `interaction` its own.
    """

    def __init__(self, fields: int, dim: int, *, kind: BilinearKind = "interaction") -> None:
        super().__init__()
        pairs = [fields - 1 - i for i in range(fields - 1)]  # of which field i is the left one
        matrices = {"all": [1], "each": [1] * (fields - 1), "interaction": pairs}[kind]
        self.matrices, self.repeats = matrices, fields - 1 if kind == "all" else 1
        self.weight = nn.Parameter(torch.empty(sum(matrices), dim, dim))
        for matrix in self.weight:
            nn.init.xavier_uniform_(matrix)

    def forward(self, v: Float[Tensor, "B F D"]) -> Float[Tensor, "B C D"]:
        return bilinear([self], [v])

    def plain(self, v: Float[Tensor, "B F D"]) -> Float[Tensor, "B C D"]:
        """The equation, per left field one product with all its matrices side by side."""
        w = self.weight.split(self.matrices) * self.repeats  # a shared one broadcasts
        columns, d = v.unbind(1), v.shape[2]
        left = [columns[i] @ w_i.transpose(0, 1).flatten(1) for i, w_i in enumerate(w)]
        return torch.cat([x.unflatten(1, (-1, d)) * v[:, i + 1 :] for i, x in enumerate(left)], 1)


def bilinear(layers: Sequence[Bilinear], fields: Sequence[Float[Tensor, "B F D"]]) -> Float[Tensor, "B K D"]:
    """The pairs of several layers behind one another, each of its own fields: (B, layers * C, D).

    All are written to one result, and the gradient is written by hand: autograd would make a tensor of all
    fields for each slice of them, and copy the pairs twice. On 25 fields that takes half of its time.
    """
    if not torch.is_grad_enabled() or not by_hand(fields[0]):
        parts = [layer.plain(v) for layer, v in zip(layers, fields, strict=True)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)
    places = [_places(layer, fields[0].shape[1]) for layer in layers]
    weights = [layer.weight for layer in layers]
    result: Tensor = _Bilinear.apply(places, *fields, *weights)  # type: ignore[no-untyped-call]
    return result


def _transposed(weight: Tensor) -> Tensor:
    """The transposed matrices under one another, any number of which lie together: to (N * D, D)."""
    return weight.transpose(1, 2).flatten(0, 1)


def _places(layer: Bilinear, fields: int) -> list[tuple[slice, slice]]:
    """Of each left field the rows of `_transposed` and the pairs that are its own."""
    d, places, row, pair = layer.weight.shape[1], [], 0, 0
    for i, count in enumerate(layer.matrices * layer.repeats):
        end, last = row + count * d, pair + fields - 1 - i
        places.append((slice(row, end), slice(pair, last)))
        row, pair = 0 if layer.repeats > 1 else end, last
    return places


class _Bilinear(Function):
    @staticmethod
    def forward(ctx: Any, places: list[list[tuple[slice, slice]]], *tensors: Tensor) -> Tensor:
        n = len(places)
        fields, weights = tensors[:n], [_transposed(w) for w in tensors[n:]]
        b, f, d = fields[0].shape
        c = f * (f - 1) // 2
        out, lefts = fields[0].new_empty(b, n * c, d), []
        for v, w, pairs, of_layer in zip(fields, weights, out.split(c, 1), places, strict=True):
            for i, (matrices, own) in enumerate(of_layer):
                left = product(v[:, i], w[matrices]).unflatten(1, (-1, d))
                torch.mul(left, v[:, i + 1 :], out=pairs[:, own])
                lefts.append(left)
        ctx.save_for_backward(*fields, *weights, *lefts)
        ctx.places = places
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        n = len(ctx.places)
        saved = ctx.saved_tensors
        fields, weights, lefts = saved[:n], saved[n : 2 * n], iter(saved[2 * n :])
        _, f, d = fields[0].shape
        of_fields, of_weights = [], []
        for v, w, g, places in zip(fields, weights, grad.split(f * (f - 1) // 2, 1), ctx.places, strict=True):
            of_v, of_w = torch.zeros_like(v), torch.zeros_like(w)
            turned = v.flatten(1).t().contiguous()
            for i, (matrices, own) in enumerate(places):
                left, right, g_i = next(lefts), slice(i + 1, None), g[:, own]
                of_v[:, right].addcmul_(g_i, left)
                of_left = g_i * v[:, right]
                of_left = of_left.flatten(1) if left.shape == of_left.shape else of_left.sum(1)
                of_w[matrices].add_(product(turned[i * d : (i + 1) * d], of_left.t()).t())
                of_v[:, i].add_(product(of_left, w[matrices].t()))
            of_fields.append(of_v)
            of_weights.append(of_w.view(-1, d, d).transpose(1, 2))
        return None, *of_fields, *of_weights
