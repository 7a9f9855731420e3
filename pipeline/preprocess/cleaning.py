"""Row-wise cleaning: rejecting rows, keeping rows, comparing and removing values.

A value is tested once per distinct value and block, not once per row, where its column is coded.
"""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.preprocess.parse import as_text, chunk, codes_of, encoded, recode
from pipeline.preprocess.rejects import RejectLog
from pipeline.preprocess.units import Lines

Rule = tuple[str, str]  # a regular expression for the whole value, and what it should be, in words
ID: Rule = (r"[0-9]{1,18}", "a whole number")
FILLED: Rule = (".+", "filled in")


def screen(
    table: pa.Table, lines: Lines, file: str, rejects: RejectLog, rules: Mapping[str, Rule]
) -> tuple[pa.Table, Lines]:
    """Reject the rows that break a rule; return the others, with their lines.

    Args:
        rules: column -> rule.
    """
    good = np.ones(len(table), bool)
    for name, (pattern, meaning) in rules.items():
        matches = _each(chunk(table[name]), partial(pc.match_substring_regex, pattern=f"^(?:{pattern})$"))
        reject(table, lines, file, rejects, good & ~matches, name, f"is not {meaning}")
        good &= matches
    return keep(table, lines, good)


def reject(
    table: pa.Table,
    lines: Lines,
    file: str,
    rejects: RejectLog,
    bad: NDArray[np.bool_],
    column: str,
    reason: str,
    *,
    if_missing: str = "is missing",
) -> None:
    """Reject the rows of a mask with the value that they have in a column; they stay in the table.

    Args:
        bad: the rows to reject, (rows,).
        reason: what is wrong with the value, as in `is not a number`.
        if_missing: the reason for a missing value.
    """
    for row in np.flatnonzero(bad).tolist():
        line, text = int(lines[row]), ""
        if rejects.would_show(file, line):  # the others are only counted
            value = shown(table[column], row)
            text = f"{column} {if_missing}" if value is None else f"{column} {value!r} {reason}"
        rejects.reject(file, line, text)


def shown(column: pa.ChunkedArray, row: int) -> str | None:
    """Return the beginning of a value as text, for a message; None if it is missing."""
    value = chunk(column.slice(row, 1))
    text = as_text(value.dictionary_decode() if pa.types.is_dictionary(value.type) else value)[0].as_py()
    return None if text is None else str(text)[:80]


def keep(table: pa.Table, lines: Lines, good: NDArray[np.bool_]) -> tuple[pa.Table, Lines]:
    """Return the rows that are good, with their lines."""
    return (table, lines) if good.all() else (table.filter(pa.array(good)), lines[good])


def equals(column: pa.Array, *values: str) -> NDArray[np.bool_]:
    """Whether each row holds one of the values (a missing one does not)."""
    return _each(column, lambda distinct: pc.is_in(distinct, pa.array(values, pa.string())))


def missing(column: pa.Array, *texts: str) -> pa.DictionaryArray:
    """Turn the given values into missing ones."""
    gone = pa.array(texts, pa.string())
    return recode(
        column, lambda values: pc.if_else(pc.is_in(values, gone), pa.scalar(None, pa.string()), values)
    )


def _each(column: pa.Array, test: Callable[[pa.Array], pa.Array]) -> NDArray[np.bool_]:
    """Apply a test to the distinct values; a missing value fails it."""
    coded = encoded(column)
    answers = pc.fill_null(test(coded.dictionary), False).to_numpy(zero_copy_only=False)
    passed: NDArray[np.bool_] = np.r_[answers, False][codes_of(coded, len(answers))]
    return passed
