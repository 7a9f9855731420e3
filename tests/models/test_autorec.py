"""AutoRec: an item's column of the matrix, written with loops; and what of it a row must not see."""

from dataclasses import replace

import pytest
import torch
from rows import SCHEMAS, random_ids, random_split, wake
from torch import Tensor, nn

from pipeline.common.errors import PipelineError
from pipeline.data.batches import Batch
from pipeline.models import build
from pipeline.train.adam import parameter_groups
from pipeline.train.loop import fit
from pipeline.train.start import prepare

SCHEMA = SCHEMAS["no-bags"]
USERS = SCHEMA.fields[0].size
FIRST_ITEM = SCHEMA.offsets[1]  # the user's field is the first, its unseen id is 1


def knowing(rows: Batch, **options: object) -> nn.Module:
    model = build("autorec", SCHEMA, {"hidden_size": 5, **options}, seed=1)
    model.prepare(rows, lambda _: None)
    wake(model)
    return model.eval().double()


def naive(model: nn.Module, rows: Batch, values: Tensor, row: Tensor) -> Tensor:
    """The equation for one row; `values` are those of `rows`, -1 to 1."""
    user, item = int(row[0]), int(row[1])
    said: dict[int, list[float]] = {}
    for (v, i), value in zip(rows.ids[:, :2].tolist(), values.tolist(), strict=True):
        if i == item != FIRST_ITEM and v not in (1, user):
            said.setdefault(v, []).append(value)
    z = model.a.clone()
    for v, found in said.items():
        z = z + model.m.table[v] + sum(found) / len(found) * model.w.table[v]
    bias = model.linear.table
    item_bias = bias[item - FIRST_ITEM + 1 + USERS, 0]
    return model.linear.bias + bias[user, 0] + item_bias + model.s.table[user] @ z.tanh()


@pytest.mark.parametrize("values", ["label", "grade"])
def test_equation(values: str) -> None:
    rows, asked = random_split(SCHEMA, 40).whole(), random_ids(SCHEMA, 15, seed=4)
    model = knowing(rows, values=values)
    assert rows.grade is not None
    given = 2 * rows.label - 1 if values == "label" else rows.grade.double() - 1
    expected = torch.stack([naive(model, rows, given, row) for row in asked])
    torch.testing.assert_close(model(asked), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(model.train()(asked), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("input_dropout", [0.0, 0.4])
def test_a_rows_own_label_changes_nothing_in_its_score(input_dropout: float) -> None:
    rows = random_split(SCHEMA, 40).whole()
    for number in range(5):
        row = rows.ids[number : number + 1]
        same = (rows.ids[:, :2] == row[0, :2]).all(1)
        turned = rows._replace(label=torch.where(same, 1 - rows.label, rows.label))
        scores = []
        for known in (rows, turned):
            model = knowing(known, input_dropout=input_dropout).train()
            torch.manual_seed(7)
            scores.append(torch.cat([model(row) for _ in range(4)]))
        torch.testing.assert_close(*scores)


def test_a_batch_has_the_rows_of_few_items() -> None:
    rows = random_split(SCHEMA, 300)

    def epoch(seed: int, skip: int = 0) -> list[Batch]:
        generator = torch.Generator().manual_seed(seed)
        return list(rows.batches(50, generator, grouped=1, skip=skip))

    seen = torch.cat([batch.ids for batch in epoch(1)])
    assert sorted(seen.tolist()) == sorted(rows.ids.tolist())
    items = seen[:, 1]
    assert len(items.unique_consecutive()) == len(items.unique())
    assert not torch.equal(items, torch.cat([batch.ids for batch in epoch(2)])[:, 1])
    assert torch.equal(epoch(1, skip=4)[0].ids, epoch(1)[4].ids)


def test_without_grades_they_are_refused() -> None:
    rows = random_split(SCHEMA, 40)
    model = build("autorec", SCHEMA, {"values": "grade"}, seed=1)
    with pytest.raises(PipelineError, match="needs grades behind the labels"):
        prepare(model, replace(rows, grade=None), rows, fit, seed=1)


def test_its_tables_have_a_multiple_of_the_l2_of_embeddings() -> None:
    model = build("autorec", SCHEMA, {"l2_factor": 3.0}, seed=1)
    l2 = {id(p): group.l2 for group in parameter_groups(model, 0.1, 0.2, 0.0) for p in group.params}
    assert [l2[id(layer.table)] for layer in (model.m, model.w, model.s)] == pytest.approx([0.3] * 3)
    assert l2[id(model.linear.table)] == 0.2
    assert len(l2) == len(list(model.parameters()))
