"""DIN against its equation."""

import math
from dataclasses import replace

import pytest
import torch
from loops import Matrix, Vector, dot, embed, exact, flat, mlp, softmax
from rows import SCHEMAS, every_schema, random_ids, random_split, times

from pipeline.common.errors import PipelineError
from pipeline.models import build
from pipeline.models.din import DIN, Interest
from pipeline.schema import Schema
from pipeline.train.loop import fit
from pipeline.train.start import prepare

CHOSEN = {"embedding_size": 3, "hidden": [4, 3], "attention_hidden": [5], "history": 3, "activation": "tanh"}


def past(schema: Schema, user: int, moment: int, u: int, v: int, n: int, *, label: bool = True) -> list[int]:
    """The last n items that a user clicked (or did not) in `random_split`, strictly earlier."""
    rows = random_split(schema, 200)
    table = zip(rows.time.tolist(), rows.ids.tolist(), rows.label.tolist(), strict=True)
    unseen = {schema.offsets[schema.field_of_slot[column]] for column in (u, v)}
    found = sorted((t, row[v]) for t, row, y in table if row[u] == user and y == label and t < moment)
    return [item for _, item in found[::-1] if not {user, item} & unseen][:n]


def interest(part: Interest, history: Matrix, v: Vector, normalise: bool) -> Vector:
    weights = []
    for h in history:
        x = [*h, *(a - b for a, b in zip(h, v, strict=True)), *(a * b for a, b in zip(h, v, strict=True)), *v]
        last = part.unit[1]
        weights.append(dot(last.weight[0].tolist(), mlp(part.unit[0], x, math.tanh)) + last.bias.item())
    if normalise:
        weights = softmax(weights)
    return [sum(w * h[d] for w, h in zip(weights, history, strict=True)) for d in range(len(v))]


@every_schema
@pytest.mark.parametrize("negatives", [False, True])
@pytest.mark.parametrize("normalise", [False, True])
def test_din(schema: Schema, normalise: bool, negatives: bool) -> None:
    model = build("din", schema, {**CHOSEN, "normalise": normalise, "negatives": negatives}, seed=1)
    assert isinstance(model, DIN)
    prepare(model, random_split(schema, 200), random_split(schema, 200), fit)
    ids = random_ids(schema, 30)
    table, expected, lengths = exact(model).embedding.table, [], set()
    for row, moment in zip(ids.tolist(), times(ids).tolist(), strict=True):
        v, u = table[row[model.item]].tolist(), Vector()
        for part, label in zip(model.interests, [True, False][: 1 + negatives], strict=True):
            assert isinstance(part, Interest)
            history = past(schema, row[model.user], moment, model.user, model.item, 3, label=label)
            lengths.add(len(history))
            u += interest(part, table[history].tolist(), v, normalise)
        hidden = mlp(model.mlp, [*flat(embed(table, schema, row)), *u], math.tanh)
        expected.append(dot(model.out.weight[0].tolist(), hidden) + model.out.bias.item())
    assert {0, 3} <= lengths, "users with a whole history and without one"
    torch.testing.assert_close(model(ids, times(ids)), torch.tensor(expected).double())


def test_a_history_is_looked_at_for_each_item_anew() -> None:
    """With another item the same past weighs differently."""
    part, h, there = exact(Interest(3, [5], "tanh", False)), torch.randn(1, 3, 3).double(), torch.ones(1, 3)
    a, b = (part(h, torch.randn(1, 1, 3).double(), there > 0) for _ in range(2))
    assert not torch.allclose(a, b)


def test_the_plain_sum_grows_with_the_past_and_the_softmax_does_not() -> None:
    """Section 4.3: without the softmax the intensity of an interest is kept."""
    h, v = torch.randn(1, 1, 3).double(), torch.randn(1, 1, 3).double()
    once, twice = torch.cat([h, 0 * h, 0 * h], 1), torch.cat([h, h, 0 * h], 1)
    for normalise, factor in ((False, 2), (True, 1)):
        u = exact(Interest(3, [5], "tanh", normalise))
        torch.testing.assert_close(
            u(twice, v, twice.any(2)),
            factor * u(once, v, once.any(2)),
        )


@pytest.mark.parametrize("role", ["user", "item"])
@pytest.mark.parametrize("name", ["din", "disenctr", "mf"])
def test_a_role_that_is_not_declared_is_never_guessed(name: str, role: str) -> None:
    fields = SCHEMAS["two-domains"].fields
    schema = Schema(tuple(replace(field, role=None) if field.role == role else field for field in fields))
    with pytest.raises(PipelineError, match=rf"needs the {role} of each row.*: user, age, item"):
        build(name, schema, {}, seed=1)
