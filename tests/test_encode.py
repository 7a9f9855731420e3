"""Vocabularies, bins and ids: what they must be, and that a loop over the rows finds the same."""

import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.common.files import canonical
from pipeline.data import storage
from pipeline.preprocess import parse
from pipeline.preprocess.parse import chunk
from pipeline.schema import Column
from pipeline.split import vocabulary as vocabularies
from pipeline.split.vocabulary import TYPES, Encoder, Places, Vocabulary, apply, fit_vocabulary, schema

CITY, PRICE, TAGS = (
    Column("city", "category", "user"),
    Column("price", "number", "item"),
    Column("tags", "bag", "item"),
)
COLUMNS = [CITY, PRICE, TAGS]


@pytest.fixture(name="few", scope="module", params=[0, parse.FEW], autouse=True)
def _few(request: pytest.FixtureRequest) -> Iterator[None]:
    """With Python's way of looking through few strings, and with Arrow's alone."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (parse, vocabularies):
            patch.setattr(module, "FEW", request.param)
        yield


def rows(
    city: list[Any] | None = None, price: list[Any] | None = None, tags: list[Any] | None = None
) -> pa.Table:
    given_columns = {"city": city, "price": price, "tags": tags}
    size = max(len(values) for values in given_columns.values() if values is not None)
    return pa.table(
        {
            column.name: pa.array(values or [None] * size, TYPES[column.kind])
            for column, values in zip(COLUMNS, given_columns.values(), strict=True)
        }
    )


def blocks(*tables: pa.Table) -> Callable[[str], Iterator[pa.Array]]:
    """The columns of the tables, one block each."""
    return lambda name: (chunk(table[name]) for table in tables)


def fit(tables: Sequence[pa.Table], columns: Sequence[Column], **options: int) -> Vocabulary:
    return fit_vocabulary(blocks(*tables), columns, **options)


def test_categories_are_ordered_by_count_then_value_and_a_missing_one_is_an_entry():
    table = rows(city=["b", "a", "c", "a", "b", None, None, "ä", "Z"])
    vocabulary = fit([table], [CITY])
    assert vocabulary[0]["values"] == [None, "a", "b", "Z", "c", "ä"]
    # 0 is the empty slot and 1 the unseen id
    assert apply(vocabulary, rows(city=["a", None, "new", "ä"]))[:, 0].tolist() == [3, 2, 1, 7]
    assert schema(vocabulary).vocabulary_size == 8


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


def test_infinite_numbers_alone_are_seen():
    inf = float("inf")
    vocabulary = fit([rows(price=[inf, -inf, None])], [PRICE])
    assert apply(vocabulary, rows(price=[inf, -inf, None, 1.0]))[:, 0].tolist() == [3, 3, 2, 3]


def test_repeated_numbers_share_a_bin_and_no_bin_is_empty_in_train():
    values = [0.0] * 90 + [1.0] * 5 + [2.0] * 5
    vocabulary = fit([rows(price=values)], [PRICE], bins=20)
    ids = apply(vocabulary, rows(price=values))[:, 0]
    assert set(ids.tolist()) == set(range(2, schema(vocabulary).vocabulary_size))
    constant = fit([rows(price=[3.0, 3.0])], [PRICE])
    assert schema(constant).fields[0].size == 2


def test_steps_are_the_ids_of_all_bins_up_to_the_own():
    prices = [1.0, 2.0, 3.0, 4.0, None]
    table = rows(price=prices, city=["a"] * 5)
    columns = [PRICE, CITY]
    vocabulary = fit([table], columns, bins=4, numbers="steps")
    price, city = schema(vocabulary).fields
    assert (price.size, price.slots, city.slots) == (6, 4, 1)
    assert apply(vocabulary, table).tolist() == [
        [3, 0, 0, 0, 8],
        [3, 4, 0, 0, 8],
        [3, 4, 5, 0, 8],
        [3, 4, 5, 6, 8],
        [2, 0, 0, 0, 8],
    ]
    never_missing = fit([rows(price=[1.0, 2.0])], [PRICE], bins=2, numbers="steps")
    assert apply(never_missing, rows(price=[None, 9.0])).tolist() == [[1, 0], [2, 3]]
    constant = fit([rows(price=[3.0, None])], [PRICE], numbers="steps")
    assert apply(constant, rows(price=[3.0, None])).tolist() == [[3], [2]]


@given(values=st.lists(st.floats(allow_nan=False), min_size=2, max_size=30), bins=st.integers(1, 8))
def test_the_highest_step_is_the_bin(values: list[float], bins: int):
    table = rows(price=values)
    plain = apply(fit([table], [PRICE], bins=bins), table)
    steps = apply(fit([table], [PRICE], bins=bins, numbers="steps"), table)
    assert (steps.max(1) == plain[:, 0]).all()
    assert ((steps > 0).sum(1) == plain[:, 0] - 1).all()


def test_bags_keep_order_lose_duplicates_and_fill_up_with_the_empty_id():
    train = rows(tags=["x|y|x", "y", "", None, "z||y"])
    vocabulary = fit([train], [TAGS])
    assert vocabulary[0]["values"] == ["y", "x", "z"]
    assert vocabulary[0]["slots"] == 2
    assert apply(vocabulary, train).tolist() == [[3, 2], [2, 0], [0, 0], [0, 0], [4, 2]]
    # two values that were never seen are one unseen id
    assert apply(vocabulary, rows(tags=["new|newer|z", "|"])).tolist() == [[1, 4], [0, 0]]


def test_a_bag_is_cut_at_max_slots_and_what_is_cut_is_counted():
    train = rows(tags=["a|b|c|d", "a"])
    vocabulary = fit([train], [TAGS], max_slots=3)
    truncated: Counter[str] = Counter()
    assert apply(vocabulary, train, truncated=truncated).tolist() == [[2, 3, 4], [2, 0, 0]]
    assert truncated == {"tags": 1}


def test_empty_bags_alone_make_one_slot():
    vocabulary = fit([rows(tags=["", None])], [TAGS])
    assert schema(vocabulary).slots == 1
    assert apply(vocabulary, rows(tags=["a", ""])).tolist() == [[1], [0]]


def test_fields_lie_one_behind_the_other_in_one_id_space():
    table = rows(city=["a", "b"], price=[1.0, 2.0], tags=["x", "x|y"])
    vocabulary = fit([table], COLUMNS, bins=2)
    assert schema(vocabulary).offsets == (1, 4, 7)
    assert apply(vocabulary, table).tolist() == [[2, 5, 8, 0], [3, 6, 8, 9]]
    assert apply(vocabulary, table).dtype == np.int32
    assert [field.domain for field in schema(vocabulary).fields] == ["user", "item", "item"]


def test_unseen_counts_are_by_field():
    vocabulary = fit([rows(city=["a"], price=[1.0], tags=["x|y"])], COLUMNS)
    ids = apply(vocabulary, rows(city=["b", "a"], price=[None, None], tags=["q", "x"]))
    assert storage.unseen(schema(vocabulary), ids) == {"city": 1, "price": 2, "tags": 1}


def test_a_vocabulary_survives_json_and_encodes_new_rows_alike():
    table = rows(city=["a", None], price=[0.1, 1 / 3], tags=["x", None])
    vocabulary = fit([table], COLUMNS, bins=2)
    again = json.loads(json.dumps(vocabulary))
    assert (apply(again, table) == apply(vocabulary, table)).all()


# ---- a loop over the rows ----


def naive_values(rows_of: list[list[str | None]], min_count: int) -> tuple[list[str | None], int]:
    """The values that enter a vocabulary, in order, and how many are too rare."""
    counts = Counter(value for values in rows_of for value in values)
    common = [value for value, count in counts.items() if count >= min_count]
    common.sort(key=lambda value: (-counts[value], value is not None, (value or "").encode()))
    return common, len(counts) - len(common)


def naive_bag(text: str | None, separator: str) -> list[str | None]:
    found = [value.strip() for value in (text or "").split(separator)]
    return list(dict.fromkeys(value for value in found if value))


def naive_category_ids(
    train: Sequence[str | None], new: Sequence[str | None], min_count: int
) -> tuple[list[list[int]], int]:
    """The ids of the new rows if the field were alone (the unseen id is 1), and the number of rare values."""
    values, rare = naive_values([[value] for value in train], min_count)
    return [[2 + values.index(value) if value in values else 1] for value in new], rare


def naive_bag_ids(
    train: Sequence[str | None], new: Sequence[str | None], separator: str, min_count: int, max_slots: int
) -> tuple[list[list[int]], int]:
    """The ids of the new rows if the field were alone, and how many values found no slot."""
    bags = [naive_bag(text, separator) for text in train]
    values, _ = naive_values(bags, min_count)
    slots = max(1, min(max_slots, max(map(len, bags), default=0)))
    ids, lost = [], 0
    for text in new:
        found = list(
            dict.fromkeys(2 + values.index(v) if v in values else 1 for v in naive_bag(text, separator))
        )
        lost += len(found[slots:])
        ids.append((found + [0] * slots)[:slots])
    return ids, lost


def naive_number_ids(
    train: Sequence[float | None], new: Sequence[float | None], bins: int
) -> list[list[int]]:
    """The ids of the new rows if the field were alone."""
    known = sorted(value for value in train if value is not None and np.isfinite(value))
    missing = any(value is None or np.isnan(value) for value in train)
    held = any(value is not None and not np.isnan(value) for value in train)
    cuts = {known[k * len(known) // bins] for k in range(1, bins)} if known else set()
    edges = sorted(cut for cut in cuts if cut > known[0])
    ids = []
    for value in new:
        if value is None or np.isnan(value):
            ids.append([2 if missing else 1])
        else:
            ids.append([2 + missing + bisect_right(edges, value) if held else 1])
    return ids


def part_of(texts: Sequence[str | None], style: str) -> pa.Array:
    """A block of strings: plain, coded, or coded with entries that no row of it uses."""
    plain = pa.array(texts, pa.string())
    if style == "plain":
        return plain
    if style == "coded":
        return plain.dictionary_encode()
    more = pa.concat_arrays([pa.array(["never", "b", "x|never|z"]), plain]).dictionary_encode()
    return pa.concat_arrays([more.slice(1, 0), more.slice(3)])


def cut_up(values: Sequence[Any], cuts: Sequence[int], styles: Sequence[str]) -> list[pa.Array]:
    """The blocks of a column, each in one of the styles; of numbers, just blocks."""
    ends = [0, *sorted(min(cut, len(values)) for cut in cuts), len(values)]
    pieces = [values[start:end] for start, end in pairwise(ends)]
    if not styles:
        return [pa.array(piece, pa.float64()) for piece in pieces]
    return [part_of(piece, styles[number % len(styles)]) for number, piece in enumerate(pieces)]


TEXTS = st.lists(
    st.one_of(st.none(), st.sampled_from(["a", "b", " a", "A", "cc", "ä", "", "é"])), max_size=30
)
FLOATS = st.lists(
    st.one_of(st.none(), st.sampled_from([0.0, -0.0, 1.0, 2.0, 2.5, np.inf, -np.inf]), st.floats(width=16)),
    max_size=30,
)
CUTS = st.lists(st.integers(0, 30), max_size=4)
STYLES = st.lists(st.sampled_from(["plain", "coded", "unused"]), min_size=1, max_size=3)
COUNT = st.integers(1, 3)


def encoded_by(
    column: Column, train: list[pa.Array], new: list[pa.Array], **options: int
) -> tuple[dict[str, Any], list[list[int]], int, dict[str, int]]:
    """Fit on the train blocks and encode the new ones: vocabulary, ids, values lost, unseen ids."""
    vocabulary = fit_vocabulary(lambda name: iter(train), [column], **options)
    encoder = Encoder(vocabulary, lambda name: iter(new))
    lost: Counter[str] = Counter()
    ids = [
        part.tolist()
        for number, block in enumerate(new)
        for part in encoder.ids(number, pa.table({column.name: block}), lost)
    ]
    flat = [row for part in ids for row in part]
    found = np.array(flat, np.int32).reshape(-1, encoder.schema.slots)
    assert all(
        1 <= value < encoder.schema.vocabulary_size
        for row in flat
        for value in row
        if value or column.kind != "bag"
    )
    return vocabulary[0], flat, lost[column.name], storage.unseen(encoder.schema, found)


@given(train=TEXTS, new=TEXTS, cuts=CUTS, more_cuts=CUTS, styles=STYLES, min_count=COUNT)
def test_category_ids_are_those_of_a_loop_over_the_rows(
    train: list[str | None], new: list[str | None], cuts: list[int], more_cuts: list[int], styles: list[str],
    min_count: int,
):  # fmt: skip
    entry, ids, _, unseen = encoded_by(
        CITY, cut_up(train, cuts, styles), cut_up(new, more_cuts, styles[::-1]), min_count=min_count
    )
    expected, rare = naive_category_ids(train, new, min_count)
    assert (ids, entry["rare"]) == (expected, rare)
    assert unseen == {"city": expected.count([1])}


@given(
    separator=st.sampled_from(["|", ".", "*", "^", "\\", "::", " ", ", "]),
    data=st.data(), cuts=CUTS, more_cuts=CUTS, styles=STYLES, min_count=COUNT, max_slots=st.integers(1, 4),
)  # fmt: skip
def test_bag_ids_are_those_of_a_loop_over_the_rows(
    separator: str, data: st.DataObject, cuts: list[int], more_cuts: list[int], styles: list[str],
    min_count: int, max_slots: int,
):  # fmt: skip
    value = st.sampled_from(["x", "y", "z", "xx", " x", "y ", "", " ", "ü", "|", ".", "\t"])
    texts = st.lists(st.one_of(st.none(), st.lists(value, max_size=6).map(separator.join)), max_size=30)
    train, new = data.draw(texts), data.draw(texts)
    entry, ids, lost, unseen = encoded_by(
        Column("tags", "bag", "item", separator),
        cut_up(train, cuts, styles),
        cut_up(new, more_cuts, styles[::-1]),
        min_count=min_count,
        max_slots=max_slots,
    )
    expected, expected_lost = naive_bag_ids(train, new, separator, min_count, max_slots)
    assert (ids, lost) == (expected, expected_lost)
    assert unseen == {"tags": sum(row.count(1) for row in expected)}
    assert entry["separator"] == separator


@given(train=FLOATS, new=FLOATS, cuts=CUTS, more_cuts=CUTS, bins=st.integers(1, 6))
def test_number_ids_are_those_of_a_loop_over_the_rows(
    train: list[float | None], new: list[float | None], cuts: list[int], more_cuts: list[int], bins: int
):
    _, ids, _, unseen = encoded_by(PRICE, cut_up(train, cuts, []), cut_up(new, more_cuts, []), bins=bins)
    expected = naive_number_ids(train, new, bins)
    assert ids == expected
    assert unseen == {"price": expected.count([1])}


@pytest.mark.slow
@given(
    table=st.lists(
        st.tuples(
            st.one_of(st.none(), st.sampled_from(["a", "b", "cc", "ä", ""])),
            st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True)),
            st.one_of(st.none(), st.lists(st.sampled_from("xyzvw"), max_size=6).map("|".join)),
        ),
        min_size=1,
        max_size=40,
    ),
    cut=st.integers(0, 40),
    min_count=st.integers(1, 3),
    bins=st.integers(1, 5),
    max_slots=st.integers(1, 4),
    some=st.integers(1, 50),
)
def test_chunks_change_nothing_and_every_id_is_in_its_field(
    table: list[Any], cut: int, min_count: int, bins: int, max_slots: int, some: int
):
    whole = rows(*(list(column) for column in zip(*table, strict=True)))
    options = {"min_count": min_count, "bins": bins, "max_slots": max_slots}
    vocabulary = fit([whole], COLUMNS, **options)
    parts = [whole.slice(0, cut), whole.slice(cut)]
    assert canonical(fit(parts, COLUMNS, **options)) == canonical(vocabulary)
    fields = schema(vocabulary)
    truncated: Counter[str] = Counter()
    ids = apply(vocabulary, whole, truncated=truncated)
    assert (np.vstack([apply(vocabulary, part) for part in parts]) == ids).all()
    encoder, in_blocks = Encoder(vocabulary, blocks(*parts)), []
    again: Counter[str] = Counter()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.split.vocabulary.ROWS_PER_CHUNK", some)
        for number, part in enumerate(parts):
            in_blocks += list(encoder.ids(number, part, again))
    assert all(0 < len(piece) <= some and piece.dtype == np.int32 for piece in in_blocks)
    assert (np.vstack(in_blocks) == ids).all()
    assert again == truncated
    for slot, field in enumerate(fields.field_of_slot):
        first, size = fields.offsets[field], fields.fields[field].size
        inside = (ids[:, slot] >= first) & (ids[:, slot] < first + size)
        bag = fields.fields[field].name == "tags"
        assert (inside | ((ids[:, slot] == 0) & bag)).all()
    if min_count == 1:
        assert not storage.unseen(fields, ids)["city"]
        assert not storage.unseen(fields, ids)["price"]


def test_a_value_that_stands_in_a_dictionary_and_in_no_train_row_does_not_enter():
    city = pa.array(["b", "a", "c"]).dictionary_encode().filter(pa.array([True, False, False]))
    tags = pa.array(["x", "y|z|w", "q"]).dictionary_encode().filter(pa.array([True, False, False]))
    assert "a" in city.dictionary.to_pylist()
    vocabulary = fit_vocabulary(lambda name: [{"city": city, "tags": tags}[name]], [CITY, TAGS])
    assert [entry["values"] for entry in vocabulary] == [["b"], ["x"]]
    assert vocabulary[1]["slots"] == 1


def test_a_category_keeps_its_spaces_and_a_bags_value_does_not():
    vocabulary = fit([rows(city=["a ", "a"], tags=["x | x", " y"])], [CITY, TAGS])
    assert vocabulary[0]["values"] == ["a", "a "]
    assert vocabulary[1]["values"] == ["x", "y"]


@pytest.mark.parametrize("tables", [[], [rows(city=["a"]).slice(1)]])
def test_no_train_rows_make_a_vocabulary_in_which_everything_is_unseen(tables: list[pa.Table]):
    vocabulary = fit(tables, COLUMNS)
    assert schema(vocabulary).slots == 3
    new = rows(city=["a", None], price=[1.0, None], tags=["x|y", None])
    assert apply(vocabulary, new).tolist() == [[1, 2, 3], [1, 2, 0]]


def test_no_rows_have_no_ids():
    vocabulary = fit([rows(city=["a"], price=[1.0], tags=["x|y"])], COLUMNS)
    assert apply(vocabulary, rows(city=["a"]).slice(1)).shape == (0, 4)
    encoder = Encoder(vocabulary, blocks(rows(city=["a"]).slice(1), rows(city=["a"])))
    assert not list(encoder.ids(0, rows(city=["a"]).slice(1)))
    assert next(encoder.ids(1, rows(city=["a"])))[:, 0].tolist() == [2]


def test_few_strings_and_many_are_looked_up_alike() -> None:
    values = [None, *map(str, range(200)), "é", ""]
    places, strings = Places(values), ["é", "", "nobody", None, "7"]
    few = places.of(pa.array(strings, pa.string()))
    many = places.of(pa.chunked_array([pa.array(strings * 100, pa.string())]))
    assert few.tolist() == [202, 203, 0, 1, 9] == many[:5].tolist()
    assert few.dtype == many.dtype == np.int32
