"""Rows -> train, valid, test.

The parts depend on the rows' order, the seed and integer arithmetic alone, so they stay the same on
every machine and with every version of every library.
"""

from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.common.errors import PipelineError
from pipeline.common.permutation import permutation
from pipeline.common.ranges import Fraction, Seed
from pipeline.schema import SPLITS

Parts = NDArray[np.uint8]
TRAIN, VALID, TEST = range(3)


def assign(
    table: pa.Table,
    name: str = "dataset",
    *,
    method: Literal["random", "time", "user", "column"] = "random",
    seed: Seed = 1024,
    test: Fraction = 0.2,
    valid: Fraction = 0.1,
    column: str | None = None,
) -> Parts:
    """Return the part of every row: 0 train, 1 valid, 2 test (N,).

    Args:
        table: column `label`, and what the method needs: `time`, `group` (codes from 0) or the given
            column.
        name: what to call the dataset in messages.
        method: `random`: a seeded permutation; `time`: the oldest rows train, the newest test, ties
            in row order; `user`: all rows of a group in one part, so counts are only nearly met;
            `column`: as `column` says, with train, valid, test or 0, 1, 2.
        test: fraction of all rows.
        valid: fraction of the rows that are not test.

    Raises:
        PipelineError: settings that make no sense, a missing column, an empty part, or a part with
            one class.
    """
    rows = len(table)
    tests = int(rows * test + 0.5)
    valids = int((rows - tests) * valid + 0.5)
    if method == "random":
        parts = _cut(permutation(rows, seed), tests, valids, newest_last=False)
    elif method == "time":
        time = _need(table, "time", name, "time").to_numpy()
        parts = _cut(np.argsort(time, kind="stable"), tests, valids, newest_last=True)
    elif method == "user":
        parts = _by_group(_need(table, "group", name, "user"), seed, tests, valids)
    else:
        parts = _given(_need(table, column, name, "column"), str(column), name)
    check(parts, table["label"].to_numpy(), name)
    return parts


def check(parts: Parts, label: NDArray[Any], name: str) -> None:
    """Refuse a split that nothing can be learnt from or measured on.

    Raises:
        PipelineError: a part is empty or its rows have one label.
    """
    for number, part in enumerate(SPLITS):
        labels = label[parts == number]
        if not len(labels):
            raise PipelineError(
                f"{name}: the {part} part of {len(label)} rows is empty; give it a larger share under split"
            )
        if labels.min() == labels.max():
            raise PipelineError(
                f"{name}: all {len(labels)} rows of the {part} part have the label {labels[0]}: AUC "
                "needs both classes. Check the label rule under preprocess, or split in another way"
            )


def _cut(order: NDArray[np.int64], tests: int, valids: int, *, newest_last: bool) -> Parts:
    """Hand out rows in the given order: test first, then valid (or the reverse, from the end)."""
    if newest_last:
        order = order[::-1]
    parts = np.zeros(len(order), np.uint8)
    parts[order[:tests]] = TEST
    parts[order[tests : tests + valids]] = VALID
    return parts


def _by_group(group: pa.ChunkedArray, seed: int, tests: int, valids: int) -> Parts:
    """Groups in random order: test until its count is met as nearly as can be, then valid, then train."""
    codes = group.to_numpy()
    sizes = np.bincount(codes)
    order = permutation(len(sizes), seed)
    reached = np.cumsum(sizes[order])
    first = _nearest(reached, tests)
    second = first + _nearest(reached[first:] - (reached[first - 1] if first else 0), valids)
    part = np.zeros(len(sizes), np.uint8)
    part[order[:first]] = TEST
    part[order[first:second]] = VALID
    parts: Parts = part[codes]
    return parts


def _nearest(reached: NDArray[np.int64], target: int) -> int:
    """How many groups to take (one at least) for their rows to come nearest to the target."""
    return int(np.abs(reached - target).argmin()) + 1 if len(reached) else 0


def _given(values: pa.ChunkedArray, column: str, name: str) -> Parts:
    known = {text: number for number, part in enumerate(SPLITS) for text in (part, str(number))}
    text = pc.cast(values, pa.string())
    found = pc.index_in(text, pa.array(list(known)))
    if found.null_count:
        row = int(pc.index(pc.is_null(found), True).as_py())
        raise PipelineError(
            f"{name}: split column {column!r} holds {text[row].as_py()!r} in row {row}; "
            "expected train, valid, test or 0, 1, 2"
        )
    parts: Parts = np.array(list(known.values()), np.uint8)[found.to_numpy()]
    return parts


def _need(table: pa.Table, column: str | None, name: str, method: str) -> pa.ChunkedArray:
    if column is None:
        raise PipelineError(f"{name}: split method 'column' needs the key `column`")
    if method == "column" and column in ("label", "group", "time", "truth"):
        raise PipelineError(f"{name}: split column {column!r} says nothing about parts; name another one")
    if column not in table.column_names:
        hint = f"keep: [{column}]" if method == "column" else f"{column}: <its column>"
        raise PipelineError(
            f"{name}: split method {method!r} needs the column {column!r}, which this dataset does not have; "
            f"of a log of your own name it in params.yaml: data.{name}.preprocess.{hint}"
        )
    if method != "column" and table[column].null_count:
        raise PipelineError(f"{name}: split method {method!r}: column {column!r} has missing values")
    return table[column]
