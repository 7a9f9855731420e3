"""Values of columns -> texts, numbers and bags, parsed once per distinct value where a column is coded.

A coded column is a dictionary array; a missing value is a missing index.
"""

from collections.abc import Callable, Collection
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as is_
from numpy.typing import NDArray

NUMBER = r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?"
FEW = 128  # values on which a call of Arrow costs more than its work, as in a request of one row


def kind(type_: pa.DataType) -> str:
    """Return what an Arrow type contains: text, flag, number, time, list, nothing or something else."""
    if is_.is_dictionary(type_):
        return kind(type_.value_type)
    tests: dict[str, tuple[Callable[[pa.DataType], bool], ...]] = {
        "text": (is_.is_string, is_.is_large_string, is_.is_string_view, is_.is_time),
        "flag": (is_.is_boolean,),
        "number": (is_.is_integer, is_.is_floating, is_.is_decimal, is_.is_duration),
        "time": (is_.is_timestamp, is_.is_date),
        "nothing": (is_.is_null,),
    }
    for name, those in tests.items():
        if any(test(type_) for test in those):
            return name
    if is_list(type_) and kind(type_.value_type) not in ("list", "something else"):
        return "list"
    return "something else"


def usable(type_: pa.DataType, use: str) -> bool:
    """Whether a column of an Arrow type can be used as a category, number, bag, timestamp or vector."""
    if use == "vector":
        return is_list(type_) and (is_.is_floating(type_.value_type) or is_.is_integer(type_.value_type))
    kinds = {
        "category": ("text", "flag", "number", "time", "nothing"),
        "number": ("text", "flag", "number", "nothing"),
        "timestamp": ("text", "number", "time", "nothing"),
        "bag": ("text", "flag", "number", "time", "nothing", "list"),
    }
    return kind(type_) in kinds[use]


def texts(column: pa.Array, missing: Collection[str] = (), decimal: str = ".") -> pa.DictionaryArray:
    """Return the values as trimmed texts, dictionary-encoded; a whole number without its zero decimals.

    `12.0` is `12` in a text as in a column of floats, since it is chance which of them a file has: one
    missing value turns a whole column of integers into floats.

    Args:
        missing: texts that stand for a missing value.
        decimal: the character before the decimals of a number in a text.
    """
    if is_.is_dictionary(column.type) and len(column.dictionary) > len(column):
        column = column.dictionary_decode()  # the dictionary is that of a whole file
    coded = encoded(pc.cast(column, pa.float32()) if is_.is_float16(column.type) else column)
    gone = _with_whole(frozenset(missing), decimal)
    if is_.is_string(coded.type.value_type):
        few = few_plain(coded.dictionary, f"{decimal}0")
        if few is not None and (None in few or not gone.isdisjoint(few)):
            return recode(coded, lambda _: pa.array([None if t in gone else t for t in few], pa.string()))
        if few is not None or _is_clean(coded.dictionary, gone, decimal):
            if coded.indices.type == pa.int32():
                return coded
            return pa.DictionaryArray.from_arrays(pc.cast(coded.indices, pa.int32()), coded.dictionary)
    return recode(coded, lambda values: trimmed(whole(trimmed(as_text(values), ()), decimal), gone))


