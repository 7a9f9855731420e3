"""What scored rows show by themselves of being written otherwise than those of training.

Such rows are scored without an error: a time in another unit is a time, and a list in other brackets a list
of values that nobody has seen.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from math import sqrt

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.preprocess.parse import chunk
from pipeline.preprocess.timestamps import seconds
from pipeline.scoring.model import Model
from pipeline.scoring.units import APART, factor

ROWS_PER_BLOCK = 1000  # whose times are looked at: a unit is that of a whole file
MORE = 0.25  # by which the share of unseen values is far above what is expected
USUAL = 0.25  # what is expected where the test rows are not known: above one half is far
NOISE = 3 * 0.5  # standard deviations of a share of one row


class Clock:
    """Whether rows have times in seconds where training had milliseconds; told block by block.

    The other way round they lie beyond the year 9999, and are rejected. An old log is no doubt, nor is that
    of tomorrow: the times must be years before those of the train rows, and beside them when multiplied.
    """

    def __init__(self, model: Model) -> None:
        self._factor: int | None = None
        trained = model.package.trained_on
        self._span = (trained["since"], trained["until"]) if "since" in trained else None
        self._column, self._format = model.reading.clock or ("", "")
        if self._format != "milliseconds":
            self._span = None
        self._missing = model.reading.plan.missing

    def add(self, block: pa.Table) -> None:
        """Look at the times of raw rows."""
        if self._span is None or self._factor:
            return
        some = chunk(block[self._column].slice(0, ROWS_PER_BLOCK))
        ends = pc.min_max(seconds(some, self._format, self._missing)[0])
        first, last = ends["min"].as_py(), ends["max"].as_py()
        if last is not None and last < self._span[0] - APART:
            self._factor = factor(first, last, *self._span)

    def words(self) -> str:
        """Return a warning; empty if there is no reason for one."""
        if self._span is None or self._factor is None:
            return ""
        since, until = (datetime.fromtimestamp(end, UTC).date() for end in self._span)
        return (
            f"warning: the times in {self._column!r}, read as {self._format} as in training, lie years "
            f"before the train rows ({since} to {until}), and near them in another unit: multiply them by "
            f"{self._factor:,}, and score again"
        )


def usual(model: Model) -> dict[str, float]:
    """Return the share of the test rows with an unseen value, by field, as far as the package knows it."""
    reference, schema = model.package.reference, model.package.schema
    if reference is None:
        return {}
    found = {}
    for field, counts in zip(schema.fields, reference["counts"], strict=True):
        share = counts[0] / max(sum(counts), 1)
        # each value of a bag counts there by its share of the row: this is that of rows, if bags are full
        found[field.name] = 1 - (1 - share) ** field.slots
    return found


def unseen(model: Model, rows: int, counts: Mapping[str, int]) -> list[str]:
    """Return the fields with far more unseen values than the test rows had.

    Args:
        counts: of the rows with such a value, by field.
    """
    known = usual(model)
    most = MORE + NOISE / sqrt(max(rows, 1))
    return [name for name, count in counts.items() if count > rows * (known.get(name, USUAL) + most)]


def words(model: Model, names: list[str]) -> str:
    """Return a line on the fields that `unseen` names; empty if there are none."""
    if not names:
        return ""
    than = "than in the test rows" if model.package.reference else "than one would expect"
    return (
        f"! far more unseen values {than}: {', '.join(names)}; are they written as in training (the same "
        "ids, separator and encoding, lists not as text)?"
    )
