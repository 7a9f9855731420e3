"""PNN against its equations."""

import math
from typing import Any

import pytest
import torch
from loops import Matrix, Vector, dot, embed, exact, flat, mlp, times
from model_options import READINGS
from rows import SCHEMAS, every_schema, random_ids
from torch import Tensor

from pipeline.common.errors import PipelineError
from pipeline.models import build
from pipeline.models.pnn import Inner, Outer
from pipeline.schema import Schema

CHOSEN = {"embedding_size": 3, "hidden": [4, 3], "activation": "tanh"}


def inner(weight: Tensor, f: Matrix, *, factorized: bool) -> Vector:
    """l_p of IPNN: every pair's inner product with the weight of the unit."""
    signals = []
    for w in weight.tolist():
        total = 0.0
        for i, a in enumerate(f):
            for j, b in enumerate(f):
                total += (w[i] * w[j] if factorized else w[i * len(f) + j]) * dot(a, b)
        signals.append(total)
    return signals


def outer(weight: Tensor, f: Matrix) -> Vector:
    """l_p of OPNN: the outer products of all pairs, i = j too, added, with the matrix of the unit."""
    size = len(f[0])
    p = [[sum(a[d] * b[k] for a in f for b in f) for k in range(size)] for d in range(size)]
    return times(weight, flat(p))


@every_schema
@pytest.mark.parametrize("reading", [{}, *READINGS["pnn"]], ids=str)
def test_pnn(schema: Schema, reading: dict[str, Any]) -> None:
    model, ids = exact(build("pnn", schema, {**CHOSEN, **reading}, seed=1)), random_ids(schema, 20)
    weights, product = [layer.weight for layer in model.products], reading.get("product", "inner")
    expected = []
    for row in ids.tolist():
        f = embed(model.embedding.table, schema, row)
        parts = [times(model.linear_signals.weight, flat(f)), model.linear_signals.bias.tolist()]
        if product != "outer":
            parts.append(inner(weights[0], f, factorized=reading.get("factorized", True)))
        if product != "inner":
            parts.append(outer(weights[-1], f))
        l_1 = [math.tanh(sum(unit)) for unit in zip(*parts, strict=True)]
        expected.append(times(model.out.weight, mlp(model.mlp, l_1, math.tanh))[0] + model.out.bias.item())
    torch.testing.assert_close(model(ids), torch.tensor(expected).double())


@pytest.mark.parametrize("reading", [{}, *READINGS["pnn"]], ids=str)
@pytest.mark.parametrize("hidden", [[4], [4, 3]], ids=str)
def test_without_product_weights_it_is_dnn(hidden: list[int], reading: dict[str, Any]) -> None:
    schema = SCHEMAS["three-domains"]
    model = exact(build("pnn", schema, {**CHOSEN, **reading, "hidden": hidden}, seed=1))
    dnn = build("dnn", schema, {**CHOSEN, "hidden": hidden}, seed=2).double().eval()
    for layer in model.products:
        torch.nn.init.zeros_(layer.weight)
    left = [value for key, value in model.state_dict().items() if not key.startswith("products")]
    dnn.load_state_dict(dict(zip(dnn.state_dict(), left, strict=True)))
    ids = random_ids(schema, 20)
    torch.testing.assert_close(model(ids), dnn(ids))


def test_factorized_inner_signals_are_lengths() -> None:
    """||sum_i theta_i f_i||^2, never negative; a whole matrix of pair weights is not so bound."""
    f = torch.randn(6, 5, 3).double()
    theta, whole = Inner(5, 40, factorized=True).double(), Inner(5, 40, factorized=False).double()
    expected = [[(f[b] * w[:, None]).sum(0).square().sum().item() for w in theta.weight] for b in range(6)]
    torch.testing.assert_close(theta(f), torch.tensor(expected).double())
    assert (whole(f) < 0).any()


def test_the_outer_product_is_superposed() -> None:
    """One D x D matrix however many fields: a unit that reads one cell sees all pairs' cells in it."""
    layer, f = Outer(3, 9).double(), torch.randn(6, 5, 3).double()
    layer.weight.data = torch.eye(9).double()
    expected = sum(
        (f[:, i, :, None] * f[:, j, None, :] for i in range(5) for j in range(5)), torch.zeros(6, 3, 3)
    )
    torch.testing.assert_close(layer(f).view(6, 3, 3), expected)


def test_no_hidden_layer_is_no_product_layer() -> None:
    with pytest.raises(PipelineError, match="hidden is empty: its first width"):
        build("pnn", SCHEMAS["no-bags"], {"hidden": []}, seed=1)
