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


def screen(
    table: pa.Table, lines: Lines, file: str, rejects: RejectLog, rules: Mapping[str, Rule]
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
        reason = _broken(name, table[name][row].as_py(), rules[name][1]) if rejects.tells(file, line) else ""
        rejects.reject(file, line, reason)
    return keep(table, lines, broken < 0)


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


def _broken(name: str, value: str | None, meaning: str) -> str:
    return f"{name} is missing" if value is None else f"{name} {value[:80]!r} is not {meaning}"


def _each(column: pa.Array, test: Callable[[pa.Array], pa.Array]) -> NDArray[np.bool_]:
    """Apply a test to the distinct values; a missing value fails it."""
    coded = encoded(column)
    answers = pc.fill_null(test(coded.dictionary), False).to_numpy(zero_copy_only=False)
    passed: NDArray[np.bool_] = np.r_[answers, False][codes_of(coded, len(answers))]
    return passed
