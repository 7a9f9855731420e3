"""Products of fields compressed to channels, layer by layer: the network of xDeepFM.

A batch goes through all layers piece by piece, and a layer's products, many times its channels, are made
again for the gradient: so they stay in the cache, and memory is bounded. Inside a piece, columns n are the
components of its rows, (row, component) in this order: the product of two channels is then one elementwise
product of two long runs of numbers, and compressing all products is one matrix product.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from pipeline.layers.pieces import by_hand, contract
from pipeline.layers.product import product

NUMBERS = 2**19  # products of a piece, a thread
LEAST = 256  # columns of a piece: with fewer, a matrix product is too thin to be fast
_threshold = torch.ops.aten.threshold_backward.grad_input


def compress(
    e: Float[Tensor, "B F D"], weights: Sequence[Tensor], *, split_half: bool, relu: bool
) -> Float[Tensor, "B K"]:
    """Return all channels of X^k_h = sum_{i,j} W^k_hij (X^{k-1}_i * X^0_j), X^0 = e, each summed over D.

    Args:
        e: vectors of the fields.
        weights: W^k as (channels, channels before * F), for each layer.
        split_half: whether the first half of a layer's channels goes on and only the second is summed; of
            the last layer all are summed.
        relu: whether channels are cut off at zero.
    """
    last = len(weights) - 1
    halves = tuple(split_half and k < last for k in range(last + 1))
    if by_hand(e) and len(e):
        how = _How(halves, relu, e.shape[1], e.shape[2])
        if torch.is_grad_enabled():
            result: Tensor = _Stack.apply(e, how, *weights)  # type: ignore[no-untyped-call]
            return result
        return _forward(e, how, weights, keep=False)[0]
    b, f, d = e.shape
    x = x0 = e.transpose(0, 1).flatten(1)  # (F, B * D)
    flat, pooled = e.transpose(1, 2), []  # x as (B, D, H)
    for w, half in zip(weights if relu else weights[:-1], halves, strict=False):
        x = w @ (x.unsqueeze(1) * x0).flatten(0, 1)
        flat = x.T.unflatten(0, (b, d))
        flat = flat.relu() if relu else flat
        flat, p = flat.chunk(2, 2) if half else (flat, flat)
        pooled.append(p.sum(1))
        x = flat.flatten(0, 1).T
    if not relu:
        # sum_d W (x_d * x0_d) = W sum_d x_d * x0_d: the sum first, for nothing follows
        pooled.append((e @ flat).flatten(1) @ _swap(weights[-1], f).T)
    return torch.cat(pooled, 1)


class _How(NamedTuple):
    """What the stack does besides its products: whose first half goes on, the relu, the shape of a row."""

    halves: tuple[bool, ...]
    relu: bool
    fields: int
    size: int

    def first(self, x: Tensor, k: int) -> int:
        """Which of the channels x of layer k is the first that is summed."""
        return len(x) // 2 if self.halves[k] else 0

    def on(self, x: Tensor, k: int) -> Tensor:
        """The channels that go on."""
        return x[: self.first(x, k) or len(x)]

    def outputs(self, weights: Sequence[Tensor]) -> list[slice]:
        """Where the sums of each layer stand among all."""
        sizes = [len(w) - self.first(w, k) for k, w in enumerate(weights)]
        return [slice(sum(sizes[:k]), sum(sizes[: k + 1])) for k in range(len(sizes))]

    def layers(self, weights: Sequence[Tensor]) -> list[Tensor]:
        """Weights of what is compressed column by column: without the relu, the last layer is not."""
        layers = list(weights) if self.relu else list(weights[:-1])
        if layers:
            i, j, _, squares = _pairs(self.fields)
            one, other = (layers[0].index_select(1, a * self.fields + b) for a, b in ((i, j), (j, i)))
            layers[0] = one + other * (1 - squares)
        return layers

    def pieces(self, weights: Sequence[Tensor], b: int) -> Iterator[slice]:
        """Parts of the rows whose products stay in the cache."""
        products = max([self.fields, *(w.shape[1] for w in weights)])
        columns = max(LEAST, NUMBERS * torch.get_num_threads() // products)
        rows = max(1, columns // self.size)
        return (slice(start, min(b, start + rows)) for start in range(0, b, rows))


@cache
def _pairs(f: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the pairs i <= j of fields as i and j, where each (i, j) stands among them, which are i = j."""
    with torch.inference_mode(False):
        i, j = torch.triu_indices(f, f)
        place = torch.zeros(f, f, dtype=torch.long)
        place[i, j] = place[j, i] = torch.arange(len(i))
        return i, j, place.flatten(), (i == j).long()


def _products(x: Tensor | None, x0: Tensor) -> Tensor:
    """(H, n), (F, n) -> (H * F, n); without x the pairs i <= j of x0 with itself, each once."""
    if x is None:
        i, j, *_ = _pairs(len(x0))
        return x0.index_select(0, i).mul_(x0.index_select(0, j))
    return (x.unsqueeze(1) * x0).flatten(0, 1)


def _columns(e: Tensor) -> Tensor:
    """(b, F, D) -> (F, b * D)."""
    return e.transpose(0, 1).flatten(1)


def _swap(w: Tensor, inner: int) -> Tensor:
    """(K, outer * inner) -> (K, inner * outer)."""
    return w.unflatten(1, (-1, inner)).transpose(1, 2).flatten(1)


