"""QNN-alpha against its equations."""

import math
from typing import Any

import pytest
import torch
from loops import Matrix, Vector, dot, embed, exact, flat, logloss, mean, sigmoid
from rows import SCHEMAS, every_schema, random_ids

from pipeline.common.errors import PipelineError
from pipeline.models import build
from pipeline.models.qnn import QuadraticLayer
from pipeline.schema import Schema


def quadratic(layer: QuadraticLayer, x: Vector, fields: int, heads: int, maps: int) -> Vector:
    """The products of the h-th parts of all fields' vectors with their rows, head after head, plus x."""
    linear = layer.maps[0]
    activated = [
        math.tanh(dot(w, x) + b) for w, b in zip(linear.weight.tolist(), linear.bias.tolist(), strict=True)
    ]
    dim = len(x) // fields
    part = dim // heads
    e: Matrix = [x[i : i + dim] for i in range(0, len(x), dim)]
    products, width = [], fields * part
    for h in range(heads):
        x_h = flat([vector[h * part : (h + 1) * part] for vector in e])
        for c, value in enumerate(x_h):
            products.append(sum(value * activated[(h * maps + r) * width + c] for r in range(maps)))
    return [p + v for p, v in zip(products, x, strict=True)]


@every_schema
@pytest.mark.parametrize(("heads", "maps"), [(1, 1), (1, 3), (2, 2), (4, 1)])
def test_qnn(schema: Schema, heads: int, maps: int) -> None:
    chosen = {"embedding_size": 4, "layers": 2, "heads": heads, "maps": maps, "activation": "tanh"}
    model, ids = exact(build("qnn", schema, chosen, seed=1)), random_ids(schema, 10)
    expected = []
    for row in ids.tolist():
        x = flat(embed(model.embedding.table, schema, row))
        for layer in model.layers:
            if isinstance(layer, QuadraticLayer):
                x = quadratic(layer, x, len(schema.fields), heads, maps)
        expected.append(dot(model.out.weight[0].tolist(), x) + model.out.bias.item())
    torch.testing.assert_close(model(ids), torch.tensor(expected).double())


@pytest.mark.parametrize("heads", [1, 2])
def test_the_interaction_is_of_degree_two(heads: int) -> None:
    """Without the residual and the maps' bias, c x gives c^2 times what x gives, for c > 0 (ReLU)."""
    layer = QuadraticLayer(3, 4, heads, 2, 0.0, False, "relu").double()
    x = torch.randn(5, 12, dtype=torch.float64)
    torch.testing.assert_close(layer(3 * x) - 3 * x, 9 * (layer(x) - x))


def test_with_one_head_and_one_map_it_is_a_gated_identity() -> None:
    """x * relu(W x + b) + x, component by component."""
    layer = QuadraticLayer(3, 4, 1, 1, 0.0, False, "relu").double()
    x = torch.randn(5, 12, dtype=torch.float64)
    torch.testing.assert_close(layer(x), x * torch.relu(layer.maps[0](x)) + x)


def test_heads_must_divide_the_embedding_size() -> None:
    with pytest.raises(PipelineError, match="heads 3 must divide embedding_size 4"):
        build("qnn", SCHEMAS["no-bags"], {"embedding_size": 4, "heads": 3}, seed=1)


def test_two_passes_learn_from_labels_together_and_from_their_mean_each() -> None:
    model: Any = build("qnn", SCHEMAS["no-bags"], {"dropout": 0.5}, seed=1)
    ids = random_ids(SCHEMAS["no-bags"], 3)
    heads = model.double().heads(ids)
    assert heads.shape == (2, 3) and not torch.equal(*heads)
    label, rows = [0.0, 0.0, 1.0], heads.tolist()
    loss, logit = model.loss(heads, torch.tensor(label).double())
    p = [mean([sigmoid(a), sigmoid(b)]) for a, b in zip(*rows, strict=True)]
    assert logit.sigmoid().tolist() == pytest.approx(p)
    expected = logloss([math.log(q / (1 - q)) for q in p], label) + sum(logloss(row, p) for row in rows)
    assert loss.item() == pytest.approx(expected)
    (gradient,) = torch.autograd.grad(loss, heads)
    for i in range(3):  # the mean is a constant as a teacher: nothing comes back through it
        by_p = ((1 - label[i]) / (1 - p[i]) - label[i] / p[i]) / 3
        q = [sigmoid(row[i]) for row in rows]
        expected_slopes = [by_p * v * (1 - v) / 2 + (v - p[i]) / 3 for v in q]
        assert gradient[:, i].tolist() == pytest.approx(expected_slopes)


def test_without_self_ensemble_one_pass_has_its_logloss() -> None:
    model: Any = build("qnn", SCHEMAS["no-bags"], {"self_ensemble": False}, seed=1)
    heads = model.heads(random_ids(SCHEMAS["no-bags"], 3))
    label = torch.tensor([0.0, 0.0, 1.0])
    loss, logit = model.loss(heads, label)
    assert torch.equal(logit, model(random_ids(SCHEMAS["no-bags"], 3)))
    assert loss.item() == pytest.approx(logloss(logit.tolist(), label.tolist()), rel=1e-5)
