"""MF against its equation."""

from dataclasses import replace

import pytest
import torch
from loops import dot, exact
from rows import SCHEMAS, every_schema, random_ids

from pipeline.models import build
from pipeline.schema import EMPTY, Field, Schema


def place(schema: Schema, name: str) -> tuple[int, int]:
    """A field's column, of one slot, and its first id."""
    i = [field.name for field in schema.fields].index(name)
    return schema.field_of_slot.index(i), schema.offsets[i]


@pytest.mark.parametrize("names", [("user", "item"), ("age", "item"), ("item", "age")])
def test_mf(names: tuple[str, str]) -> None:
    roles = dict(zip(names, ("user", "item"), strict=True))
    fields = SCHEMAS["two-domains"].fields
    schema = Schema(tuple(replace(field, role=roles.get(field.name)) for field in fields))
    model, ids = exact(build("mf", schema, {"embedding_size": 3}, seed=1)), random_ids(schema, 20)
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
    both = Schema((Field("user", 8, 1), Field("item", 7, 1)))
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
