"""Rows that repeat another one: copies in train and test would be a leak.

Rows are *alike* if all their fields, their group and their time are equal, and *copies* if their label is,
too. Other columns do not count, so a row number that is no field hides nothing. Not every copy is a mistake:
in a log of few fields without times most rows have one, being separate events that happen to be equal. Their
labels tell: of separate events they differ as chance has it, of copies they agree. `agreement` is the share
of the variance of labels that is between groups of rows alike (the intraclass correlation: Fisher,
"Statistical Methods for Research Workers", 1925): 1 for copies, and for separate events the share that the
best model could explain, hardly ever half in a click log.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.types as is_
from numpy.typing import NDArray

from pipeline.common.engine import map_ordered
from pipeline.common.permutation import mix
from pipeline.preprocess.parse import chunk, codes_of
from pipeline.schema import SPLITS

Policy = Literal["check", "keep", "drop", "together"]
DROPPED = len(SPLITS)  # the assignment of a row that goes to no split
Hashes = NDArray[np.uint64]
MANY = 0.2  # share of test rows with a copy in train from which on copies decide what a test says
AGREEMENT = 0.5  # from which on rows alike are copies and not separate events
EVIDENCE = 10  # disagreements expected of unrelated labels, below which their absence tells nothing
MISSING = 0x9E3779B97F4A7C15  # the hash of a missing value
ODD = 0xD1342543DE82EF95
PARTS = 16  # hashes are sorted by parts, which need less memory
ROWS_PER_CHUNK = 1 << 20  # that are looked up at a time


@dataclass(frozen=True)
class Repeats:
    """The rows that have a row alike.

    Attributes:
        rows: their numbers (R,), ascending.
        alike: equal for rows alike, (R,) from 0.
        label: (R,) 0 or 1.
    """

    rows: NDArray[np.int64]
    alike: NDArray[np.int64]
    label: NDArray[np.int64]

    @cached_property
    def first(self) -> NDArray[np.int64]:
        """The first row of which each is a copy (R,): itself, if it is the first."""
        _, index, inverse = np.unique(self._copy, return_index=True, return_inverse=True)
        first: NDArray[np.int64] = self.rows[index][inverse]
        return first

    @property
    def extra(self) -> NDArray[np.int64]:
        """The rows that are copies of an earlier one."""
        extra: NDArray[np.int64] = self.rows[self.first != self.rows]
        return extra

    @cached_property
    def agreement(self) -> float | None:
        """How much labels of rows alike agree, from 0 (as if unrelated; chance may take it below) to 1.

        None where too few rows are alike, or too few of them are clicks, to say.
        """
        size = np.bincount(self.alike).astype(np.float64)
        clicks = np.bincount(self.alike, weights=self.label)
        rate = clicks.sum() / max(size.sum(), 1)
        unrelated = size.sum() * 2 * rate * (1 - rate)  # rows expected to differ from another one alike
        differing = (2 * clicks * (size - clicks) / (size - 1)).sum()
        return float(1 - differing / unrelated) if unrelated >= EVIDENCE else None

    @property
    def are_copies(self) -> bool:
        """Whether rows alike are copies rather than separate events."""
        return self.agreement is not None and self.agreement > AGREEMENT

    def shared(self, assignment: NDArray[np.uint8], part: int) -> int:
        """Return how many rows of a split have a copy in train."""
        of_row = assignment[self.rows]
        in_train = np.zeros(int(self._copy.max(initial=-1)) + 1, bool)
        in_train[self._copy[of_row == 0]] = True
        return int(in_train[self._copy[of_row == part]].sum())

    @cached_property
    def _copy(self) -> NDArray[np.int64]:
        """Equal for copies (R,)."""
        return 2 * self.alike + self.label

    def report(self, assignment: NDArray[np.uint8]) -> dict[str, Any]:
        """Return what there is to tell: see `data.storage`."""
        return {
            "copies": len(self.extra),
            "dropped": int((assignment == DROPPED).sum()),
            "in_train": {SPLITS[part]: self.shared(assignment, part) for part in (1, 2)},
            "agreement": self.agreement,
        }


def of_log(tables: Iterable[pa.Table], extra: pa.Table) -> Repeats:
    """Return the rows of a log that have a row alike.

    Args:
        tables: its fields, block by block.
        extra: its further columns; `label`, `group` and `time` count.
    """
    hashes = hashes_of(tables)
    for name in ("group", "time"):
        if name in extra.column_names:
            hashes = with_column(hashes, extra[name])
    return find(hashes, extra["label"].to_numpy())


def remark(report: dict[str, Any]) -> str:
    """Return a report in words, to be added to a line; nothing if there are no copies."""
    if not report["copies"]:
        return ""
    done = "dropped" if report["dropped"] else f"{report['in_train']['test']} test rows have one in train"
    return f", {report['copies']} copies of earlier rows ({done})"


def find(hashes: Hashes, label: NDArray[Any]) -> Repeats:
    """Return the rows that have a row alike.

    Two of 40 million rows have the same hash by chance once in 20,000 logs.

    Args:
        hashes: of the rows without their labels, (N,).
        label: 0 or 1, (N,).
    """
    shared = map_ordered(partial(_shared, hashes), range(PARTS))
    known = np.concatenate(list(shared))
    starts = range(0, len(hashes) if len(known) else 0, ROWS_PER_CHUNK)
    found = list(map_ordered(partial(_places, hashes, known), starts))
    rows, alike = zip((np.empty(0, np.int64), np.empty(0, np.int64)), *found, strict=True)
    numbers = np.concatenate(rows)
    return Repeats(numbers, np.concatenate(alike), label[numbers].astype(np.int64))


def _shared(hashes: Hashes, part: int) -> Hashes:
    """Return the hashes of one of the `PARTS` that several rows have."""
    some = np.sort(hashes[hashes // np.uint64(2**64 // PARTS) == part])
    return np.unique(some[1:][some[1:] == some[:-1]])


def _places(hashes: Hashes, known: Hashes, start: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows from `start` on, ROWS_PER_CHUNK at most, that have a known hash, and its place."""
    some = hashes[start : start + ROWS_PER_CHUNK]
    place = np.minimum(np.searchsorted(known, some), len(known) - 1)
    found = np.flatnonzero(known[place] == some)
    return start + found, place[found]


