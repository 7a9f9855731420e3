"""Cleaning against loops over the rows, on coded columns and on plain ones."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.common.errors import PipelineError
from pipeline.preprocess import parse
from pipeline.preprocess.cleaning import equals, keep, missing, screen
from pipeline.preprocess.joins import Side, side_table
from pipeline.preprocess.parse import NUMBER, chunk, encoded, numbers, recode, texts
from pipeline.preprocess.rejects import RejectLog
from pipeline.preprocess.text import CODED, Dialect

Values = list[str | None]
VALUES = st.lists(
    st.one_of(st.none(), st.sampled_from(["", "a", "ab", "b", " a", "A", "é", "10", "x\x00"])), max_size=12
)


def plain(values: Values) -> pa.Array:
    return pa.array(values, pa.string())


def coded(values: Values) -> pa.Array:
    """Coded, with an entry that no row uses and another order than that of the rows."""
    distinct = ["unused", *sorted({value for value in values if value is not None})]
    codes = [None if value is None else distinct.index(value) for value in values]
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), plain(distinct))


WRITTEN = [
    *("", "NA", "-99", "-99.0"),
    *(" a", "a", "a\u2003", "\x1f", "\xe9"),
    *("1.0", "1,0", "+7.0", "x.0"),
]


@given(values=st.lists(st.one_of(st.none(), st.sampled_from(WRITTEN))), decimal=st.sampled_from(".,"))
def test_few_texts_are_cleaned_one_by_one_as_many_are_together(values: Values, decimal: str) -> None:
    missing = {"", "NA", "-99.0"}
    few = texts(plain(values), missing, decimal)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parse, "FEW", -1)
        many = texts(plain(values), missing, decimal)
    assert few.to_pylist() == many.to_pylist()
    assert texts(few, missing, decimal).to_pylist() == few.to_pylist()  # once clean, clean


both = pytest.mark.parametrize("made", [plain, coded])
Make = Callable[[Values], pa.Array]


@both
@given(a=VALUES, data=st.data())
def test_screened_rows_match_every_rule_and_the_others_are_rejected_for_the_first_they_break(
    made: Make, a: Values, data: st.DataObject
):
    b = data.draw(st.lists(st.sampled_from([None, "1", "2", "x"]), min_size=len(a), max_size=len(a)))
    lines = 10 + 2 * np.arange(len(a))
    rejects = RejectLog()
    rejects.count("f", len(a))
    table = pa.table({"a": made(a), "b": made(b)})
    rules = {"b": ("[12]", "1 or 2"), "a": ("a|.*b", "an a")}
    good, where = screen(table, lines, "f", rejects, rules)
    expected, told = [], []
    for line, row in zip(lines.tolist(), zip(a, b, strict=True), strict=True):
        if row[1] not in ("1", "2"):
            told.append(
                f"f:{line}: b is missing" if row[1] is None else f"f:{line}: b {row[1]!r} is not 1 or 2"
            )
        elif row[0] not in ("a", "ab", "b"):
            told.append(
                f"f:{line}: a is missing" if row[0] is None else f"f:{line}: a {row[0]!r} is not an a"
            )
        else:
            expected.append((line, *row))
    assert list(zip(where.tolist(), *(good[name].to_pylist() for name in "ab"), strict=True)) == expected
    assert rejects.first == told
    assert rejects.files["f"].rejected == len(told)


def test_a_rule_is_for_the_whole_value():
    values = ["a", "ab", "ba", "a\n", "\na", "a|b", ""]
    rejects = RejectLog()
    rejects.count("f", len(values))
    table = pa.table({"a": plain(values)})
    good, _ = screen(table, np.arange(7), "f", rejects, {"a": ("a|b", "a or b")})
    assert good["a"].to_pylist() == ["a"]


@both
@given(values=VALUES)
def test_equals_and_missing_and_recode_say_of_a_row_what_they_say_of_its_value(made: Make, values: Values):
    column = made(values)
    assert equals(column, "a", "").tolist() == [value in ("a", "") for value in values]
    assert equals(column).tolist() == [False] * len(values)
    gone = missing(column, "", "10")
    assert gone.to_pylist() == [None if value in ("", "10") else value for value in values]
    short = recode(column, lambda distinct: pc.utf8_slice_codeunits(distinct, 0, 1))
    assert short.to_pylist() == [None if value is None else value[:1] for value in values]
    word = recode(
        column, lambda distinct: pc.if_else(pc.equal(distinct, "a"), pa.scalar(None, pa.string()), "b")
    )
    assert word.to_pylist() == [None if value in (None, "a") else "b" for value in values]
    for made_column in (gone, short, word):
        assert made_column.type == CODED
        assert made_column.dictionary.null_count == 0
        assert len(set(made_column.dictionary.to_pylist())) == len(made_column.dictionary)


@both
def test_a_function_is_given_each_distinct_value_once(made: Make):
    given_values: list[str] = []

    def change(distinct: pa.Array) -> pa.Array:
        given_values.extend(distinct.to_pylist())
        return distinct

    recode(made(["a", "b", "a", None, "a"]), change)
    assert sorted(set(given_values)) == sorted(given_values)


@given(values=VALUES)
def test_kept_rows_keep_their_lines(values: Values):
    lines = np.arange(len(values))
    good = np.array([value is not None for value in values], bool)
    table, where = keep(pa.table({"a": coded(values)}), lines, good)
    assert dict(zip(where.tolist(), table["a"].to_pylist(), strict=True)) == {
        line: value for line, value in enumerate(values) if value is not None
    }


@both
def test_what_is_in_one_piece_and_coded_stays_as_it_is(made: Make):
    column = made(["a", None, "b"])
    assert encoded(column).to_pylist() == ["a", None, "b"]
    assert encoded(column).type == CODED
    assert chunk(pa.chunked_array([column, column])).to_pylist() == ["a", None, "b"] * 2
    assert chunk(column) is column
    assert len(chunk(pa.chunked_array([], CODED))) == 0


# ---- numbers ----

NUMBERS = [
    "1", " 1", "1\t", "+1", "-1", "1.", ".5", "007", "-0", "1e5", "1E+05", "1e400", "-1e400", "1e-400",
    "4.9e-324", "0.1", "9007199254740993", "inf", "Infinity", "-INF", "+inf", "nan", "NaN", "-nan", " +NAN ",
]  # fmt: skip
NONE = [
    "1_000", "0x10", "\u0661", "\uff11", "1,5", "1 2", "1d5", "1f", "1e", "1e+", ".", "-", "+", "e5", "--1",
    "+-1", "+ 1", "nan(1)", "nan()", "infinit", "NULL", "1\x00", "\ufeff1", "½", "1e5.0",
]  # fmt: skip
SHAPED = st.from_regex(rf"[ \t]?({NUMBER}|[+-]?(?i:nan|inf|infinity))[ \t]?", fullmatch=True)
TEXTS = st.one_of(
    st.none(),
    st.sampled_from(["", " ", *NUMBERS, *NONE]),
    SHAPED,
    st.text("0123456789.eE+-_ xnaif(", max_size=8),
)


def value_of(text: str | None) -> tuple[float, bool]:
    """What Python makes of it, if it is plain ASCII without underscores."""
    if text is None or not text.strip():
        return math.nan, False
    try:
        return float(text if text.isascii() and "_" not in text and "(" not in text else "none"), False
    except ValueError:
        return math.nan, True


@both
@given(texts=st.lists(TEXTS, max_size=8))
@example(["1", "nan(1)"])
@example(["1e400", " 1"])
def test_numbers_are_those_of_python_whatever_stands_beside_them(made: Make, texts: Values):
    values, bad = numbers(made(texts))
    assert values.dtype == np.float64 and bad.dtype == bool
    for text, value, no in zip(texts, values.tolist(), bad.tolist(), strict=True):
        expected, wrong = value_of(text)
        assert no == wrong, text
        assert value == expected or (math.isnan(value) and math.isnan(expected)), text
        alone, bad_alone = numbers(made([text]))
        assert np.array_equal(alone, [value], equal_nan=True) and bad_alone[0] == no, text


@pytest.mark.parametrize("text", NUMBERS)
def test_these_are_numbers(text: str):
    values, bad = numbers(plain([text]))
    assert not bad[0]
    assert np.array_equal(values, [float(text)], equal_nan=True)


@pytest.mark.parametrize("text", NONE)
def test_these_are_none(text: str):
    values, bad = numbers(plain([text]))
    assert bad[0] and math.isnan(values[0])


# ---- side tables ----


@both
@given(keys=VALUES, known=VALUES, data=st.data())
def test_a_join_gives_each_row_the_first_side_row_of_its_key(
    made: Make, keys: Values, known: Values, data: st.DataObject
):
    size = {"min_size": len(known), "max_size": len(known)}
    words: Values = data.draw(st.lists(st.sampled_from([None, "x", "y"]), **size))
    sizes: list[float | None] = data.draw(st.lists(st.sampled_from([None, 1.5, 2.0]), **size))
    side = Side(pa.table({"key": made(known), "word": made(words), "size": pa.array(sizes, pa.float64())}))
    first: dict[str, tuple[Any, Any]] = {}
    for key, *values in zip(known, words, sizes, strict=True):
        if key is not None:
            first.setdefault(key, tuple(values))
    for column in (plain(keys), coded(keys)):
        joined = side.join(column)
        assert list(joined) == ["key", "word", "size"]
        assert joined["key"].to_pylist() == keys
        found = list(zip(joined["word"].to_pylist(), joined["size"].to_pylist(), strict=True))
        assert found == [(None, None) if key is None else first.get(key, (None, None)) for key in keys]


def test_a_side_table_is_read_whole_and_its_bad_rows_are_counted(tmp_path: Path):
    path = tmp_path / "side"
    path.write_bytes(b"key,word,n\na,x,1\nb,y\nc,z,one\na,w,2\n")
    rejects = RejectLog()
    rules = {"n": ("[0-9]+", "a number")}
    table = side_table(path, ["key", "word", "n"], rules, rejects, Dialect(), header=True)
    assert table.to_pydict() == {"key": ["a", "a"], "word": ["x", "w"], "n": ["1", "2"]}
    assert all(column.num_chunks == 1 and column.type == CODED for column in table.columns)
    assert rejects.first == ["side:3: 2 fields where 3 belong: 'b,y'", "side:4: n 'one' is not a number"]
    assert rejects.files["side"].side_table
    few = side_table(path, ["key", "word", "n"], {}, RejectLog(), Dialect(), header=True, only=["word"])
    assert few.to_pydict() == {"word": ["x", "z", "w"]}


@pytest.mark.parametrize("content", [b"key,word\n", b"key,word", b"key,word\n\n\n", b"key,word\nbad\n"])
def test_a_side_table_without_rows_knows_no_key(tmp_path: Path, content: bytes):
    (tmp_path / "side").write_bytes(content)
    table = side_table(tmp_path / "side", ["key", "word"], {}, RejectLog(), Dialect(), header=True)
    assert table.schema.names == ["key", "word"] and len(table) == 0
    assert Side(table).join(plain(["a", None]))["word"].to_pylist() == [None, None]


def test_a_side_table_that_is_not_there_is_an_error(tmp_path: Path):
    with pytest.raises(PipelineError, match="side cannot be opened"):
        side_table(tmp_path / "side", ["key"], {}, RejectLog(), Dialect())
