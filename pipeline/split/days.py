"""The rolling split: train up to a day, choose on the next one, test on the one after it."""

import re
from datetime import UTC, date, datetime

import numpy as np
from numpy.typing import NDArray

from pipeline.common.errors import PipelineError
from pipeline.common.ranges import Count
from pipeline.preprocess.timestamps import offset_seconds
from pipeline.schema import SPLITS
from pipeline.split.repeats import DROPPED

Day = Count | str | date
SECONDS_PER_DAY, SECONDS_PER_HOUR = 86_400, 3_600


def by_days(
    time: NDArray[np.int64], name: str, day: Day | None, train_days: int, utc_offset: str
) -> NDArray[np.uint8]:
    """Return the split of rows (N,) by their seconds since 1970 (N,); see `assign`.

    A day is complete if a row of a later day follows it, or one of its last hour.

    Raises:
        PipelineError: `day` or `utc_offset` is none, or a split has no rows.
    """
    try:
        offset = offset_seconds(utc_offset)
    except ValueError as error:
        raise PipelineError(f"data.{name}.split.utc_offset: {error}") from None
    local = time + offset
    days = local // SECONDS_PER_DAY
    if not len(days):
        raise PipelineError(f"{name}: split method 'days': the log has no rows")
    first, last = int(days.min()), int(days.max())
    if day is None:
        complete = int(local.max()) % SECONDS_PER_DAY >= SECONDS_PER_DAY - SECONDS_PER_HOUR
        end = last - 2 if complete else last - 3
    else:
        end = first + day - 1 if isinstance(day, int) else _number(name, day)
    assignment = np.full(len(days), DROPPED, np.uint8)
    assignment[(days <= end) & ((days > end - train_days) if train_days else True)] = 0
    assignment[days == end + 1] = 1
    assignment[days == end + 2] = 2
    for number, split in enumerate(SPLITS):
        if not (assignment == number).any():
            on = {"train": f"up to {_date(end)}"}.get(split, f"on {_date(end + number)}")
            raise PipelineError(
                f"{name}: split method 'days': the {split} split, rows {on}, is empty: the log has days from "
                f"{_date(first)} to {_date(last)}. Choose another `day`, the last one to train on, under "
                f"data.{name}.split"
            )
    return assignment


def _number(name: str, day: str | date) -> int:
    """Return the days since 1970."""
    text = str(day)
    if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
        try:
            return (date.fromisoformat(text) - date(1970, 1, 1)).days
        except ValueError:
            pass
    raise PipelineError(
        f"data.{name}.split.day: {text!r} is no day: write a date like 2026-11-28, or the number of a day of "
        "the log, the first being 1"
    )


def _date(day: int) -> str:
    try:
        return datetime.fromtimestamp(day * SECONDS_PER_DAY, UTC).date().isoformat()
    except (ValueError, OverflowError):  # in a log whose times are no seconds since 1970
        return f"day {day}"
