"""Rows -> train, valid and test split.

The assignment depends on the order of the rows, the seed and integer arithmetic alone, so it is the same
on every machine and with every version of every library.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.common.errors import PipelineError
from pipeline.common.permutation import drawn, permutation
from pipeline.common.ranges import CountOrZero, Fraction, Seed
from pipeline.common.text import counted
from pipeline.schema import SPLITS
from pipeline.split.days import Day, by_days
from pipeline.split.repeats import DROPPED, MANY, Policy, Repeats

Part = Literal["train", "valid", "test"]
Assignment = NDArray[np.uint8]  # of each row, its place in SPLITS
TRAIN, VALID, TEST = range(3)
FEW = 10  # rows of a class, below which a figure of the split is one of chance
VALID_SHARE = 0.1
COLUMN_OF = {"time": "time", "days": "time", "user": "group"}  # by method, what it needs of the clean table


def assign(
    table: pa.Table,
    name: str = "dataset",
    repeats: Repeats | None = None,
    *,
    method: Literal["random", "time", "days", "user", "column"] = "random",
    seed: Seed = 1024,
    test: Fraction = 0.2,
    valid: Fraction | None = None,
    column: str | None = None,
    values: dict[str | CountOrZero, Part | None] | None = None,
    day: Day | None = None,
    train_days: CountOrZero = 0,
    utc_offset: str = "+00:00",
    repeated: Policy = "check",
) -> Assignment:
    """Return the split of every row (N,): 0 train, 1 valid, 2 test, 3 none of them.

    Args:
        table: column `label`, and what the method needs: `time`, `group` (codes from 0) or the given
            column.
        name: of the dataset, for messages.
        repeats: its rows that have a row alike.
        method: `random`: a seeded permutation; `time`: the oldest rows train, the newest test, ties
            in row order; `days`: train to the end of `day`, valid the day after it, test the day after that,
            whatever comes later is left out; `user`: all rows of a group go to one split, so the fractions
            are met only nearly; `column`: as that column specifies, with train, valid, test or 0, 1, 2.
        test: fraction of all rows; not of the methods `column` and `days`.
        valid: fraction of the rows that are not test (default: 0.1); not of the method `days`; of the method
            `column` it is drawn from the train rows where the column names no valid ones. Where `values`
            names some and no row has such a value, rows are drawn only if this is given.
        column: of the method `column`.
        values: what the values of the column stand for, where these are others: train, valid, test, or null
            for rows to leave out.
        day: of the method `days`: the last day to train on, a date (2026-11-28) or the number of a day of the
            log, the first being 1; without it the day that makes the last complete day the test day.
        train_days: of the method `days`: how many days to train on, up to that day (0: all).
        utc_offset: of the method `days`: the clock by which days begin, such as +08:00.
        repeated: what becomes of copies, rows that are equal in all fields, label, group and time. `check`:
            they are rows like others, but refused if more than 20 % of the test rows have a copy in train and
            rows alike agree in their labels as copies do (see `Repeats.agreement`); `keep`: never refused;
            `drop`: the first of each stays; `together`: they go to the split of the first, whatever the
            method says, and the fractions are those of the rows that are no copies.

    Raises:
        PipelineError: a column is missing or has invalid values, a split is empty (also if its rows, named by
            `values`, could be drawn) or has one class, or copies in train and test.
    """
    rule = method, seed, test, valid, column, values, (day, train_days, utc_offset)
    if repeats is not None and repeated in ("drop", "together"):
        distinct = np.ones(len(table), bool)
        distinct[repeats.extra] = False
        assignment = np.full(len(table), DROPPED, np.uint8)
        assignment[distinct] = _assigned(table.filter(pa.array(distinct)), name, *rule)
        if repeated == "together":
            assignment[repeats.rows] = assignment[repeats.first]
        return assignment
    assignment = _assigned(table, name, *rule)
    if repeats is not None and repeated == "check":
        _check_copies(assignment, repeats, name)
    return assignment


def _assigned(
    table: pa.Table,
    name: str,
    method: str,
    seed: int,
    test: float,
    valid: float | None,
    column: str | None,
    values: Mapping[str | int, Part | None] | None,
    days: tuple[Day | None, int, str],
) -> Assignment:
    rows, share = len(table), VALID_SHARE if valid is None else valid
    tests = int(rows * test + 0.5)
    valids = int((rows - tests) * share + 0.5)
    if method == "random":
        assignment = _in_order(drawn(rows, seed, [tests, tests + valids]), tests, valids, newest_last=False)
    elif method == "time":
        time = _required(table, name, "time").to_numpy()
        assignment = _in_order(np.argsort(time, kind="stable"), tests, valids, newest_last=True)
    elif method == "days":
        assignment = by_days(_required(table, name, "days").to_numpy(), name, *days)
    elif method == "user":
        assignment = _by_group(_required(table, name, "user"), seed, tests, valids)
    else:
        assignment = _by_column(_required(table, name, "column", column), str(column), name, values)
        _check_parts(assignment, str(column), name, values, drawn_valid=valid is not None)
        train = np.flatnonzero(assignment == TRAIN)
        if not (assignment == VALID).any():
            assignment[train[permutation(len(train), seed)[: int(len(train) * share + 0.5)]]] = VALID
    check_classes(assignment, table["label"].to_numpy(), name)
    return assignment


def train_rows(blocks: Iterable[pa.Array], assignment: Assignment) -> Iterator[pa.Array]:
    """Yield the train rows of a column, block by block."""
    start = 0
    for block in blocks:
        yield block.filter(pa.array(assignment[start : start + len(block)] == TRAIN))
        start += len(block)


def remark(rows: Mapping[str, int], method: str) -> str:
    """Return a warning if little is left to learn from; empty if not.

    Args:
        rows: of each split.
    """
    train = rows["train"]
    larger = [f"{split} ({rows[split]:,})" for split in SPLITS if rows[split] > train]
    if not larger:
        return ""
    cure = {
        "days": "raise `train_days`, or set it to 0 for all days",
        "column": "see its `values` and `valid`",
    }
    lower = "lower `test` and `valid`, which is a share of what is not test"
    return (
        f"fewer rows to train on ({train:,}) than in {' and '.join(larger)}: if that is not meant, "
        f"{cure.get(method, lower)} (`split`)"
    )


def scarce(report: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Return a warning for each split that has hardly a row of one class.

    Args:
        report: rows and clicks of each split.
    """
    what = {
        "train": "little can be learnt from them",
        "valid": "what is chosen by it is chosen by chance",
        "test": "what is measured on it is chance",
    }
    found = []
    for split in SPLITS:
        rows, clicks = report[split]["rows"], report[split]["clicks"]
        few, label = min((clicks, 1), (rows - clicks, 0))
        if few < FEW:
            of = f"{counted(few, 'row')} with label {label} of {rows:,}"
            found.append(f"the {split} split has {of}: {what[split]}")
    return found


