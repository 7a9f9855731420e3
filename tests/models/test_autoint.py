"""AutoInt against its equations."""

import math
from typing import Any

import pytest
import torch
from loops import Matrix, Vector, dot, embed, exact, flat, mlp, relu, softmax, times
from model_options import READINGS
from rows import SCHEMAS, every_schema, random_ids

from pipeline.layers.attention import Interacting
from pipeline.models import build
from pipeline.schema import Schema


def head(layer: Interacting, e: Matrix, h: int, scaling: bool) -> tuple[Matrix, Matrix]:
    """Eq. 5-6 for head h: the attention weights and what they gather."""
    size = layer.query.out_features // layer.heads
    rows = slice(h * size, (h + 1) * size)
    query, key, value = (
        [times(part.weight[rows], v) for v in e] for part in (layer.query, layer.key, layer.value)
    )
    root = math.sqrt(size) if scaling else 1.0
    a = [softmax([dot(q, k) / root for k in key]) for q in query]
    return a, [[dot(a_m, list(column)) for column in zip(*value, strict=True)] for a_m in a]


def interacting(layer: Interacting, e: Matrix, scaling: bool) -> Matrix:
    """Eq. 7-8: heads side by side, the projected field added, ReLU."""
    heads = [head(layer, e, h, scaling)[1] for h in range(layer.heads)]
    out = []
    for m, v in enumerate(e):
        joined: Vector = [x for gathered in heads for x in gathered[m]]
        out.append([relu(x + r) for x, r in zip(joined, times(layer.residual.weight, v), strict=True)])
    return out


@pytest.mark.parametrize("reading", [{}, *READINGS["autoint"]], ids=str)
@every_schema
def test_autoint(schema: Schema, reading: dict[str, Any]) -> None:
    chosen = {"embedding_size": 3, "attention_size": 2, "hidden": [4, 3], **reading}
    model, ids = exact(build("autoint", schema, chosen, seed=1)), random_ids(schema, 12)
    scaling, expected = reading.get("scaling", False), []
    for row in ids.tolist():
        e = first = embed(model.embedding.table, schema, row)
        for layer in model.layers:
            e = interacting(layer, e, scaling)
        logit = times(model.out.weight, flat(e))[0] + model.out.bias.item()
        if chosen["hidden"]:
            network, out = model.plus
            logit += times(out.weight, mlp(network, flat(first)))[0]
        expected.append(logit)
    torch.testing.assert_close(model(ids), torch.tensor(expected).double())


def test_attention_weights_can_be_read() -> None:
    schema = SCHEMAS["three-domains"]
    chosen = {"embedding_size": 3, "attention_size": 2, "heads": 2, "attention_layers": 2, "dropout": 0.5}
    model, ids = exact(build("autoint", schema, chosen, seed=1)), random_ids(schema, 6)
    found = model.attention(ids)
    assert [a.shape for a in found] == [(6, 2, 5, 5)] * 2
    for a in found:
        torch.testing.assert_close(a.sum(3), torch.ones(6, 2, 5).double())
    for b, row in enumerate(ids.tolist()):
        e = embed(model.embedding.table, schema, row)
        for layer, a in zip(model.layers, found, strict=True):
            expected = [head(layer, e, h, scaling=False)[0] for h in range(2)]
            torch.testing.assert_close(a[b], torch.tensor(expected).double())
            e = interacting(layer, e, scaling=False)


def test_heads_are_concatenated_not_averaged() -> None:
    """Each further head widens what is handed on."""
    schema = SCHEMAS["no-bags"]
    for heads in (1, 2, 4):
        model = build("autoint", schema, {"attention_size": 3, "heads": heads}, seed=1)
        assert model.layers(torch.randn(2, 4, 16)).shape == (2, 4, 3 * heads)


def test_without_attention_a_field_still_passes_through_the_residual() -> None:
    layer, e = Interacting(4, 3, 2, scaling=False, dropout=0.0), torch.randn(5, 6, 4)
    layer.value.weight.data.zero_()
    torch.testing.assert_close(layer(e), torch.relu(e @ layer.residual.weight.T))
