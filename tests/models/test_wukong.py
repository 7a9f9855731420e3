"""Wukong against its equations."""

from itertools import product

import pytest
import torch
from loops import Matrix, Vector, dot, embed, exact, flat, mlp, normed, times
from rows import every_schema, random_ids
from torch import Tensor, nn

from pipeline.models import build
from pipeline.models.wukong import WukongFM, WukongLayer
from pipeline.schema import Schema


def network(layers: nn.Sequential, x: Vector) -> Vector:
    """An MLP and the linear layer behind it."""
    x = mlp(layers[0], x)
    return [v + b for v, b in zip(times(layers[1].weight, x), layers[1].bias.tolist(), strict=True)]


def rows(x: Vector, size: int) -> Matrix:
    return [x[i : i + size] for i in range(0, len(x), size)]


def compressed(weight: Tensor, x: Matrix) -> Matrix:
    """Linear combinations of the vectors."""
    return [[dot(row, list(column)) for column in zip(*x, strict=True)] for row in weight.tolist()]


def pairs(fm: WukongFM, x: Matrix) -> Matrix:
    inner = [[dot(a, b) for b in x] for a in x]
    if fm.y is not None:
        y = fm.y.tolist()
    elif fm.w_y is not None:
        y = rows(network(fm.make, flat(compressed(fm.w_y, x))), fm.width)
    else:
        return inner
    return [[dot(row, list(column)) for column in zip(*y, strict=True)] for row in inner]


def interact(layer: WukongLayer, x: Matrix) -> Matrix:
    fmb = rows(network(layer.mlp, normed(layer.ln_fm, flat(pairs(layer.fm, x)))), len(x[0]))
    both = fmb + compressed(layer.w_l, x)
    old = x if layer.residual is None else compressed(layer.residual, x)
    return [
        normed(layer.ln, [u + v for u, v in zip(new, vector, strict=True)])
        for new, vector in zip(both, old, strict=True)
    ]


@every_schema
@pytest.mark.parametrize("projection", ["none", "learnt", "attentive"])
def test_wukong(schema: Schema, projection: str) -> None:
    """Three fields enter three vectors in one schema, where the residual needs no map."""
    chosen = {
        "embedding_size": 4,
        "projection": projection,
        "rank": 3,
        "fm_vectors": 2,
        "linear_vectors": 1,
        "fm_hidden": [5],
        "hidden": [4, 3],
    }
    model, ids = exact(build("wukong", schema, chosen, seed=1)), random_ids(schema, 10)
    expected = []
    for row in ids.tolist():
        x = embed(model.embedding.table, schema, row)
        for layer in model.layers:
            x = interact(layer, x)
        expected.append(times(model.out.weight, mlp(model.mlp, flat(x)))[0] + model.out.bias.item())
    torch.testing.assert_close(model(ids), torch.tensor(expected).double())


def test_without_projection_the_fm_gives_the_inner_products_of_all_pairs() -> None:
    x = torch.randn(2, 4, 5, dtype=torch.float64)
    found = WukongFM(4, 5, "none", 3, [])(x)
    for b, i, j in product(range(2), range(4), range(4)):
        torch.testing.assert_close(found[b, i, j], (x[b, i] * x[b, j]).sum())


def test_the_learnt_projection_is_a_low_rank_map_of_the_inner_products() -> None:
    """The optimised order of the products, X (X^T Y), is (X X^T) Y."""
    x, fm = torch.randn(2, 4, 5, dtype=torch.float64), WukongFM(4, 5, "learnt", 3, []).double()
    torch.testing.assert_close(fm(x), WukongFM(4, 5, "none", 3, [])(x) @ fm.y)