def hashes_of(tables: Iterable[pa.Table]) -> Hashes:
    """Return a hash of each row (N,) of a table in blocks: the same for equal rows, however they are encoded.

    Numbers are equal if they are as floats, and a missing value equals another one.
    """
    return np.concatenate([np.empty(0, np.uint64), *map_ordered(_of_block, tables)])


def with_column(hashes: Hashes, column: pa.ChunkedArray | pa.Array) -> Hashes:
    """Return the hashes (N,) of rows with one more column."""
    mixed = hashes ^ _of_values(chunk(column))
    mixed *= np.uint64(ODD)  # one to one, and not the same in another order of columns
    return mixed


def _of_block(table: pa.Table) -> Hashes:
    hashes = np.zeros(len(table), np.uint64)
    for column in table.columns:
        hashes = with_column(hashes, column)
    return hashes


def _of_values(column: pa.Array) -> Hashes:
    if not is_.is_dictionary(column.type):
        numbers = column.to_numpy(zero_copy_only=False).astype(np.float64) + 0.0  # -0.0 is 0.0
        return np.where(np.isnan(numbers), np.uint64(MISSING), mix(numbers.view(np.uint64)))
    from pandas.util import hash_array  # not at the top: every stage imports this module by way of its params

    values = column.dictionary.to_numpy(zero_copy_only=False)
    of_values = np.append(hash_array(values, categorize=False), np.uint64(MISSING))
    return of_values[codes_of(column, len(values))]
