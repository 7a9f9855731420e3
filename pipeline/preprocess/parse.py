"""Values of columns: texts, numbers and bags, parsed on distinct values where they are coded."""

from collections.abc import Callable, Collection

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as is_
from numpy.typing import NDArray


def kind(type_: pa.DataType) -> str:
    """Return what an Arrow type holds: text, flag, number, time, list, nothing or something else."""
    if is_.is_dictionary(type_):
        return kind(type_.value_type)
    tests: tuple[tuple[str, tuple[Callable[[pa.DataType], bool], ...]], ...] = (
        ("text", (is_.is_string, is_.is_large_string, is_.is_string_view, is_.is_time)),
        ("flag", (is_.is_boolean,)),
        ("number", (is_.is_integer, is_.is_floating, is_.is_decimal, is_.is_duration)),
        ("time", (is_.is_timestamp, is_.is_date)),
        ("nothing", (is_.is_null,)),
    )
    for name, those in tests:
        if any(test(type_) for test in those):
            return name
    if is_list(type_) and kind(type_.value_type) not in ("list", "something else"):
        return "list"
    return "something else"


def usable(type_: pa.DataType, use: str) -> bool:
    """Whether a column of an Arrow type can be used as a category, number, bag or timestamp."""
    fit = {
        "category": ("text", "flag", "number", "time", "nothing"),
        "number": ("text", "flag", "number", "nothing"),
        "timestamp": ("text", "number", "time", "nothing"),
        "bag": ("text", "flag", "number", "time", "nothing", "list"),
    }
    return kind(type_) in fit[use]


def texts(column: pa.Array, missing: Collection[str] = ()) -> pa.DictionaryArray:
    """Return the values as trimmed texts, dictionary-encoded.

    Args:
        missing: texts that stand for a missing value.
    """
    if is_.is_dictionary(column.type) and len(column.dictionary) > len(column):
        column = column.dictionary_decode()  # a dictionary of a whole file, met again in each block
    if is_.is_float16(column.type):
        column = pc.cast(column, pa.float32())  # nothing else can be done with these
    coded = encoded(column)
    marks = pa.array(sorted(missing), pa.string())
    if is_.is_string(coded.type.value_type) and _clean_already(coded.dictionary, marks):
        return pa.DictionaryArray.from_arrays(pc.cast(coded.indices, pa.int32()), coded.dictionary)

    def change(values: pa.Array) -> pa.Array:
        found = pc.utf8_trim_whitespace(as_text(values))
        return pc.if_else(pc.is_in(found, marks), pa.scalar(None, pa.string()), found)

    return recode(coded, change)