def _forward(
    e: Tensor, how: _How, weights: Sequence[Tensor], *, keep: bool
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Return the sums, the products that are summed first (B, F, H), and the channels of all pieces."""
    outputs, layers = how.outputs(weights), how.layers(weights)
    sums, ones = e.new_empty(len(e), outputs[-1].stop), e.new_ones(how.size)
    inputs = 0 if how.relu else weights[-1].shape[1] // how.fields
    first, kept = e.new_empty(len(e), how.fields, inputs), []
    for rows in how.pieces(layers, len(e)):
        x = x0 = _columns(e[rows])
        for k, w in enumerate(layers):
            x = product(w, _products(x if k else None, x0).T)
            if how.relu:
                x.relu_()
            if keep:
                kept.append(x)
            p = torch.mv(x[how.first(x, k) :].view(-1, how.size), ones)
            sums[rows, outputs[k]] = p.view(-1, rows.stop - rows.start).T
            x = how.on(x, k)
        if not how.relu:
            torch.bmm(e[rows], x.view(len(x), -1, how.size).permute(1, 2, 0), out=first[rows])
    if not how.relu:
        sums[:, outputs[-1]] = product(first.flatten(1), _swap(weights[-1], how.fields))
    return sums, first, kept


class _Stack(Function):
    @staticmethod
    def forward(ctx: Any, e: Tensor, how: _How, *weights: Tensor) -> Tensor:
        sums, first, kept = _forward(e, how, weights, keep=True)
        ctx.save_for_backward(e, first, *weights, *kept)
        ctx.how = how
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        how: _How = ctx.how
        e, first, *rest = ctx.saved_tensors
        weights, kept = rest[: len(how.halves)], iter(rest[len(how.halves) :])
        outputs, layers = how.outputs(weights), how.layers(weights)
        grad_e, grads = torch.zeros_like(e), [torch.zeros_like(w.T) for w in layers]
        turned = [w.T.contiguous() for w in layers]
        _, _, place, squares = _pairs(how.fields)
        if layers:
            turned[0] *= 1 + squares.unsqueeze(1)  # x^2 is one product, and 2 x its gradient
        if not how.relu:
            g = grad[:, outputs[-1]]
            grads.append(_swap(product(g.T, first.flatten(1).T), first.shape[2]))
            grad_first = product(g, _swap(weights[-1], how.fields).T).view_as(first)
        for rows in how.pieces(layers, len(e)):
            x0, xs = _columns(e[rows]), [next(kept) for _ in layers]
            inputs = [x0, *(how.on(x, k) for k, x in enumerate(xs))]
            grad_x0, gs = torch.zeros_like(x0), [torch.empty_like(x) for x in xs]
            grad_inputs = [grad_x0, *(how.on(g, k) for k, g in enumerate(gs))]
            if not how.relu:
                x, g = (t.view(len(t), -1, how.size).transpose(0, 1) for t in (inputs[-1], grad_inputs[-1]))
                torch.bmm(grad_first[rows], x, out=grad_e[rows])
                g.copy_(torch.bmm(grad_first[rows].mT, e[rows]))
            for k in reversed(range(len(layers))):
                _of_sums(gs[k], xs[k], grad[rows, outputs[k]], how, k)
                products = _products(inputs[k] if k else None, x0)
                grads[k] += product(products, gs[k])
                products = product(turned[k], gs[k].T)  # from here on their gradient
                if k:
                    products = products.unflatten(0, (-1, how.fields))
                    on = torch.mul(products[:, 0], x0[0], out=grad_inputs[k])
                    contract(products[:, 1:], x0[1:].unsqueeze(0), 1, on)
                    grad_x0 += _dot(products, inputs[k])
                else:
                    products = products.index_select(0, place).unflatten(0, (-1, how.fields))
                    grad_x0 += products.mul_(x0).sum(1)
            grad_e[rows] += grad_x0.view(how.fields, -1, how.size).transpose(0, 1)
        if layers:
            grads[0] = grads[0].index_select(0, place)
        return grad_e, None, *(g.T for g in grads[: len(layers)]), *grads[len(layers) :]


def _of_sums(g: Tensor, x: Tensor, sums: Tensor, how: _How, k: int) -> None:
    """Make the gradient of what layer k compressed out of that of the channels that go on, which is in g.

    Args:
        g: (K, n).
        x: the channels (K, n).
        sums: the gradient of those that are summed (b, K).
    """
    summed, s = g[how.first(g, k) :].view(-1, len(sums), how.size), sums.T.unsqueeze(2)
    if how.halves[k] or k == len(how.halves) - 1:
        summed.copy_(s)
    else:
        summed.add_(s)
    if how.relu:
        _threshold(g, x, 0, grad_input=g)


def _dot(products: Tensor, x: Tensor) -> Tensor:
    """Sum p_hf * x_h over h in every column, in place: (H, F, n), (H, n) -> (F, n)."""
    rows = -(-len(x) // 4)  # fewer calls than one for each h, less memory than all products
    total, *parts = products.split(rows)
    y, *ys = x.unsqueeze(1).split(rows)
    total.mul_(y)
    for part, y in zip(parts, ys, strict=True):
        total[: len(part)].addcmul_(part, y)
    return total.sum(0)
