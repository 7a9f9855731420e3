"""The compressed interaction network of xDeepFM, chunk by chunk.

A chunk of the batch goes through all layers while it is in the cache, and a layer's products, many times its
channels, are recomputed for the gradient instead of kept; so memory is bounded. Within a chunk, columns n
are the components of its rows, ordered (row, component): the product of two channels is then one elementwise
product of two long vectors, and compressing all products is one matrix product.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pipeline.kernels import applies
from pipeline.kernels.private import relu_backward
from pipeline.kernels.product import is_linear, product
from pipeline.layers.cin import CIN

CHUNK_ELEMENTS = 2**19  # products of a chunk per thread
MIN_COLUMNS = 256  # of a chunk: with fewer, a matrix product is too thin to be fast


def cin(self: CIN, e: Tensor) -> Tensor:
    """`layers.cin.CIN`."""
    weights = [w.weight for w in self.w if is_linear(w, bias=False)]
    if len(weights) < len(self.w) or not applies(e) or not len(e):
        return NotImplemented
    halves = (self.split_half,) * (len(weights) - 1) + (False,)
    spec = _Spec(halves, self.relu, e.shape[1], e.shape[2])
    if torch.is_grad_enabled():
        result: Tensor = _CIN.apply(e, spec, *weights)  # type: ignore[no-untyped-call]
        return result
    return _forward(e, spec, weights, keep=False)[0]


class _Spec(NamedTuple):
    """What the network does besides its products.

    Attributes:
        halves: of which layers only the first half of the channels is forwarded.
        relu: after each layer.
        fields: F.
        size: D.
    """

    halves: tuple[bool, ...]
    relu: bool
    fields: int
    size: int

    def first_pooled(self, x: Tensor, k: int) -> int:
        """Return the index of the first channel of layer k (x) that is pooled."""
        return len(x) // 2 if self.halves[k] else 0

    def forwarded(self, x: Tensor, k: int) -> Tensor:
        """Return the channels that the next layer gets."""
        return x[: self.first_pooled(x, k) or len(x)]

    def outputs(self, weights: Sequence[Tensor]) -> list[slice]:
        """Return the slice of each layer in the pooled channels."""
        sizes = [len(w) - self.first_pooled(w, k) for k, w in enumerate(weights)]
        return [slice(sum(sizes[:k]), sum(sizes[: k + 1])) for k in range(len(sizes))]

    def layers(self, weights: Sequence[Tensor]) -> list[Tensor]:
        """Return the weights of the layers that are computed column by column.

        Without relu the last one is not: sum_d W (x_d * x0_d) = W sum_d x_d * x0_d. In the first one, both
        factors are the fields, so each pair is computed once.
        """
        layers = list(weights) if self.relu else list(weights[:-1])
        if layers:
            i, j, _, squares = _pairs(self.fields)
            one, other = (layers[0].index_select(1, a * self.fields + b) for a, b in ((i, j), (j, i)))
            layers[0] = one + other * (1 - squares)
        return layers

    def chunks(self, weights: Sequence[Tensor], b: int) -> Iterator[slice]:
        """Yield slices of the rows whose products fit into the cache."""
        products = max([self.fields, *(w.shape[1] for w in weights)])
        columns = max(MIN_COLUMNS, CHUNK_ELEMENTS * torch.get_num_threads() // products)
        rows = max(1, columns // self.size)
        return (slice(start, min(b, start + rows)) for start in range(0, b, rows))


@cache
def _pairs(f: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the pairs i <= j of fields: i, j, the index of each (i, j) among them, and which have i = j."""
    with torch.inference_mode(False):
        i, j = torch.triu_indices(f, f)
        pair_index = torch.zeros(f, f, dtype=torch.long)
        pair_index[i, j] = pair_index[j, i] = torch.arange(len(i))
        return i, j, pair_index.flatten(), (i == j).long()


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
    e: Tensor, spec: _Spec, weights: Sequence[Tensor], *, keep: bool
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Return the pooled channels, the last layer's pooled products (B, F, H), and all chunks' channels."""
    outputs, layers = spec.outputs(weights), spec.layers(weights)
    sums, ones = e.new_empty(len(e), outputs[-1].stop), e.new_ones(spec.size)
    inputs = 0 if spec.relu else weights[-1].shape[1] // spec.fields
    first, kept = e.new_empty(len(e), spec.fields, inputs), []
    for rows in spec.chunks(layers, len(e)):
        x = x0 = _columns(e[rows])
        for k, w in enumerate(layers):
            x = product(w, _products(x if k else None, x0).T)
            if spec.relu:
                x.relu_()
            if keep:
                kept.append(x)
            p = torch.mv(x[spec.first_pooled(x, k) :].view(-1, spec.size), ones)
            sums[rows, outputs[k]] = p.view(-1, rows.stop - rows.start).T
            x = spec.forwarded(x, k)
        if not spec.relu:
            torch.bmm(e[rows], x.view(len(x), -1, spec.size).permute(1, 2, 0), out=first[rows])
    if not spec.relu:
        sums[:, outputs[-1]] = product(first.flatten(1), _swap(weights[-1], spec.fields))
    return sums, first, kept


class _CIN(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, e: Tensor, spec: _Spec, *weights: Tensor) -> Tensor:
        sums, first, kept = _forward(e, spec, weights, keep=True)
        ctx.save_for_backward(e, first, *weights, *kept)
        ctx.spec = spec
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        spec: _Spec = ctx.spec
        e, first, *rest = ctx.saved_tensors
        weights, kept = rest[: len(spec.halves)], iter(rest[len(spec.halves) :])
        outputs, layers = spec.outputs(weights), spec.layers(weights)
        grad_e, grads = torch.zeros_like(e), [torch.zeros_like(w.T) for w in layers]
        transposed = [w.T.contiguous() for w in layers]
        _, _, pair_index, squares = _pairs(spec.fields)
        if layers:
            transposed[0] *= 1 + squares.unsqueeze(1)  # the gradient of x^2 is 2 x
        if not spec.relu:
            g = grad[:, outputs[-1]]
            grads.append(_swap(product(g.T, first.flatten(1).T), first.shape[2]))
            grad_first = product(g, _swap(weights[-1], spec.fields).T).view_as(first)
        for rows in spec.chunks(layers, len(e)):
            x0, xs = _columns(e[rows]), [next(kept) for _ in layers]
            inputs = [x0, *(spec.forwarded(x, k) for k, x in enumerate(xs))]
            grad_x0, gs = torch.zeros_like(x0), [torch.empty_like(x) for x in xs]
            grad_inputs = [grad_x0, *(spec.forwarded(g, k) for k, g in enumerate(gs))]
            if not spec.relu:
                x, g = (t.view(len(t), -1, spec.size).transpose(0, 1) for t in (inputs[-1], grad_inputs[-1]))
                torch.bmm(grad_first[rows], x, out=grad_e[rows])
                g.copy_(torch.bmm(grad_first[rows].mT, e[rows]))
            for k in reversed(range(len(layers))):
                _grad_of_pooled(gs[k], xs[k], grad[rows, outputs[k]], spec, k)
                products = _products(inputs[k] if k else None, x0)
                grads[k] += product(products, gs[k])
                products = product(transposed[k], gs[k].T)  # from here on, their gradient
                if k:
                    products = products.unflatten(0, (-1, spec.fields))
                    grad_x = torch.mul(products[:, 0], x0[0], out=grad_inputs[k])
                    for f in range(1, spec.fields):
                        grad_x.addcmul_(products[:, f], x0[f])
                    grad_x0 += _dot(products, inputs[k])
                else:
                    products = products.index_select(0, pair_index).unflatten(0, (-1, spec.fields))
                    grad_x0 += products.mul_(x0).sum(1)
            grad_e[rows] += grad_x0.view(spec.fields, -1, spec.size).transpose(0, 1)
        if layers:
            grads[0] = grads[0].index_select(0, pair_index)
        return grad_e, None, *(g.T for g in grads[: len(layers)]), *grads[len(layers) :]


def _grad_of_pooled(g: Tensor, x: Tensor, sums: Tensor, spec: _Spec, k: int) -> None:
    """Complete the gradient of layer k's channels in g, which contains that of the forwarded ones.

    Args:
        g: (K, n).
        x: the channels (K, n).
        sums: the gradient of the pooled ones (b, K).
    """
    summed, s = g[spec.first_pooled(g, k) :].view(-1, len(sums), spec.size), sums.T.unsqueeze(2)
    if spec.halves[k] or k == len(spec.halves) - 1:
        summed.copy_(s)
    else:
        summed.add_(s)
    if spec.relu:
        relu_backward(g, x, out=g)


def _dot(products: Tensor, x: Tensor) -> Tensor:
    """Sum p_hf * x_h over h in every column, in place: (H, F, n), (H, n) -> (F, n)."""
    rows = -(-len(x) // 4)  # fewer calls than one per h, less memory than all products
    total, *parts = products.split(rows)
    y, *ys = x.unsqueeze(1).split(rows)
    total.mul_(y)
    for part, y in zip(parts, ys, strict=True):
        total[: len(part)].addcmul_(part, y)
    return total.sum(0)
