"""The time that a log spans, and the fields of time that it cannot be compared by.

A log of one day has one weekday: that its weekdays are not those of the test rows says nothing. Neither do
hours if the test rows begin at noon and end at midnight of the next day, and have each afternoon hour twice.
"""

from collections import Counter
from collections.abc import Sequence
from typing import get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.datasets.tabular import Plan
from pipeline.metrics import Array
from pipeline.preprocess.parse import chunk
from pipeline.preprocess.timestamps import DatePart, date_part, offset_seconds, seconds
from pipeline.watch.drift import index

HOUR, DAY = 3600, 86400
UNEVEN = 0.02  # PSI that two spans alone give to a field: a fifth of what usually counts as a change
NEVER = 1e-6  # share of a value that does not occur
CYCLES: dict[DatePart, tuple[int, int, str]] = {  # seconds of a step, steps of a cycle, its name
    "hour": (HOUR, 24, "a day"),
    "weekday": (DAY, 7, "a week"),
    "weekend": (DAY, 7, "a week"),
    "day": (DAY, 31, "a month"),
    "month": (DAY, 365, "a year"),
}


MOST = 2**20  # times that are kept of a log, evenly spread over its rows


class Span:
    """The ends of each column of times in a log, and the times of its rows, told block by block.

    Attributes:
        rows: how many of the log's rows have a time.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._ends: dict[str, list[int]] = {}
        self.rows, self._step, self._times = 0, 1, np.empty(0, np.int64)
        self._formats = {
            field.source: field.format or "iso" for field in plan.fields.values() if field.type == "timestamp"
        }
        if plan.time is not None:
            self._formats[plan.time.column] = plan.time_format

    def add(self, block: pa.Table) -> None:
        """Take note of the times of raw rows; malformed ones do not count."""
        for column, form in self._formats.items():
            if column not in block.column_names:
                continue
            times, _ = seconds(chunk(block[column]), form, self._plan.missing)
            if self._plan.time is not None and column == self._plan.time.column:
                self._sample(times.drop_null().to_numpy())
            ends = pc.min_max(times)
            if ends["min"].is_valid:
                low, high = ends["min"].as_py(), ends["max"].as_py()
                old = self._ends.get(column, [low, high])
                self._ends[column] = [min(low, old[0]), max(high, old[1])]

    def _sample(self, times: Array) -> None:
        """Keep each of the times, then each second, fourth, ..., so that a log may have any length."""
        kept = times[-self.rows % self._step :: self._step]
        self.rows += len(times)
        self._times = np.concatenate([self._times, kept])
        while len(self._times) > MOST:
            self._times, self._step = self._times[::2], 2 * self._step

    @property
    def time(self) -> tuple[str, str]:
        """The column of the times of rows, and its format; of a log that has one."""
        assert self._plan.time is not None
        return self._plan.time.column, self._plan.time_format

    @property
    def times(self) -> Array:
        """The times of the rows (n,), of a long log of some of them; empty where they have none."""
        return self._times

    def uncovered(self, reference: Sequence[int] | None) -> dict[str, str]:
        """Return the fields of time whose cycle the log, or the test rows, do not cover evenly, and why.

        They are the parts of timestamps, and categories that are called as one in a log with times.

        Args:
            reference: first and last time of the test rows, if they have any.
        """
        found: dict[str, str] = {}
        for name, (part, column, offset) in self._fields().items():
            step, steps, cycle = CYCLES[part]
            for what, ends in (("new log spans", self._ends.get(column)), ("test rows span", reference)):
                if ends is not None and _steps(ends, step, offset) < steps:
                    found.setdefault(name, f"the {what} {_words(ends)}, less than {cycle}")
            own = self._ends.get(column)
            if name in found or own is None or reference is None:
                continue
            one, other = (_shares(ends, part, offset) for ends in (own, reference))
            values = sorted(one.keys() | other.keys())
            p, q = (np.array([side.get(value, NEVER) for value in values]) for side in (one, other))
            if index(p, q) > UNEVEN:
                spans = f"the new log spans {_words(own)}, the test rows {_words(reference)}"
                found[name] = f"{spans}: too few for what is more than whole cycles ({cycle}) not to count"
        return found

    def _fields(self) -> dict[str, tuple[DatePart, str, int]]:
        """Return part, column and offset of each field of time."""
        made: dict[str, tuple[DatePart, str, int]] = {}
        for name, field in self._plan.fields.items():
            if field.type == "timestamp":
                offset = offset_seconds(field.utc_offset or "+00:00")
                made |= {new: (part, field.source, offset) for new, part in field.date_parts(name).items()}
            elif field.type == "category" and self._plan.time is not None:
                for part in get_args(DatePart):
                    if name == part:
                        made[name] = (part, self._plan.time.column, 0)
        return made


def _steps(ends: Sequence[int], step: int, offset: int) -> int:
    first, last = (int(np.floor_divide(end + offset, step)) for end in ends)
    return last - first + 1


def _shares(ends: Sequence[int], part: DatePart, offset: int) -> dict[str, float]:
    """Return which share of the seconds of a span each value of a field of time has."""
    step = CYCLES[part][0]
    first, last = ends[0] + offset, ends[1] + offset + 1
    starts = np.arange(first // step, (last - 1) // step + 1) * step
    length = np.minimum(starts + step, last) - np.maximum(starts, first)
    total = Counter[str]()
    for value, its in zip(date_part(pa.array(starts), part).to_pylist(), length.tolist(), strict=True):
        total[value] += its
    return {value: its / (last - first) for value, its in total.items()}


def _words(ends: Sequence[int]) -> str:
    hours = (ends[1] - ends[0]) / HOUR
    return f"{hours:.1f} hours" if hours < 48 else f"{hours / 24:.1f} days"