def numbers(
    column: pa.Array, missing: Collection[str] = (), decimal: str = "."
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the values as numbers, NaN where one is missing, and which are none.

    Args:
        missing: texts that stand for a missing value.
        decimal: the sign before the decimals of a text.
    """
    if is_.is_dictionary(column.type):
        values, bad = numbers(column.dictionary, missing, decimal)
        codes = pc.fill_null(column.indices, len(values)).to_numpy(zero_copy_only=False)
        return np.append(values, np.nan)[codes], np.append(bad, False)[codes]
    if kind(column.type) in ("text", "nothing"):
        text = pc.utf8_trim_whitespace(pc.cast(column, pa.string()))
        gone = pc.is_in(text, pa.array(sorted(missing), pa.string()))
        text = pc.if_else(gone, pa.scalar(None, pa.string()), text)
        if decimal != ".":
            text = pc.replace_substring(text, decimal, ".")
        return number(text)
    values = _floats(column)
    marks, no_mark = number(pa.array(sorted(missing), pa.string()))
    values = np.where(np.isin(values, marks[~no_mark]), np.nan, values)
    return values, np.zeros(len(values), bool)


def bags(column: pa.Array, separator: str, missing: Collection[str] = ()) -> pa.DictionaryArray:
    """Return lists as texts with a separator between their values.

    A text in square brackets, as Python and JSON write a list, loses brackets and quotes.

    Args:
        separator: the one of a column of texts; a list is joined with it.
        missing: texts that stand for a missing value, alone or in a list.
    """
    if not is_list(column.type):
        return recode(texts(column, missing), _unbracketed)
    column = pc.cast(column, pa.list_(column.type.value_type))
    values = pc.fill_null(_clean(texts(column.values, missing), separator), "")
    lists = pa.ListArray.from_arrays(column.offsets, values)
    joined = pc.binary_join(lists, separator)
    return encoded(pc.if_else(column.is_valid(), joined, pa.scalar(None, pa.string())))


def is_list(type_: pa.DataType) -> bool:
    """Whether an Arrow type is some kind of list."""
    tests = (is_.is_list, is_.is_large_list, is_.is_fixed_size_list, is_.is_list_view, is_.is_large_list_view)
    return any(test(type_) for test in tests)


def _clean_already(values: pa.Array, marks: pa.Array) -> bool:
    """Whether texts need no trimming and none stands for a missing value: then there is nothing to do."""
    if values.null_count or pc.any(pc.is_in(values, marks)).as_py():
        return False
    return bool(values.equals(pc.utf8_trim_whitespace(values)))


def as_text(values: pa.Array) -> pa.Array:
    """Return values of any usable type as texts."""
    if is_.is_float16(values.type):
        values = pc.cast(values, pa.float32())  # Arrow computes nothing with halves
    if is_.is_floating(values.type):
        # NaN is a missing value, and 12.0 is 12
        whole = pc.and_(pc.equal(pc.floor(values), values), pc.less(pc.abs(values), 2.0**53))
        integers = pc.cast(pc.if_else(whole, values, 0.0), pa.int64())
        found = pc.if_else(whole, pc.cast(integers, pa.string()), pc.cast(values, pa.string()))
        return pc.if_else(pc.is_nan(values), pa.scalar(None, pa.string()), found)
    if is_.is_decimal(values.type):
        return pc.replace_substring_regex(pc.cast(values, pa.string()), r"\.0+$", "")
    if is_.is_timestamp(values.type):
        values = pc.cast(pc.cast(values, pa.int64()), pa.timestamp(values.type.unit))  # in UTC
        return pc.replace_substring_regex(pc.cast(values, pa.string()), r"\.0+$", "")
    if is_.is_duration(values.type):
        return as_text(pa.array(_floats(values), from_pandas=True))
    found = pc.cast(values, pa.string())
    return pc.replace_substring_regex(found, r"\.0+$", "") if is_.is_time(values.type) else found


def _floats(column: pa.Array) -> NDArray[np.float64]:
    units = 1.0
    if is_.is_duration(column.type):
        units = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}[column.type.unit]
        column = pc.cast(column, pa.int64())
    values = pc.fill_null(pc.cast(column, pa.float64(), safe=False), np.nan)
    return np.asarray(values.to_numpy(zero_copy_only=False) / units)


def _unbracketed(values: pa.Array) -> pa.Array:
    listed = pc.match_substring_regex(values, r"^\[(?s:.*)\]$")
    if not pc.any(listed).as_py():
        return values
    inner = pc.utf8_slice_codeunits(values, 1, -1)
    inner = pc.replace_substring_regex(inner, r"""^\s*["']|["']\s*$|(["'])?(\s*,\s*)(["'])?""", r"\2")
    return pc.if_else(listed, inner, values)


def _clean(column: pa.DictionaryArray, separator: str) -> pa.Array:
    """Return plain texts in which no separator stands."""
    return recode(column, lambda values: pc.replace_substring(values, separator, " ")).dictionary_decode()


NUMBER = r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?"


def recode(column: pa.Array, change: Callable[[pa.Array], pa.Array]) -> pa.DictionaryArray:
    """Apply a function of strings to the distinct values; where it gives null the row is missing."""
    coded = encoded(column)
    changed = pc.cast(change(coded.dictionary), pa.string()).dictionary_encode()
    return pa.DictionaryArray.from_arrays(changed.indices.take(coded.indices), changed.dictionary)


def number(column: pa.Array) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the numbers (NaN where there is none) and which values are none and not missing either.

    White space around a number does not count; a string of nothing else is missing. `nan`, `inf` and
    `infinity`, in any case, are numbers, and so is what is too large for one: it is infinite.
    """
    if pa.types.is_dictionary(column.type):
        values, bad = number(column.dictionary)
        codes = codes_of(column, len(values))
        return np.r_[values, np.nan][codes], np.r_[bad, False][codes]
    empty = pc.equal(pc.utf8_trim_whitespace(column), "")
    column = pc.if_else(empty, pa.scalar(None, pa.string()), column)
    bad = np.zeros(len(column), bool)
    parsed = _cast(column)
    if parsed is None:
        text = pc.utf8_trim_whitespace(column)
        fine = pc.match_substring_regex(text, rf"^(?i:{NUMBER}|[+-]?(nan|inf|infinity))$")
        bad = pc.fill_null(pc.invert(fine), False).to_numpy(zero_copy_only=False)
        text = pc.replace_substring_regex(pc.utf8_lower(text), r"^\+", "")
        parsed = pc.cast(pc.if_else(fine, text, pa.scalar(None, pa.string())), pa.float64())
    return pc.fill_null(parsed, np.nan).to_numpy(zero_copy_only=False), bad


def _cast(column: pa.Array) -> pa.Array | None:
    """Return the numbers if all are finite: Arrow also takes `nan(...)`, which is none here."""
    try:
        values = pc.cast(column, pa.float64())
    except pa.ArrowInvalid:
        return None
    return values if pc.all(pc.is_finite(values), min_count=0).as_py() else None


def encoded(column: pa.Array) -> pa.DictionaryArray:
    """Return a column of strings as a coded one."""
    return column if pa.types.is_dictionary(column.type) else column.dictionary_encode()


def codes_of(coded: pa.DictionaryArray, null: int) -> NDArray[np.int32]:
    """Return the place of each row's value among the distinct ones, `null` for a missing one."""
    indices = pc.fill_null(coded.indices, null) if coded.indices.null_count else coded.indices
    codes: NDArray[np.int32] = indices.to_numpy(zero_copy_only=False)
    return codes


def chunk(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Return a column in one piece."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
