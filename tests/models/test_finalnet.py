"""FinalNet against its equations."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from loops import Matrix, Vector, embed, exact, flat, logloss, mean, relu, sigmoid, times
from model_options import READINGS
from rows import SCHEMAS, every_schema, random_ids
from torch import nn

from pipeline.common.errors import PipelineError
from pipeline.layers.factorized import FactorizedInteraction
from pipeline.models import build
from pipeline.schema import Schema

SIGMA: dict[str, Callable[[float], float]] = {
    "none": lambda x: x,
    "relu": relu,
    "tanh": math.tanh,
    "sigmoid": sigmoid,
}
OTHER_SIGMAS = [{"activation": "tanh"}, {"activation": "sigmoid"}]


def affine(layer: nn.Linear, x: Vector) -> Vector:
    return [v + b for v, b in zip(times(layer.weight, x), layer.bias.tolist(), strict=True)]


def block(layers: nn.Sequential, x: Vector, reading: dict[str, Any]) -> float:
    chosen, behind = SIGMA[reading.get("activation", "none")], reading.get("activate") == "layer"
    sigma = SIGMA["none"] if behind else chosen
    for layer in layers:
        if isinstance(layer, FactorizedInteraction):
            h1 = affine(layer.w1, x)
            h2 = [a * sigma(b) for a, b in zip(h1, affine(layer.w2, x), strict=True)]
            x = h1 + h2 if reading.get("merge") == "concat" else [a + b for a, b in zip(h1, h2, strict=True)]
            x = [chosen(v) for v in x] if behind else x
        elif isinstance(layer, nn.Linear):
            return affine(layer, x)[0]
    raise AssertionError("a block ends in a linear layer")


@pytest.mark.parametrize("reading", [{}, *READINGS["finalnet"], *OTHER_SIGMAS], ids=str)
@every_schema
def test_finalnet(schema: Schema, reading: dict[str, Any]) -> None:
    chosen = {"embedding_size": 3, "hidden": [6, 4], **reading}
    model, ids = exact(build("finalnet", schema, chosen, seed=1)), random_ids(schema, 12)
    blocks = 1 if reading.get("block") == "1B" else 2
    assert len(model.blocks) == blocks
    expected = []
    for row in ids.tolist():
        e: Matrix = embed(model.embedding.table, schema, row)
        first = e
        if reading.get("gating"):  # a gate for every field and dimension, from that dimension of all fields
            columns = [affine(model.gates.w, list(column)) for column in zip(*e, strict=True)]
            gates = list(zip(*columns, strict=True))
            first = e + [
                [g * v for g, v in zip(g_f, e_f, strict=True)] for g_f, e_f in zip(gates, e, strict=True)
            ]
        logits = [block(b, flat(x), reading) for b, x in zip(model.blocks, [first, e], strict=False)]
        expected.append(sum(logits) / blocks)
    torch.testing.assert_close(model(ids), torch.tensor(expected).double())


def test_gates_start_at_one_and_leave_the_fields_beside_them() -> None:
    model = build("finalnet", SCHEMAS["no-bags"], {"gating": True}, seed=1)
    e = torch.randn(3, 4, 10)
    assert torch.equal(model.gates(e), torch.cat([e, e], 1))


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_degree_doubles_with_every_layer(layers: int) -> None:
    """Along a line in the space of embeddings the logit is a polynomial of degree 2^layers.

    So its differences of order 2^layers are one constant, not zero, and those of the next order vanish.
    """
    model = exact(build("finalnet", SCHEMAS["no-bags"], {"hidden": [5] * layers, "block": "1B"}, seed=1))
    start, step = torch.randn(2, 1, 40).double() / 4
    points = start + torch.arange(2**layers + 2).double()[:, None] * step
    differences = model.blocks[0](points).squeeze(1)
    scale = differences.abs().max()
    for _ in range(2**layers):
        differences = differences.diff()
    assert differences.abs().min() > 1e-6 * scale
    torch.testing.assert_close(differences.diff() / scale, torch.zeros(1).double(), rtol=0, atol=1e-9)


def test_impossible_options_are_explained() -> None:
    with pytest.raises(PipelineError, match=r"merge concat halves .* 5 is odd"):
        build("finalnet", SCHEMAS["no-bags"], {"merge": "concat", "hidden": [4, 5]}, seed=1)


@pytest.mark.parametrize(("block", "distilled"), [("2B", True), ("2B", False), ("1B", True)])
def test_the_mean_learns_from_labels_and_teaches_each_block(block: str, distilled: bool) -> None:
    options = {"block": block, "self_distillation": distilled}
    model: Any = build("finalnet", SCHEMAS["no-bags"], options, seed=1)
    rows = [[2.0, -1.0, 0.5], [-0.5, -3.0, 1.0]][: 1 if block == "1B" else 2]
    heads = torch.tensor(rows, dtype=torch.float64, requires_grad=True)
    label = [0.0, 0.0, 1.0]
    loss, logit = model.loss(heads, torch.tensor(label).double())
    both = [mean(list(column)) for column in zip(*rows, strict=True)]
    p, taught = [sigmoid(z) for z in both], distilled and block == "2B"
    assert logit.tolist() == pytest.approx(both)
    expected = logloss(both, label) + (sum(logloss(row, p) for row in rows) if taught else 0)
    assert loss.item() == pytest.approx(expected)
    (gradient,) = torch.autograd.grad(loss, heads)
    for i in range(3):  # the teacher p is a constant: nothing comes back through it
        slope = (p[i] - label[i]) / 3 / len(rows)
        own = [(sigmoid(row[i]) - p[i]) / 3 if taught else 0.0 for row in rows]
        assert gradient[:, i].tolist() == pytest.approx([slope + one for one in own])
