"""DIN against its equation."""

import math
from dataclasses import replace

import pytest
import torch
from loops import Matrix, Vector, dot, embed, exact, flat, mlp, softmax
from rows import SCHEMAS, every_schema, random_ids, random_split, times

from pipeline.common.errors import PipelineError
from pipeline.models import build
from pipeline.models.din import DIN
from pipeline.schema import Schema
from pipeline.train.loop import prepare

CHOSEN = {"embedding_size": 3, "hidden": [4, 3], "attention_hidden": [5], "history": 3, "activation": "tanh"}


def past(schema: Schema, user: int, moment: int, u: int, v: int, n: int) -> list[int]:
    """The last n items that a user clicked in `random_split`, strictly earlier."""
    rows = random_split(schema, 200)
    table = zip(rows.time.tolist(), rows.ids.tolist(), rows.label.tolist(), strict=True)
    unseen = {schema.offsets[schema.field_of_slot[column]] for column in (u, v)}
    found = sorted((t, row[v]) for t, row, label in table if row[u] == user and label and t < moment)
    return [item for _, item in found[::-1] if not {user, item} & unseen][:n]


def interest(model: DIN, history: Matrix, v: Vector, normalise: bool) -> Vector:
    weights = []
    for h in history:
        x = [*h, *(a - b for a, b in zip(h, v, strict=True)), *(a * b for a, b in zip(h, v, strict=True)), *v]
        last = model.unit[1]
        weights.append(dot(last.weight[0].tolist(), mlp(model.unit[0], x, math.tanh)) + last.bias.item())
    if normalise:
        weights = softmax(weights)
    return [sum(w * h[d] for w, h in zip(weights, history, strict=True)) for d in range(len(v))]


@every_schema
@pytest.mark.parametrize("normalise", [False, True])
def test_din(schema: Schema, normalise: bool) -> None:
    model = build("din", schema, {**CHOSEN, "normalise": normalise}, seed=1)
    assert isinstance(model, DIN)
    prepare(model, random_split(schema, 200), random_split(schema, 200))
    ids = random_ids(schema, 30)
    table, expected, lengths = exact(model).embedding.table, [], set()
    for row, moment in zip(ids.tolist(), times(ids).tolist(), strict=True):
        history = past(schema, row[model.user], moment, model.user, model.item, 3)
        lengths.add(len(history))
        u = interest(model, table[history].tolist(), table[row[model.item]].tolist(), normalise)
        hidden = mlp(model.mlp, [*flat(embed(table, schema, row)), *u], math.tanh)
        expected.append(dot(model.out.weight[0].tolist(), hidden) + model.out.bias.item())
    assert {0, 3} <= lengths, "users with a whole history and without one"
    torch.testing.assert_close(model(ids, times(ids)), torch.tensor(expected).double())


def test_a_history_is_looked_at_for_each_item_anew() -> None:
    """One user at one moment: with another item the same past weighs differently."""
    schema = SCHEMAS["no-bags"]
    model = build("din", schema, CHOSEN, seed=1)
    assert isinstance(model, DIN)
    items = torch.tensor([[10, 11, 12]]).repeat(2, 1)
    a, b = exact(model).interest(items, torch.tensor([[13], [14]]))
    assert not torch.allclose(a, b)


def test_the_plain_sum_grows_with_the_past_and_the_softmax_does_not() -> None:
    """Section 4.3: without the softmax the intensity of an interest is kept."""
    schema = SCHEMAS["no-bags"]
    once, twice = torch.tensor([[10, 0, 0]]), torch.tensor([[10, 10, 0]])
    for normalise, factor in ((False, 2), (True, 1)):
        model = build("din", schema, {**CHOSEN, "normalise": normalise}, seed=1)
        assert isinstance(model, DIN)
        u = exact(model).interest
        v = torch.tensor([[11]])
        torch.testing.assert_close(u(twice, v), factor * u(once, v))


@pytest.mark.parametrize("role", ["user", "item"])
@pytest.mark.parametrize("name", ["din", "disenctr", "mf"])
def test_a_role_that_is_not_declared_is_never_guessed(name: str, role: str) -> None:
    fields = SCHEMAS["two-domains"].fields
    schema = Schema(tuple(replace(field, role=None) if field.role == role else field for field in fields))
    with pytest.raises(PipelineError, match=rf"needs the {role} of each row.*: user, age, item"):
        build(name, schema, {}, seed=1)
