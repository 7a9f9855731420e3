"""FiiNet and its crosses against the equations."""

import math
from collections.abc import Callable
from itertools import combinations
from typing import Any

import pytest
import torch
from loops import (
    Matrix,
    Vector,
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
from torch import nn

from pipeline.layers.crosses import Align, FieldCrosses
from pipeline.layers.selective_kernel import SelectiveKernel
from pipeline.models import build
from pipeline.schema import Schema

BAGS = SCHEMAS["three-domains"]


def crosses(layer: FieldCrosses, e: Matrix, order: int) -> Matrix:
    """FiiNet eq. 1-2: w_c times the product of the fields of each combination."""
    chosen = list(combinations(range(len(e)), order))
    return [
        [layer.weight[c, 0].item() * v for v in product([e[f] for f in fields])]
        for c, fields in enumerate(chosen)
    ]


def brought(
    model: SelectiveKernel, branch: Matrix, f: int, order: int, reading: dict[str, Any], b: int
) -> Matrix:
    """The channels of one branch, from all its crosses."""
    highest, fusion = reading.get("orders", [2, 3])[-1], reading.get("fusion", "field")
    if fusion == "concat":
        return branch
    if fusion == "project":
        weight = model.bring[b].weight.tolist()  # type: ignore[union-attr, operator]
        return [[dot(row, list(column)) for column in zip(*branch, strict=True)] for row in weight]
    chosen = [set(fields) for fields in combinations(range(f), order)]
    if fusion == "field":
        groups = [[c for c, fields in enumerate(chosen) if i in fields] for i in range(f)]
    elif fusion == "pooled":
        groups = [list(range(len(chosen)))]
    else:
        sets = [set(fields) for fields in combinations(range(f), highest)]
        groups = [[c for c, fields in enumerate(chosen) if fields <= high] for high in sets]
    pool: Callable[[Vector], float] = sum
    if fusion == "align" or reading.get("pool") == "mean":
        pool = mean
    return [[pool(list(d)) for d in zip(*(branch[c] for c in group), strict=True)] for group in groups]


def eq_4(layer: nn.Module, z: Vector, second: str) -> Vector:
    """sigma2(W2 relu(W1 z)); W1 alone in SKNet's reading."""
    if second == "none":
        return [relu(v) for v in times(layer[0].weight, z)]  # type: ignore[index]
    s = times(layer.w2.weight, [relu(v) for v in times(layer.w1.weight, z)])  # type: ignore[union-attr, arg-type]
    if second == "softmax":
        return [len(z) * gate for gate in softmax(s)]
    return [relu(v) if second == "relu" else sigmoid(v) for v in s]


def fiinet(model: SelectiveKernel, e: Matrix, reading: dict[str, Any]) -> Matrix:
    """FiiNet eq. 1-6: the weighted crosses V."""
    orders, fusion = reading.get("orders", [2, 3]), reading.get("fusion", "field")
    separate, dim = reading.get("separate", False), len(e[0])
    squeezed: Callable[[Vector], float] = max if reading.get("squeeze") == "max" else mean
    branches = [
        brought(model, crosses(split, e, order), len(e), order, reading, b)  # type: ignore[arg-type]
        for b, (split, order) in enumerate(zip(model.split, orders, strict=True))
    ]
    if fusion == "concat" and not separate:
        branches = [[channel for branch in branches for channel in branch]]
    if not reading.get("attention", True):
        a = [[1.0] * len(branch) for branch in branches]
    elif fusion == "concat" or separate:
        gate = reading.get("gate", "softmax")
        layers = zip(model.excite, branches, strict=True)
        a = [eq_4(layer, [squeezed(x) for x in branch], gate) for layer, branch in layers]
    else:
        u = [[sum(branch[c][d] for branch in branches) for d in range(dim)] for c in range(len(branches[0]))]
        s = eq_4(model.excite[0], [squeezed(x) for x in u], reading.get("second_layer", "relu"))
        scores = times(model.attend.weight, s)  # type: ignore[union-attr, arg-type]
        by_channel = [softmax(scores[c :: len(u)]) for c in range(len(u))]
        a = [list(branch) for branch in zip(*by_channel, strict=True)]
    weighted = [[[a[b][c] * x for x in v] for c, v in enumerate(branch)] for b, branch in enumerate(branches)]
    if fusion == "concat":
        return [channel for branch in weighted for channel in branch]
    return [[sum(branch[c][d] for branch in weighted) for d in range(dim)] for c in range(len(weighted[0]))]


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


@pytest.mark.parametrize("order", [2, 3])
def test_align_to_a_field_takes_the_crosses_that_contain_it(order: int) -> None:
    x, chosen = torch.randn(10, math.comb(5, order), 3).double(), list(combinations(range(5), order))
    of_fields = Align(5, order, 1, mean=False).double()(x)
    for f in range(5):
        crosses_of_it = [c for c, fields in enumerate(chosen) if f in fields]
        assert len(crosses_of_it) == math.comb(4, order - 1)
        torch.testing.assert_close(of_fields[:, f], sum(x[:, c] for c in crosses_of_it))
    torch.testing.assert_close(Align(5, order, 0).double()(x), x.mean(1, keepdim=True))


UP_TO_FOUR: list[dict[str, Any]] = [
    {"orders": [2, 3, 4]},
    {"fusion": "concat", "orders": [2, 3, 4]},
    {"fusion": "project", "channels": 5, "orders": [2, 3, 4], "squeeze": "max"},
    {"fusion": "align", "orders": [2, 3, 4]},
]


@pytest.mark.parametrize("reading", [{}, *READINGS["fiinet"], *UP_TO_FOUR], ids=str)
@pytest.mark.parametrize("schema", [SCHEMAS["two-domains"], BAGS], ids=["four-fields", "five-fields"])
def test_fiinet(schema: Schema, reading: dict[str, Any]) -> None:
    chosen = {"embedding_size": 3, "hidden": [4], **reading}
    model, ids = exact(build("fiinet", schema, chosen, seed=1)), random_ids(schema, 8)
    expected = []
    for row in ids.tolist():
        v = fiinet(model.select, embed(model.embedding.table, schema, row), reading)
        expected.append(linear(model.linear, row) + times(model.out.weight, mlp(model.mlp, flat(v)))[0])
    torch.testing.assert_close(model(ids), torch.tensor(expected).double())


@pytest.mark.parametrize("fusion", ["field", "project", "align", "pooled"])
@pytest.mark.parametrize("orders", [[2, 3], [2, 3, 4]], ids=str)
def test_fiinet_attention_sums_to_one_over_the_branches(orders: list[int], fusion: str) -> None:
    model = exact(build("fiinet", BAGS, {"orders": orders, "fusion": fusion}, seed=1)).select
    c = model.attend.out_features // len(orders)
    a = torch.stack(model.weights([torch.randn(10, c, 3).double() for _ in orders]))
    assert a.shape == (len(orders), 10, c)
    torch.testing.assert_close(a.sum(0), torch.ones(10, c).double())
    assert (a > 0).all()
    assert a.std() > 0


def test_softmax_gates_have_mean_one_and_sigmoid_gates_stay_below() -> None:
    u = [torch.randn(10, 20, 3).double()]
    softmax_gates = exact(build("fiinet", BAGS, {"fusion": "concat"}, seed=1)).select.weights(u)[0]
    torch.testing.assert_close(softmax_gates.mean(1), torch.ones(10).double())
    sigmoid_gates = exact(
        build("fiinet", BAGS, {"fusion": "concat", "gate": "sigmoid"}, seed=1)
    ).select.weights(u)[0]
    assert ((sigmoid_gates > 0) & (sigmoid_gates < 1)).all()


@pytest.mark.parametrize("orders", [[2], [3]], ids=str)
def test_an_ablation_keeps_all_of_the_branch_that_is_left(orders: list[int]) -> None:
    """FiiNet-S and -H differ from the separate reading in nothing but the branch that is missing."""
    options = {"embedding_size": 3, "hidden": [4], "separate": True}
    full, ablated = (
        exact(build("fiinet", BAGS, {**options, **more}, seed=1)).select for more in ({}, {"orders": orders})
    )
    left = orders[0] - 2
    for module in ("split", "excite"):
        state = getattr(full, module)[left].state_dict()
        getattr(ablated, module)[0].load_state_dict(state)
    e = torch.randn(10, 5, 3).double()
    full.split[1 - left].weight.data.zero_()  # the other branch gives nothing
    torch.testing.assert_close(ablated(e), full(e))
