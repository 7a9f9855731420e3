"""Row-wise cleaning of columns of strings, on their distinct values where they are dictionary-encoded.

A coded column is a dictionary array without missing values among its distinct ones; a missing value is
a missing index. What is done to a value is done once per distinct value and block, not once per row.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.ledger import Ledger
from pipeline.records import Dialect, Lines, records

Rule = tuple[str, str]  # a pattern for the whole value, and what it should be, in words
NUMBER = r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?"


def screen(
    table: pa.Table, lines: Lines, file: str, ledger: Ledger, rules: Mapping[str, Rule]
) -> tuple[pa.Table, Lines]:
    """Refuse the rows in which a column does not match its pattern as a whole.

    Args:
        rules: column -> (regular expression, what it should be, in words).
    """
    broken = np.full(len(table), -1)  # the first rule that each row breaks
    for rule, (name, (pattern, _)) in enumerate(rules.items()):
        test = partial(pc.match_substring_regex, pattern=f"^(?:{pattern})$")
        broken[(broken < 0) & ~_each(chunk(table[name]), test)] = rule
    names = list(rules)
    for row in np.flatnonzero(broken >= 0).tolist():
        name, line = names[broken[row]], int(lines[row])
        reason = _broken(name, table[name][row].as_py(), rules[name][1]) if ledger.tells(file, line) else ""
        ledger.reject(file, line, reason)
    return keep(table, lines, broken < 0)


def side_table(
    path: Path,
    names: Sequence[str],
    rules: Mapping[str, Rule],
    ledger: Ledger,
    dialect: Dialect,
    *,
    header: bool = False,
    only: Collection[str] | None = None,
) -> pa.Table:
    """Read a side table in one piece, without the rows that break a rule."""
    blocks = records(path, names, ledger, dialect, header=header, only=only, log=False)
    parts = [screen(table, lines, path.name, ledger, rules)[0] for table, lines in blocks]
    return pa.concat_tables(parts).unify_dictionaries().combine_chunks()


def keep(table: pa.Table, lines: Lines, good: NDArray[np.bool_]) -> tuple[pa.Table, Lines]:
    """Return the rows that are good, with their lines."""
    return (table, lines) if good.all() else (table.filter(pa.array(good)), lines[good])


def equals(column: pa.Array, *values: str) -> NDArray[np.bool_]:
    """Whether each row holds one of the values (a missing one does not)."""
    return _each(column, lambda distinct: pc.is_in(distinct, pa.array(values, pa.string())))


def recode(column: pa.Array, change: Callable[[pa.Array], pa.Array]) -> pa.DictionaryArray:
    """Apply a function of strings to the distinct values; where it gives null the row is missing."""
    coded = encoded(column)
    changed = pc.cast(change(coded.dictionary), pa.string()).dictionary_encode()
    return pa.DictionaryArray.from_arrays(changed.indices.take(coded.indices), changed.dictionary)


def missing(column: pa.Array, *texts: str) -> pa.DictionaryArray:
    """Make the given values missing."""
    gone = pa.array(texts, pa.string())
    return recode(
        column, lambda values: pc.if_else(pc.is_in(values, gone), pa.scalar(None, pa.string()), values)
    )


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


class Side:
    """A side table, joined by the strings in its first column; of a repeated key the first row counts."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table.combine_chunks()
        self.key = table.column_names[0]

    @cached_property
    def _keys(self) -> pa.Array:
        return pc.cast(chunk(self._table[self.key]), pa.string())

    @cached_property
    def _columns(self) -> dict[str, pa.Array]:
        columns = {name: chunk(self._table[name]) for name in self._table.column_names[1:]}
        return {
            name: encoded(column) if _is_text(column.type) else column for name, column in columns.items()
        }

    def join(self, keys: pa.Array) -> dict[str, pa.Array]:
        """Return the key's column and the side's for every row; those of unknown keys are missing."""
        coded = encoded(keys)
        rows = pc.index_in(coded.dictionary, self._keys).take(coded.indices)
        joined: dict[str, pa.Array] = {self.key: coded}
        for name, column in self._columns.items():
            if pa.types.is_dictionary(column.type):
                indices = column.indices.take(rows)
                joined[name] = pa.DictionaryArray.from_arrays(indices, column.dictionary)
            else:
                joined[name] = column.take(rows)
        return joined


def _broken(name: str, value: str | None, meaning: str) -> str:
    return f"{name} is missing" if value is None else f"{name} {value[:80]!r} is not {meaning}"


def _each(column: pa.Array, test: Callable[[pa.Array], pa.Array]) -> NDArray[np.bool_]:
    """Apply a test to the distinct values; a missing value fails it."""
    coded = encoded(column)
    answers = pc.fill_null(test(coded.dictionary), False).to_numpy(zero_copy_only=False)
    passed: NDArray[np.bool_] = np.r_[answers, False][codes_of(coded, len(answers))]
    return passed


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_dictionary(kind))
