"""FinalMLP against its equations."""

from typing import Any

import pytest
import torch
from loops import Vector, dot, embed, exact, flat, mlp, sigmoid, times
from model_options import READINGS
from rows import SCHEMAS, every_schema, random_ids
from torch import nn

from pipeline.common.errors import PipelineError
from pipeline.models import build
from pipeline.models.finalmlp import Gate
from pipeline.schema import Schema


def gated(gate: nn.Module, schema: Schema, e: list[Vector], context: list[str]) -> Vector:
    if not isinstance(gate, Gate):
        return flat(e)
    fields = {field.name: vector for field, vector in zip(schema.fields, e, strict=True)}
    x: Vector = flat([fields[name] for name in context])
    if gate.context is not None:
        x = gate.context.tolist()
    g = times(gate.out.weight, mlp(gate.hidden, x))
    return [2 * sigmoid(v + b) * y for v, b, y in zip(g, gate.out.bias.tolist(), flat(e), strict=True)]


@pytest.mark.parametrize("reading", [{}, *READINGS["finalmlp"]], ids=str)
@every_schema
def test_finalmlp(schema: Schema, reading: dict[str, Any]) -> None:
    chosen = {"embedding_size": 3, "gate_size": 5, "hidden": [5, 4], **reading}
    model, ids = exact(build("finalmlp", schema, chosen, seed=1)), random_ids(schema, 12)
    contexts = [reading.get("gate1", []), reading.get("gate2", [])]
    heads, expected = reading.get("heads", 1), []
    for row in ids.tolist():
        e = embed(model.embedding.table, schema, row)
        o1, o2 = (
            mlp(network, gated(gate, schema, e, context))
            for gate, network, context in zip(model.gate, model.mlp, contexts, strict=True)
        )
        logit = model.out.bias.item() + times(model.out.weight, o1 + o2)[0]
        n, m = len(o1) // heads, len(o2) // heads
        for h in range(heads):
            part1, part2 = o1[h * n : (h + 1) * n], o2[h * m : (h + 1) * m]
            logit += dot(times(model.weight[h].T, part1), part2)
        expected.append(logit)
    torch.testing.assert_close(model(ids), torch.tensor(expected).double())


@pytest.mark.parametrize("context", [[], ["item", "user"]])
def test_gates_start_at_one_and_stay_between_zero_and_two(context: list[str]) -> None:
    schema = SCHEMAS["three-domains"]
    model, e = build("finalmlp", schema, {"gate1": context}, seed=1), torch.randn(6, 5, 10)
    gate = model.gate[0]
    assert torch.equal(gate(e), e.flatten(1))
    nn.init.normal_(gate.out.weight, std=10)
    weights = gate(e) / e.flatten(1)
    assert weights.min() < 0.1
    assert weights.max() > 1.9
    assert ((weights >= 0) & (weights <= 2)).all()


def test_the_learnt_context_is_the_same_for_all_rows_and_a_field_is_not() -> None:
    schema = SCHEMAS["three-domains"]
    model = exact(build("finalmlp", schema, {"gate1": ["user"]}, seed=1))
    e = torch.randn(6, 5, 10).double()
    by_user, learnt = (gate(e) / e.flatten(1) for gate in model.gate)
    torch.testing.assert_close(learnt, learnt[:1].expand_as(learnt))
    assert (by_user.std(0) > 0.01).all()
    other = e.clone()
    other[:, [0, 1, 2, 4]] = torch.randn(6, 4, 10).double()  # all but the user
    torch.testing.assert_close(model.gate[0](other) / other.flatten(1), by_user)


def test_without_heads_parts_the_fusion_is_two_networks_side_by_side() -> None:
    """W_h = 0 and no gates: logit = w . concat[o_1, o_2] + b, the DualMLP that the paper starts from."""
    schema = SCHEMAS["two-domains"]
    model = exact(build("finalmlp", schema, {"gating": False, "hidden": [4]}, seed=1))
    nn.init.zeros_(model.weight)
    ids = random_ids(schema, 9)
    e = model.embedding(ids).flatten(1)
    expected = model.out(torch.cat([mlp(e) for mlp in model.mlp], 1)).squeeze(1)
    torch.testing.assert_close(model(ids), expected)


def test_impossible_options_are_explained() -> None:
    schema = SCHEMAS["two-domains"]
    for hidden, hidden2 in (([8, 6], []), ([8], [6]), ([6], [8])):
        with pytest.raises(PipelineError, match=r"heads 4 must divide both streams' last widths"):
            build("finalmlp", schema, {"heads": 4, "hidden": hidden, "hidden2": hidden2}, seed=1)
    with pytest.raises(
        PipelineError, match=r"context 'hour' is no field: choose from user, genres, age, item"
    ):
        build("finalmlp", schema, {"gate2": ["user", "hour"]}, seed=1)
