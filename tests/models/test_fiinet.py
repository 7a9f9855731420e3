"""FiiNet and its crosses against the equations."""

import math
from itertools import combinations
from typing import Any

import pytest
import torch
from loops import (
    Matrix,
    dot,
    embed,
    exact,
    flat,
    linear,
    mean,
    mlp,
    product,
    relu,
    sigmoid,
    softmax,
    times,
)
from model_options import READINGS
from rows import SCHEMAS, random_ids

from pipeline.layers.crosses import Align, FieldCrosses
from pipeline.models import build
from pipeline.models.fiinet import FiiNet
from pipeline.schema import Schema

BAGS = SCHEMAS["three-domains"]


def crosses(layer: FieldCrosses, e: Matrix, order: int) -> Matrix:
    """FiiNet eq. 1-2: w_c times the product of the fields of each combination."""
    chosen = list(combinations(range(len(e)), order))
    return [
        [layer.weight[c, 0].item() * v for v in product([e[f] for f in fields])]
        for c, fields in enumerate(chosen)
    ]


def fiinet(model: FiiNet, e: Matrix, orders: list[int]) -> tuple[Matrix, Matrix]:
    """FiiNet eq. 1-6: the attended crosses V, and the attention of each branch and channel."""
    f = len(e)
    branches = [crosses(split, e, order) for split, order in zip(model.split, orders, strict=True)]  # type: ignore[arg-type]
    if model.fusion == "concat":
        branches = [[channel for branch in branches for channel in branch]]
    elif model.fusion == "project":
        branches = [
            [[dot(row, list(column)) for column in zip(*branch, strict=True)] for row in weight.tolist()]
            for branch, weight in zip(branches, [b.weight for b in model.bring], strict=True)
        ]
    else:
        highest = [set(fields) for fields in combinations(range(f), orders[-1])]
        aligned = []
        for branch, order in zip(branches, orders, strict=True):
            lower = [set(fields) for fields in combinations(range(f), order)]
            inside = [[branch[c] for c, low in enumerate(lower) if low <= high] for high in highest]
            aligned.append([[mean(list(d)) for d in zip(*group, strict=True)] for group in inside])
        branches = aligned
    channels, dim = len(branches[0]), len(e[0])
    u = [[sum(branch[c][d] for branch in branches) for d in range(dim)] for c in range(channels)]
    if not model.attention:
        return u, []
    z = [mean(row) if model.squeeze == "mean" else max(row) for row in u]
    scores = times(model.w2.weight, [relu(s) for s in times(model.w1.weight, z)])
    if model.fusion == "concat":
        gates = (
            [g * channels for g in softmax(scores)] if model.gate == "softmax" else list(map(sigmoid, scores))
        )
        a = [gates]
    else:
        by_channel = [softmax(scores[c::channels]) for c in range(channels)]
        a = [list(branch) for branch in zip(*by_channel, strict=True)]
    v = [
        [sum(a[b][c] * branches[b][c][d] for b in range(len(branches))) for d in range(dim)]
        for c in range(channels)
    ]
    return v, a


@pytest.mark.parametrize("order", [2, 3, 4])
def test_crosses_are_products_of_combinations(order: int) -> None:
    layer, e = exact(FieldCrosses(5, order)), torch.randn(10, 5, 3).double()
    expected = [crosses(layer, row, order) for row in e.tolist()]
    torch.testing.assert_close(layer(e), torch.tensor(expected).double())


@pytest.mark.parametrize(("order", "to"), [(2, 3), (2, 4), (3, 4), (2, 5)])
def test_align_takes_the_crosses_inside(order: int, to: int) -> None:
    low, high = list(combinations(range(5), order)), list(combinations(range(5), to))
    x = torch.randn(10, len(low), 3).double()
    aligned = Align(5, order, to).double()(x)
    for k, fields in enumerate(high):
        inside = [c for c, cross in enumerate(low) if set(cross) <= set(fields)]
        assert len(inside) == math.comb(to, order)
        torch.testing.assert_close(aligned[:, k], sum(x[:, c] for c in inside) / len(inside))


UP_TO_FOUR: list[dict[str, Any]] = [
    {"orders": [2, 3, 4]},
    {"fusion": "project", "channels": 5, "orders": [2, 3, 4], "squeeze": "max"},
    {"fusion": "align", "orders": [2, 3, 4]},
]


@pytest.mark.parametrize("reading", [{}, *READINGS["fiinet"], *UP_TO_FOUR], ids=str)
@pytest.mark.parametrize("schema", [SCHEMAS["two-domains"], BAGS], ids=["four-fields", "five-fields"])
def test_fiinet(schema: Schema, reading: dict[str, Any]) -> None:
    chosen = {"embedding_size": 3, "hidden": [4], **reading}
    model, ids = exact(build("fiinet", schema, chosen, seed=1)), random_ids(schema, 20)
    expected = []
    for row in ids.tolist():
        e = embed(model.embedding.table, schema, row)
        v, _ = fiinet(model, e, reading.get("orders", [2, 3]))
        expected.append(linear(model.linear, row) + times(model.out.weight, mlp(model.mlp, flat(v)))[0])
    torch.testing.assert_close(model(ids), torch.tensor(expected).double())


@pytest.mark.parametrize("fusion", ["project", "align"])
@pytest.mark.parametrize("orders", [[2, 3], [2, 3, 4]], ids=str)
def test_fiinet_attention_sums_to_one_over_the_branches(orders: list[int], fusion: str) -> None:
    model = exact(build("fiinet", BAGS, {"orders": orders, "fusion": fusion}, seed=1))
    c = model.w2.out_features // len(orders)
    a = model.weights(torch.randn(10, c, 3).double())
    assert a.shape == (10, len(orders), c)
    torch.testing.assert_close(a.sum(1), torch.ones(10, c).double())
    assert (a > 0).all()
    assert a.std() > 0


def test_fiinet_softmax_gates_have_mean_one_and_sigmoid_gates_stay_below() -> None:
    u = torch.randn(10, 20, 3).double()
    softmax_gates = exact(build("fiinet", BAGS, {}, seed=1)).weights(u)
    torch.testing.assert_close(softmax_gates.mean(2), torch.ones(10, 1).double())
    sigmoid_gates = exact(build("fiinet", BAGS, {"gate": "sigmoid"}, seed=1)).weights(u)
    assert ((sigmoid_gates > 0) & (sigmoid_gates < 1)).all()
