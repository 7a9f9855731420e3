"""The equations as loops over plain numbers, one row at a time: what layers and models are tested against."""

import math
from collections.abc import Callable
from itertools import combinations
from typing import Any

from rows import wake
from torch import Tensor, nn

from pipeline.layers.embedding import FieldLinear
from pipeline.layers.excitation import SEST, Excitation
from pipeline.layers.fwbi import FwBI
from pipeline.layers.mlp import MLP
from pipeline.schema import EMPTY, Schema

Vector = list[float]
Matrix = list[Vector]


def exact(module: Any) -> Any:
    """Off its starting point, in float64, without dropout."""
    wake(module.double())
    return module.eval()


def relu(x: float) -> float:
    return x if x > 0 else 0.0


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def dot(a: Vector, b: Vector) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def times(weight: Tensor, x: Vector) -> Vector:
    return [dot(row, x) for row in weight.tolist()]


def softmax(x: Vector) -> Vector:
    total = sum(math.exp(v) for v in x)
    return [math.exp(v) / total for v in x]


def mean(x: Vector) -> float:
    return sum(x) / len(x)


def normed(layer: nn.Module, x: Vector) -> Vector:
    """Mean 0 and variance 1, then gain and bias; x itself where there is no layer (`nn.Identity`)."""
    if isinstance(layer, nn.Identity):
        return x
    assert isinstance(layer, nn.LayerNorm)
    mu = mean(x)
    sigma = math.sqrt(mean([(v - mu) ** 2 for v in x]) + layer.eps)
    gains = zip(x, layer.weight.tolist(), layer.bias.tolist(), strict=True)
    return [g * (v - mu) / sigma + b for v, g, b in gains]


def linear(layer: FieldLinear, ids: list[int]) -> float:
    """w0 plus the weight of every value that is there."""
    return layer.bias.item() + sum(layer.table[i, 0].item() for i in ids if i != EMPTY)


def embed(table: Tensor, schema: Schema, ids: list[int]) -> Matrix:
    """One vector a field: the sum over its values."""
    e = [[0.0] * table.shape[1] for _ in schema.fields]
    for slot, i in enumerate(ids):
        if i != EMPTY:
            for d, value in enumerate(table[i].tolist()):
                e[schema.field_of_slot[slot]][d] += value
    return e


def pairs(vectors: Matrix) -> float:
    return sum(dot(a, b) for a, b in combinations(vectors, 2))


def mlp(network: MLP, x: Vector, activation: Callable[[float], float] = relu) -> Vector:
    for layer in network:
        if isinstance(layer, nn.Linear):
            x = [v + b for v, b in zip(times(layer.weight, x), layer.bias.tolist(), strict=True)]
            x = [activation(v) for v in x]
    return x


def excite(layer: Excitation, z: Vector, final: Callable[[float], float]) -> Vector:
    hidden = [relu(v) for v in times(layer.w1.weight, z)]
    return [final(v) for v in times(layer.w2.weight, hidden)]


def sest(layer: SEST, e: Matrix, final: Callable[[float], float]) -> Matrix:
    """FLSEST eq. 1-8; the gates are one a field or one a component."""
    gates = excite(layer.reweight, [mean(row) for row in e], relu)
    each = len(gates) // len(e)
    a = [gates[f * each : (f + 1) * each] for f in range(len(e))]
    z = [mean([abs(v) for v in row]) for row in e]
    sigma = excite(layer.threshold, z, final)
    rows = []
    for f, row in enumerate(e):
        lam = z[f] * sigma[f]
        m = [gate * v for gate, v in zip(a[f] * (len(row) // each), row, strict=True)]
        eta = [math.copysign(max(abs(v) - lam, 0.0), v) for v in row]
        v = m + eta if layer.merge == "concat" else [x + y for x, y in zip(m, eta, strict=True)]
        rows.append([x + y for x, y in zip(row, v, strict=True)] if layer.residual else v)
    return rows


def fwbi(layer: FwBI, schema: Schema, e: Matrix) -> Vector:
    """FLSEST eq. 12-13: every pair of fields with the weight of its pair of domains.

    A pair inside a domain stands twice in S*S - sum e*e, hence the 2.
    """
    r_between = {}
    if layer.r_between is not None:
        both = combinations(range(len(schema.domains)), 2)
        r_between = dict(zip(both, layer.r_between.tolist(), strict=True))
    domain = {f: m for m, group in enumerate(schema.domains) for f in group}
    out = layer.bias.sum(0).tolist() if layer.bias is not None else [0.0] * len(e[0])
    for i, j in combinations(range(len(e)), 2):
        m, n = sorted((domain[i], domain[j]))
        r = 2 * layer.r_within[m].item() if m == n else r_between[m, n]
        out = [o + r * x * y for o, x, y in zip(out, e[i], e[j], strict=True)]
    return out


def product(vectors: Matrix) -> Vector:
    return [math.prod(column) for column in zip(*vectors, strict=True)]


def flat(matrix: Matrix) -> Vector:
    return [v for row in matrix for v in row]


def values(table: Tensor, ids: list[int]) -> Matrix:
    """The vectors of all values of a row, those of one bag apart."""
    return [table[i].tolist() for i in ids if i != EMPTY]


def logloss(logits: Vector, targets: Vector) -> float:
    """Mean cross-entropy of these probabilities with targets, which may be probabilities themselves."""
    p = [sigmoid(z) for z in logits]
    return mean([-y * math.log(q) - (1 - y) * math.log(1 - q) for q, y in zip(p, targets, strict=True)])
