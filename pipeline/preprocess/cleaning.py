"""Row-wise cleaning of columns of strings, on their distinct values where they are dictionary-encoded.

A coded column is a dictionary array without missing values among its distinct ones; a missing value is
a missing index. What is done to a value is done once per distinct value and block, not once per row.
"""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.preprocess.parse import chunk, codes_of, encoded, recode
from pipeline.preprocess.rejects import RejectLog
from pipeline.preprocess.text import Lines

Rule = tuple[str, str]  # a pattern for the whole value, and what it should be, in words
ID: Rule = (r"[0-9]{1,18}", "a whole number")
FILLED: Rule = (".+", "filled in")


def screen(
    table: pa.Table, lines: Lines, file: str, rejects: RejectLog, rules: Mapping[str, Rule]
) -> tuple[pa.Table, Lines]:
    """Refuse the rows in which a column does not match its pattern as a whole.

    Args:
        rules: column -> (regular expression, what it should be, in words).
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
) -> None:
    """Reject the rows of a mask with the value that they have in a column; they stay in the table.

    Args:
        bad: the rows to reject, (rows,).
        reason: what is wrong with the value, as in `is not a number`; a missing value `is missing`.
    """
    for row in np.flatnonzero(bad).tolist():
        line, text = int(lines[row]), ""
        if rejects.would_show(file, line):  # the others are only counted
            value = table[column][row].as_py()
            text = f"{column} is missing" if value is None else f"{column} {value[:80]!r} {reason}"
        rejects.reject(file, line, text)


def keep(table: pa.Table, lines: Lines, good: NDArray[np.bool_]) -> tuple[pa.Table, Lines]:
    """Return the rows that are good, with their lines."""
    return (table, lines) if good.all() else (table.filter(pa.array(good)), lines[good])


def equals(column: pa.Array, *values: str) -> NDArray[np.bool_]:
    """Whether each row holds one of the values (a missing one does not)."""
    return _each(column, lambda distinct: pc.is_in(distinct, pa.array(values, pa.string())))


def missing(column: pa.Array, *texts: str) -> pa.DictionaryArray:
    """Make the given values missing."""
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