def _check_copies(assignment: Assignment, repeats: Repeats, name: str) -> None:
    """Raise if copies of train rows decide what a test says."""
    tests, copied = int((assignment == TEST).sum()), repeats.shared(assignment, TEST)
    if repeats.are_copies and copied > MANY * tests:
        raise PipelineError(
            f"{name}: {copied:,} of {tests:,} test rows are copies of train rows (equal in fields, label, "
            "group and time, and their labels agree too well for separate events): the test would reward "
            f"what was learnt by heart. Set data.{name}.split.repeated in params.yaml to `drop` (the first "
            "of each stays), `together` (all copies go to one split) or `keep` (they are right)"
        )


def check_classes(assignment: Assignment, label: NDArray[Any], name: str) -> None:
    """Raise if nothing could be learnt from a split or measured on it.

    Raises:
        PipelineError: a split is empty, or all its rows have the same label.
    """
    for number, split in enumerate(SPLITS):
        labels = label[assignment == number]
        if not len(labels):
            cure = "lower `test` or `valid`" if split == "train" else f"raise `{split}`"
            raise PipelineError(
                f"{name}: the {split} split of {len(label)} rows is empty; {cure} under `split`"
            )
        if labels.min() == labels.max():
            raise PipelineError(
                f"{name}: all {len(labels)} rows of the {split} split have the label {labels[0]}: AUC "
                "needs both classes. Check the label rule under `preprocess`, or split in another way"
            )


def _in_order(order: NDArray[np.int64], tests: int, valids: int, *, newest_last: bool) -> Assignment:
    """Assign rows in the given order, or from its end: first test, then valid, then train."""
    if newest_last:
        order = order[::-1]
    assignment = np.zeros(len(order), np.uint8)
    assignment[order[:tests]] = TEST
    assignment[order[tests : tests + valids]] = VALID
    return assignment


def _by_group(group: pa.ChunkedArray, seed: int, tests: int, valids: int) -> Assignment:
    """Assign whole groups in random order: about `tests` rows to test, then `valids` to valid."""
    codes = group.to_numpy()
    sizes = np.bincount(codes)
    order = permutation(len(sizes), seed)
    reached = np.cumsum(sizes[order])
    first = _groups_for(reached, tests)
    second = first + _groups_for(reached[first:] - (reached[first - 1] if first else 0), valids)
    of_group = np.zeros(len(sizes), np.uint8)
    of_group[order[:first]] = TEST
    of_group[order[first:second]] = VALID
    assignment: Assignment = of_group[codes]
    return assignment


def _groups_for(reached: NDArray[np.int64], target: int) -> int:
    """Return how many groups, at least one, have a number of rows nearest to the target."""
    return int(np.abs(reached - target).argmin()) + 1 if len(reached) else 0


