"""The columns of ids that identify the user and the item."""

import pytest
from rows import SCHEMAS

from pipeline.layers.columns import column_of
from pipeline.schema import Field, Role, Schema

LATE = Schema((Field("liked", 6, 4, "user"), Field("age", 8, 1, "user"), Field("who", 5, role="user")))


@pytest.mark.parametrize(
    ("schema", "role", "column"),
    [
        (SCHEMAS["two-domains"], "user", 0),
        (SCHEMAS["two-domains"], "item", 5),
        (SCHEMAS["three-domains"], "user", 4),
        (LATE, "user", 5),
    ],
)
def test_the_declared_field_wherever_it_stands_and_whatever_its_domain(
    schema: Schema, role: Role, column: int
) -> None:
    assert column_of(schema, role) == column


def test_the_first_field_of_a_domain_is_not_taken_for_it() -> None:
    with pytest.raises(ValueError, match=r"declares none: .*`item: <field>` in .*one value a row: age, who"):
        column_of(LATE, "item")
    with pytest.raises(ValueError, match="one value a row: none"):
        column_of(Schema((Field("tags", 3, 2),)), "user")
