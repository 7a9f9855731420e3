"""The one id space: blocks of ids, slots, domains."""

import json

import pytest
from rows import every_schema

from pipeline.schema import EMPTY, Field, Schema


@every_schema
def test_every_id_belongs_to_the_empty_slot_or_to_one_field(schema: Schema) -> None:
    owned = [
        first + i
        for first, field in zip(schema.offsets, schema.fields, strict=True)
        for i in range(field.size)
    ]
    assert [EMPTY, *owned] == list(range(schema.vocabulary_size))


@every_schema
def test_slots_follow_the_fields(schema: Schema) -> None:
    assert len(schema.field_of_slot) == schema.slots
    assert list(schema.field_of_slot) == sorted(schema.field_of_slot)
    assert [schema.field_of_slot.count(i) for i in range(len(schema.fields))] == [
        f.slots for f in schema.fields
    ]


@every_schema
def test_groups_hold_every_field_once_in_the_order_user_item_context(schema: Schema) -> None:
    assert sorted(i for group in schema.domains for i in group) == list(range(len(schema.fields)))
    domains = [{schema.fields[i].domain for i in group} for group in schema.domains]
    assert all(len(domain) == 1 for domain in domains)
    order = ["user", "item", "context"]
    found = [order.index(domain.pop()) for domain in domains]
    assert found == sorted(set(found))


@every_schema
def test_a_schema_survives_json(schema: Schema) -> None:
    assert Schema.from_json(json.loads(json.dumps(schema.to_json()))) == schema


@pytest.mark.parametrize("bad", [{"size": 0}, {"slots": -1}, {"domain": "shop"}])
def test_impossible_fields_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(AssertionError):
        Field(**{"name": "f", "size": 3, **bad})