def _by_column(
    values: pa.ChunkedArray, column: str, name: str, means: Mapping[str | int, Part | None] | None
) -> Assignment:
    known, words = _known(means)
    text = pc.cast(values, pa.string())
    found = pc.index_in(text, pa.array(list(known), pa.string()))
    if found.null_count:
        row = int(pc.index(pc.is_null(found), True).as_py())
        raise PipelineError(
            f"{name}: the split column {column!r} contains {text[row].as_py()!r} in row {row}; {words}. Say "
            f"under data.{name}.split what its values stand for, such as `values: {{training: train, held: "
            "test}` (null leaves rows out)"
        )
    assignment: Assignment = np.array(list(known.values()), np.uint8)[found.to_numpy()]
    return assignment


def _known(means: Mapping[str | int, Part | None] | None) -> tuple[dict[str, int], str]:
    """Return what the values of a split column stand for, and in words which values there are."""
    if means is None:
        known = {text: number for number, split in enumerate(SPLITS) for text in (split, str(number))}
        return known, "expected train, valid, test or 0, 1, 2"
    known = {str(key): DROPPED if part is None else SPLITS.index(part) for key, part in means.items()}
    return known, f"`values` has {', '.join(known) or 'nothing'}"


def check_files(files: Collection[str], means: Mapping[str | int, Part | None] | None) -> None:
    """Raise if the split column is to have the files' names and the values that stand for parts are others.

    Args:
        files: their names.
        means: the key `values`.

    Raises:
        PipelineError: it names the key.
    """
    known, words = _known(means)
    wrong = []
    if unnamed := [file for file in files if file not in known]:
        wrong.append(
            f"split.values: does not say what {', '.join(map(repr, unnamed))} stands for ({words}): add it, "
            "such as `values: {a.csv: train, b.csv: test, c.csv: null}` (null leaves rows out)"
        )
    if means is not None and (gone := [value for value in known if value not in files]):
        wrong.append(
            f"split.values: {', '.join(map(repr, gone))} is no file of the log, which are "
            f"{', '.join(map(repr, files))}: put it there, or take it out of `values`"
        )
    if wrong:
        raise PipelineError("; ".join(wrong))


def _check_parts(
    assignment: Assignment,
    column: str,
    name: str,
    means: Mapping[str | int, Part | None] | None,
    *,
    drawn_valid: bool,
) -> None:
    """Raise if no row has a value of the split column that stands for a part, and it is not to be drawn."""
    for number, part in enumerate(SPLITS):
        if (assignment == number).any():
            continue
        named = [str(value) for value, its in (means or {}).items() if its == part]
        if part == "valid" and (drawn_valid or not named):
            continue
        where = f"data.{name}.split"
        told = f"{name}: the {part} split is empty: no row of {len(assignment)} has a value of the column "
        told += f"{column!r} that stands for {part}"
        if means is None:
            cure = f"expected {part} or {number}. Say under {where} what its values stand for, in `values`"
        elif named:
            cure = f"`values` says so of {', '.join(named)}. Look for these rows, or mend {where}.values"
        else:
            listed = ", ".join(f"{value}: {'null' if its is None else its}" for value, its in means.items())
            cure = f"`values` has {listed or 'nothing'}. Add to {where}.values what stands for it"
        draw = f"; with `valid: {VALID_SHARE}` under {where} they are drawn from the train rows"
        raise PipelineError(f"{told}; {cure}{draw if part == 'valid' else ''}")


def need_column(names: Collection[str], name: str, method: str, column: str | None) -> str:
    """Return the column that a method (but `random`) needs, one of those that a clean table has or will have.

    Args:
        names: of its columns.
        name: of the dataset, for messages.
        column: the key of this name.

    Raises:
        PipelineError: the table does not have it.
    """
    column = column if method == "column" else COLUMN_OF[method]
    if column is None:
        raise PipelineError(f"{name}: split method 'column' needs the key `column`")
    if method == "column" and column in ("label", "group", "time", "truth"):
        raise PipelineError(
            f"{name}: {column!r} cannot be the split column; choose one that contains train, valid, test"
        )
    if column not in names:
        hint = f"keep: [{column}]" if method == "column" else f"{column}: <its column>"
        raise PipelineError(
            f"{name}: split method {method!r} needs the column {column!r}, which this dataset does not have; "
            f"of a log of your own name it in params.yaml: data.{name}.preprocess.{hint}"
        )
    return column


def _required(table: pa.Table, name: str, method: str, column: str | None = None) -> pa.ChunkedArray:
    column = need_column(table.column_names, name, method, column)
    if method != "column" and table[column].null_count:
        raise PipelineError(f"{name}: split method {method!r}: column {column!r} has missing values")
    return table[column]
