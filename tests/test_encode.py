import json
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import encode
from pipeline.encode import apply, fit, schema
from pipeline.errors import PipelineError
from pipeline.files import canonical
from pipeline.schema import Column

CITY, PRICE, TAGS = (
    Column("city", "category", "user"),
    Column("price", "number", "item"),
    Column("tags", "bag", "item"),
)
COLUMNS = [CITY, PRICE, TAGS]


def rows(
    city: list[Any] | None = None, price: list[Any] | None = None, tags: list[Any] | None = None
) -> pa.Table:
    given_columns = {"city": city, "price": price, "tags": tags}
    size = max(len(values) for values in given_columns.values() if values is not None)
    return pa.table(
        {
            column.name: pa.array(values or [None] * size, encode.TYPES[column.kind])
            for column, values in zip(COLUMNS, given_columns.values(), strict=True)
        }
    )


def test_categories_are_ordered_by_count_then_value_and_a_missing_one_is_an_entry():
    table = rows(city=["b", "a", "c", "a", "b", None, None, "ä", "Z"])
    vocabulary = fit([table], [CITY])
    assert vocabulary[0]["values"] == [None, "a", "b", "Z", "c", "ä"]
    # 0 is the empty slot and 1 the unseen id
    assert apply(vocabulary, rows(city=["a", None, "new", "ä"]))[:, 0].tolist() == [3, 2, 1, 7]
    assert schema(vocabulary).rows == 8


def test_rare_values_and_a_missing_value_that_train_lacks_are_unseen():
    vocabulary = fit([rows(city=["a", "a", "b", "a", "c", "c"])], [CITY], min_count=2)
    assert vocabulary[0]["values"] == ["a", "c"]
    assert vocabulary[0]["rare"] == 1
    assert apply(vocabulary, rows(city=["a", "b", "c", None, ""]))[:, 0].tolist() == [2, 1, 3, 1, 1]


def test_ids_longer_than_64_bits_stay_what_they_are():
    long = ["18446744073709551617", "18446744073709551618", "1" * 50]
    vocabulary = fit([rows(city=long)], [CITY])
    assert len(set(apply(vocabulary, rows(city=long))[:, 0].tolist())) == 3


def test_numbers_fall_into_quantile_bins_of_nearly_equal_size():
    values = np.random.default_rng(0).lognormal(size=1000)
    vocabulary = fit([rows(price=values.tolist())], [PRICE], bins=10)
    ids = apply(vocabulary, rows(price=values.tolist()))[:, 0]
    assert np.bincount(ids).tolist() == [0, 0, *[100] * 10]
    assert (np.diff(ids[np.argsort(values)]) >= 0).all()


def test_missing_and_infinite_numbers():
    inf, nan = float("inf"), float("nan")
    vocabulary = fit([rows(price=[1.0, 2.0, 3.0, 4.0, None, nan, inf])], [PRICE], bins=2)
    ids = apply(vocabulary, rows(price=[1.0, 4.0, None, nan, inf, -inf, 1e300]))[:, 0].tolist()
    assert ids == [3, 4, 2, 2, 4, 3, 4]
    never_missing = fit([rows(price=[1.0, 2.0])], [PRICE], bins=2)
    assert apply(never_missing, rows(price=[1.0, None]))[:, 0].tolist() == [2, 1]
    always_missing = fit([rows(price=[None, nan])], [PRICE])
    assert schema(always_missing).fields[0].size == 2
    assert apply(always_missing, rows(price=[1.0, None]))[:, 0].tolist() == [1, 2]


def test_repeated_numbers_share_a_bin_and_no_bin_is_empty_in_train():
    values = [0.0] * 90 + [1.0] * 5 + [2.0] * 5
    vocabulary = fit([rows(price=values)], [PRICE], bins=20)
    ids = apply(vocabulary, rows(price=values))[:, 0]
    assert set(ids.tolist()) == set(range(2, schema(vocabulary).rows))
    constant = fit([rows(price=[3.0, 3.0])], [PRICE])
    assert schema(constant).fields[0].size == 2


