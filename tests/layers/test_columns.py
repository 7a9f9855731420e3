"""The columns of ids that identify the user and the item."""

import pytest
from rows import SCHEMAS

from pipeline.layers.columns import column_of
from pipeline.schema import Field, Schema

BAGS_FIRST = Schema((Field("liked", 6, 4, "user"), Field("user", 8, 1, "user"), Field("hour", 5)))


@pytest.mark.parametrize(
    ("schema", "name", "domain", "column"),
    [
        (SCHEMAS["two-domains"], None, "user", 0),
        (SCHEMAS["two-domains"], None, "item", 5),
        (SCHEMAS["two-domains"], "age", "user", 4),
        (SCHEMAS["three-domains"], "hour", "item", 0),
        (BAGS_FIRST, None, "user", 4),
        (BAGS_FIRST, "hour", "user", 5),
    ],
)
def test_the_named_field_or_the_first_of_one_value(
    schema: Schema, name: str, domain: str, column: int
) -> None:
    assert column_of(schema, name, domain) == column


def test_what_is_not_there_is_an_error_that_names_what_is() -> None:
    with pytest.raises(ValueError, match=r"field of the domain item has one.*set `item` to.*\(user, hour\)"):
        column_of(BAGS_FIRST, None, "item")
    with pytest.raises(ValueError, match=r"'liked' has one value.*set `user` to.*\(user, hour\)"):
        column_of(BAGS_FIRST, "liked", "user")
    with pytest.raises(ValueError, match=r"\(none\)"):
        column_of(Schema((Field("tags", 3, 2),)), None, "user")
