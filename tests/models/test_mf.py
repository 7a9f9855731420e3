"""MF against its equation."""

from typing import Any

import pytest
import torch
from loops import dot, exact
from rows import SCHEMAS, every_schema, random_ids

from pipeline.common.errors import PipelineError
from pipeline.models import build
from pipeline.schema import EMPTY, Field, Schema


def place(schema: Schema, name: str) -> tuple[int, int]:
    """A field's column, of one slot, and its first id."""
    i = [field.name for field in schema.fields].index(name)
    return schema.field_of_slot.index(i), schema.offsets[i]


@pytest.mark.parametrize("names", [("user", "item"), ("age", "item"), ("item", "age")])
def test_mf(names: tuple[str, str]) -> None:
    schema = SCHEMAS["two-domains"]
    chosen = {"embedding_size": 3, "user": names[0], "item": names[1]}
    model, ids = exact(build("mf", schema, chosen, seed=1)), random_ids(schema, 20)
    size = {field.name: field.size for field in schema.fields}
    columns = sorted(place(schema, name) for name in names)  # in the tables, fields keep their order
    early = min(names, key=lambda name: place(schema, name))
    expected = []
    for row in ids.tolist():
        (a, first_a), (b, first_b) = columns
        i, j = 1 + row[a] - first_a, 1 + size[early] + row[b] - first_b
        bias = model.linear.bias + model.linear.table[i, 0] + model.linear.table[j, 0]
        p, q = model.embedding.table[i].tolist(), model.embedding.table[j].tolist()
        expected.append(bias.item() + dot(p, q))
    torch.testing.assert_close(model(ids), torch.tensor(expected).double())


@every_schema
def test_it_is_fm_on_the_two_fields_and_reads_no_other(schema: Schema) -> None:
    mf = exact(build("mf", schema, {"embedding_size": 3}, seed=1))
    columns = [place(schema, name) for name in ("user", "item")]
    both = Schema((Field("user", 8, 1, "user"), Field("item", 7, 1, "item")))
    if columns[0] > columns[1]:
        both = Schema(both.fields[::-1])
    fm = exact(build("fm", both, {"embedding_size": 3}, seed=2))
    fm.load_state_dict(mf.state_dict())
    ids = random_ids(schema, 20)
    own = [ids[:, column] - first + 1 for column, first in sorted(columns)]
    own[1] = own[1] + both.fields[0].size
    torch.testing.assert_close(mf(ids), fm(torch.stack(own, 1)))
    others = ids.clone()
    others[:, [s for s in range(schema.slots) if s not in [column for column, _ in columns]]] = EMPTY
    assert torch.equal(mf(others), mf(ids))


def test_its_tables_hold_the_two_fields_alone() -> None:
    model = build("mf", SCHEMAS["three-domains"], {"embedding_size": 3}, seed=1)
    assert model.embedding.table.shape == (1 + 7 + 8, 3)


def test_an_absent_user_leaves_the_item() -> None:
    schema = SCHEMAS["no-bags"]
    model, ids = exact(build("mf", schema, {"embedding_size": 3}, seed=1)), random_ids(schema, 20)
    column, first = place(schema, "item")
    ids[:, place(schema, "user")[0]] = EMPTY
    item = model.linear.table[1 + 8 + ids[:, column].long() - first, 0]
    torch.testing.assert_close(model(ids), model.linear.bias + item)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"user": "usr"}, r"'usr'.*user, age, item"),
        ({"item": "genres"}, r"'genres'.*one value a row.*user, age, item"),
        ({"user": "item"}, r"user and item are both 'item'"),
    ],
)
def test_fields_that_it_cannot_take_are_explained(chosen: dict[str, Any], message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        build("mf", SCHEMAS["two-domains"], chosen, seed=1)


def test_a_log_without_items_needs_a_name() -> None:
    schema = Schema((Field("user", 8, 1, "user"), Field("site", 5, 1, "context")))
    with pytest.raises(PipelineError, match=r"domain item.*set `item`"):
        build("mf", schema, {}, seed=1)
    assert build("mf", schema, {"item": "site"}, seed=1)(random_ids(schema, 3)).shape == (3,)