def numbers(
    column: pa.Array, missing: Collection[str] = (), decimal: str = "."
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the values as numbers, NaN where one is missing, and a mask of the malformed ones.

    In texts, white space around a number does not count, and a blank one is missing. `nan`, `inf` and
    `infinity`, in any case, are numbers; one that is too large is infinite.

    Args:
        missing: texts that stand for a missing value.
        decimal: the character before the decimals of a text.
    """
    if is_.is_dictionary(column.type):
        values, malformed = numbers(column.dictionary, missing, decimal)
        codes = codes_of(column, len(values))
        return np.append(values, np.nan)[codes], np.append(malformed, False)[codes]
    if kind(column.type) in ("text", "nothing"):
        text = trimmed(pc.cast(column, pa.string()), {"", *missing})
        return _parsed(text if decimal == "." else pc.replace_substring(text, decimal, "."))
    values = _floats(column)
    for mark in _marks(frozenset(missing)):
        values = np.where(values == mark, np.nan, values)
    return values, np.zeros(len(values), bool)


def bags(column: pa.Array, separator: str, missing: Collection[str] = ()) -> pa.DictionaryArray:
    """Return bags (lists, or texts with a separator) as texts with a separator between their values.

    A text in square brackets, as Python and JSON write a list, loses brackets and quotes.

    Args:
        separator: that of a column of texts; a list is joined by it.
        missing: texts that stand for a missing value, alone or in a list.
    """
    if not is_list(column.type):
        coded = texts(column, missing)
        if few_plain(coded.dictionary, "[", ".0") is not None:  # none has what is changed below
            return coded
        return recode(coded, lambda values: _whole_parts(_unbracketed(values), separator))
    column = pc.cast(column, pa.list_(column.type.value_type))
    values = recode(texts(column.values, missing), lambda v: pc.replace_substring(v, separator, " "))
    lists = pa.ListArray.from_arrays(column.offsets, pc.fill_null(values.dictionary_decode(), ""))
    joined = pc.binary_join(lists, separator)
    return encoded(pc.if_else(column.is_valid(), joined, pa.scalar(None, pa.string())))


def as_text(values: pa.Array) -> pa.Array:
    """Return values of any usable type as texts: 12.0 as `12`, times in UTC, NaN as missing."""
    if is_.is_string(values.type):
        return values
    if is_.is_float16(values.type):
        values = pc.cast(values, pa.float32())  # Arrow computes nothing with halves
    if is_.is_floating(values.type):
        whole = pc.and_(pc.equal(pc.floor(values), values), pc.less(pc.abs(values), 2.0**53))
        integers = pc.cast(pc.if_else(whole, values, 0.0), pa.int64())
        found = pc.if_else(whole, pc.cast(integers, pa.string()), pc.cast(values, pa.string()))
        return pc.if_else(pc.is_nan(values), pa.scalar(None, pa.string()), found)
    if is_.is_duration(values.type):
        return as_text(pa.array(_floats(values), from_pandas=True))
    if is_.is_timestamp(values.type):
        values = pc.cast(pc.cast(values, pa.int64()), pa.timestamp(values.type.unit))  # in UTC
    found = pc.cast(values, pa.string())
    if is_.is_decimal(values.type) or is_.is_timestamp(values.type) or is_.is_time(values.type):
        return pc.replace_substring_regex(found, r"\.0+$", "")
    return found


def trimmed(values: pa.StringArray, missing: Collection[str]) -> pa.StringArray:
    """Return texts without the white space around them, null where they stand for a missing value."""
    text = pc.utf8_trim_whitespace(values)
    if not missing:
        return text
    absent = pc.is_in(text, pa.array(sorted(missing), pa.string()))
    return pc.if_else(absent, pa.scalar(None, pa.string()), text)


def whole(values: pa.StringArray, decimal: str = ".") -> pa.StringArray:
    """Return trimmed texts, whole numbers among them without zero decimals: `12.0` as `12`."""
    if not pc.any(pc.match_substring(values, f"{decimal}0")).as_py():
        return values
    return pc.replace_substring_regex(values, rf"^([+-]?[0-9]+)\{decimal}0+$", r"\1")


def recode(column: pa.Array, change: Callable[[pa.Array], pa.Array]) -> pa.DictionaryArray:
    """Apply a function of strings to the distinct values; where it gives null, the rows are missing."""
    coded = encoded(column)
    changed = change(coded.dictionary)
    changed = (changed if is_.is_string(changed.type) else pc.cast(changed, pa.string())).dictionary_encode()
    return pa.DictionaryArray.from_arrays(changed.indices.take(coded.indices), changed.dictionary)


def encoded(column: pa.Array) -> pa.DictionaryArray:
    """Return a column dictionary-encoded."""
    return column if is_.is_dictionary(column.type) else column.dictionary_encode()


def filled(values: pa.DictionaryArray) -> pa.DictionaryArray:
    """Return texts in which a missing value is an empty one."""
    if not values.null_count:
        return values
    dictionary = pa.concat_arrays([values.dictionary, pa.array([""])])
    indices = pc.fill_null(values.indices, len(values.dictionary))
    return recode(pa.DictionaryArray.from_arrays(indices, dictionary), lambda texts: texts)


def grades(values: NDArray[np.float64], *cuts: float) -> pa.UInt8Array:
    """Return how many of the cuts each value is above: an ordered grade, 0 to the number of cuts.

    Args:
        values: the amounts that the label is a threshold of; where one is missing, the grade is 0.
    """
    return pa.array(np.searchsorted(sorted(set(cuts)), np.nan_to_num(values, nan=-np.inf)).astype(np.uint8))


def codes_of(coded: pa.DictionaryArray, null: int) -> NDArray[np.int32]:
    """Return each row's index into the dictionary, `null` for a missing value."""
    indices = pc.fill_null(coded.indices, null) if coded.indices.null_count else coded.indices
    codes: NDArray[np.int32] = indices.to_numpy(zero_copy_only=False)
    return codes


def chunk(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Return a column in one chunk."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def is_list(type_: pa.DataType) -> bool:
    """Whether an Arrow type is one of lists."""
    tests = (is_.is_list, is_.is_large_list, is_.is_fixed_size_list, is_.is_list_view, is_.is_large_list_view)
    return any(test(type_) for test in tests)


def few_plain(values: pa.Array, *signs: str) -> list[str | None] | None:
    """Return a few texts of visible ASCII, without blanks around them and without these signs; or None.

    On those, and on no others, Python's string methods do what Arrow's functions do, without a call's cost.
    """
    if len(values) > FEW:
        return None
    found: list[str | None] = values.to_pylist()
    for text in found:
        if text and not (text.isascii() and text.isprintable() and text == text.strip()):
            return None
        if text and any(sign in text for sign in signs):
            return None
    return found


@cache
def _with_whole(missing: frozenset[str], decimal: str) -> frozenset[str]:
    """Return the texts that stand for a missing value, and what `whole` makes of them."""
    return missing.union(whole(pa.array(sorted(missing), pa.string()), decimal).to_pylist())


def _is_clean(values: pa.Array, missing: Collection[str], decimal: str) -> bool:
    """Whether `trimmed` and `whole` would change nothing."""
    absent = pc.is_in(values, pa.array(sorted(missing), pa.string()))
    if values.null_count or pc.any(absent).as_py():
        return False
    return bool(values.equals(pc.utf8_trim_whitespace(values)) and values.equals(whole(values, decimal)))


@cache
def _marks(missing: frozenset[str]) -> list[float]:
    """Return the numbers among the texts that stand for a missing value; NaN is one anyway."""
    marks, malformed = numbers(pa.array(sorted(missing), pa.string()))
    return [float(mark) for mark in marks[~malformed] if not np.isnan(mark)]


def _parsed(text: pa.StringArray) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the numbers in trimmed texts (NaN: missing), and a mask of the malformed ones."""
    try:
        values = pc.cast(text, pa.float64())
        if pc.all(pc.is_finite(values), min_count=0).as_py():  # Arrow takes `nan(...)`, which is malformed
            return pc.fill_null(values, np.nan).to_numpy(zero_copy_only=False), np.zeros(len(text), bool)
    except pa.ArrowInvalid:
        pass
    fine = pc.match_substring_regex(text, rf"^(?i:{NUMBER}|[+-]?(nan|inf|infinity))$")
    unsigned = pc.replace_substring_regex(pc.utf8_lower(text), r"^\+", "")
    values = pc.cast(pc.if_else(fine, unsigned, pa.scalar(None, pa.string())), pa.float64())
    malformed = pc.fill_null(pc.invert(fine), False).to_numpy(zero_copy_only=False)
    return pc.fill_null(values, np.nan).to_numpy(zero_copy_only=False), malformed


def _floats(column: pa.Array) -> NDArray[np.float64]:
    """Return numbers, flags, and the seconds of durations (null: NaN)."""
    units_per_second = 1.0
    if is_.is_duration(column.type):
        units_per_second = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}[column.type.unit]
        column = pc.cast(column, pa.int64())
    values = column if is_.is_float64(column.type) else pc.cast(column, pa.float64(), safe=False)
    counted = values.to_numpy(zero_copy_only=False)  # null: NaN
    return np.asarray(counted if units_per_second == 1 else counted / units_per_second)


def _unbracketed(values: pa.Array) -> pa.Array:
    listed = pc.starts_with(values, "[")
    if not pc.any(listed).as_py():
        return values
    listed = pc.and_(listed, pc.ends_with(values, "]"))
    if not pc.any(listed).as_py():
        return values
    inner = pc.utf8_slice_codeunits(values, 1, -1)
    inner = pc.replace_substring_regex(inner, r"""^\s*["']|["']\s*$|(["'])?(\s*,\s*)(["'])?""", r"\2")
    return pc.if_else(listed, inner, values)


def _whole_parts(values: pa.Array, separator: str) -> pa.Array:
    """Return texts of values between separators, each as `whole` writes it."""
    if not pc.any(pc.match_substring(values, ".0")).as_py():
        return values
    bags = pc.split_pattern(values, separator)
    parts = pc.utf8_trim_whitespace(bags.values)
    made = pc.binary_join(pa.ListArray.from_arrays(bags.offsets, whole(parts)), separator)
    return pc.if_else(values.is_valid(), made, values)