def test_bags_keep_order_lose_duplicates_and_fill_up_with_the_empty_id():
    train = rows(tags=[["x", "y", "x"], ["y"], [], None, ["z", None, "y"]])
    vocabulary = fit([train], [TAGS])
    assert vocabulary[0]["values"] == ["y", "x", "z"]
    assert vocabulary[0]["slots"] == 2
    assert apply(vocabulary, train).tolist() == [[3, 2], [2, 0], [0, 0], [0, 0], [4, 2]]
    # two values that were never seen are one unseen id
    assert apply(vocabulary, rows(tags=[["new", "newer", "z"], []])).tolist() == [[1, 4], [0, 0]]


def test_a_bag_is_cut_at_max_slots_and_what_is_cut_is_counted():
    train = rows(tags=[["a", "b", "c", "d"], ["a"]])
    vocabulary = fit([train], [TAGS], max_slots=3)
    truncated: Counter[str] = Counter()
    assert apply(vocabulary, train, truncated=truncated).tolist() == [[2, 3, 4], [2, 0, 0]]
    assert truncated == {"tags": 1}


def test_empty_bags_alone_make_one_slot():
    vocabulary = fit([rows(tags=[[], None])], [TAGS])
    assert schema(vocabulary).slots == 1
    assert apply(vocabulary, rows(tags=[["a"], []])).tolist() == [[1], [0]]


def test_fields_lie_one_behind_the_other_in_one_id_space():
    table = rows(city=["a", "b"], price=[1.0, 2.0], tags=[["x"], ["x", "y"]])
    vocabulary = fit([table], COLUMNS, bins=2)
    assert schema(vocabulary).first == (1, 4, 7)
    assert apply(vocabulary, table).tolist() == [[2, 5, 8, 0], [3, 6, 8, 9]]
    assert apply(vocabulary, table).dtype == np.int32
    assert [field.domain for field in schema(vocabulary).fields] == ["user", "item", "item"]


def test_unseen_counts_are_by_field():
    vocabulary = fit([rows(city=["a"], price=[1.0], tags=[["x", "y"]])], COLUMNS)
    ids = apply(vocabulary, rows(city=["b", "a"], price=[None, None], tags=[["q"], ["x"]]))
    assert encode.unseen(schema(vocabulary), ids) == {"city": 1, "price": 2, "tags": 1}


def test_a_vocabulary_survives_json_and_encodes_new_rows_alike():
    table = rows(city=["a", None], price=[0.1, 1 / 3], tags=[["x"], None])
    vocabulary = fit([table], COLUMNS, bins=2)
    again = json.loads(json.dumps(vocabulary))
    assert (apply(again, table) == apply(vocabulary, table)).all()


@given(
    table=st.lists(
        st.tuples(
            st.one_of(st.none(), st.sampled_from(["a", "b", "cc", "ä", ""])),
            st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True)),
            st.one_of(st.none(), st.lists(st.one_of(st.none(), st.sampled_from("xyzvw")), max_size=6)),
        ),
        min_size=1,
        max_size=40,
    ),
    cut=st.integers(0, 40),
    min_count=st.integers(1, 3),
    bins=st.integers(1, 5),
    max_slots=st.integers(1, 4),
)
def test_chunks_change_nothing_and_every_id_is_in_its_field(
    table: list[Any], cut: int, min_count: int, bins: int, max_slots: int
):
    whole = rows(*(list(column) for column in zip(*table, strict=True)))
    options = {"min_count": min_count, "bins": bins, "max_slots": max_slots}
    vocabulary = fit([whole], COLUMNS, **options)
    parts = [whole.slice(0, cut), whole.slice(cut)]
    assert canonical(fit(parts, COLUMNS, **options)) == canonical(vocabulary)
    fields = schema(vocabulary)
    ids = apply(vocabulary, whole)
    assert (np.vstack([apply(vocabulary, part) for part in parts]) == ids).all()
    for slot, field in enumerate(fields.slot_field):
        first, size = fields.first[field], fields.fields[field].size
        inside = (ids[:, slot] >= first) & (ids[:, slot] < first + size)
        bag = fields.fields[field].name == "tags"
        assert (inside | ((ids[:, slot] == 0) & bag)).all()
    if min_count == 1:
        assert not encode.unseen(fields, ids)["city"]
        assert not encode.unseen(fields, ids)["price"]


@pytest.mark.parametrize("key", ["min_count", "bins", "max_slots"])
def test_settings_below_one_are_errors(key: str):
    with pytest.raises(PipelineError, match=f"{key} is 0"):
        fit([rows(city=["a"])], [CITY], **{key: 0})
