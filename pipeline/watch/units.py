"""Whether the times of a new log can be right, or were written in another unit than those of training.

Such times are not malformed: seconds taken for milliseconds are all in January 1970. They lie years before
those of the test rows, and a thousand times as dense, which tells where a log counts from its own beginning.
Quartiles are compared rather than ends, since a few times may stand for an unknown one.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.metrics import Array
from pipeline.preprocess.timestamps import UNITS_PER_SECOND
from pipeline.scoring.units import APART, YEAR, factor
from pipeline.watch.drift import Check
from pipeline.watch.span import DAY, HOUR, Span

MOST_DENSE = 300.0  # rows of an hour to those of the test rows: below 1,000, since a log's nights are slow
UNITS = "seconds, milliseconds or microseconds"


def quartiles(times: Array) -> list[int]:
    """Return the times that a quarter, half and three quarters of the rows do not exceed."""
    return [int(time) for time in np.quantile(times, (0.25, 0.5, 0.75), method="lower")]


def misread(span: Span, reference: Mapping[str, Any]) -> tuple[list[Check], list[str]]:
    """Check the times of a log, and say of those that cannot be right what to look at.

    Args:
        span: of the log.
        reference: of the model; without times, there is nothing to check, and without `time_quartiles`, which
            earlier versions did not keep, not how dense they are.
    """
    times, ends = span.times, reference["times"]
    if ends is None or not len(times):
        return [], []
    known = reference.get("time_quartiles")
    own, test = quartiles(times), known or [ends[0], sum(ends) // 2, ends[1]]
    column, form = span.time
    checks, said = [_years(column, own[2], test[0])], ""
    if checks[0].alarm:
        here, there = _date(own[2]), _date(test[0])
        said = f"most of its times are of {here} or before, those of the test rows of {there} or after"
    if known and (dense := _dense(column, (own, span.rows), (test, reference["rows"]))):
        checks.append(dense)
        if dense.alarm and not said:
            said = f"the log has {dense.change:,.0f} times as many rows an hour as the test rows"
    read = f", which are read as {form}" if form in UNITS_PER_SECOND else ""
    look = f"Look at the unit of its times ({UNITS}){read}{_factor(own[1], test[1])}"
    return checks, [f"{column}: {said}. {look}"] if said else []


def _years(column: str, own: int, test: int) -> Check:
    """Check how many years most times lie before most of those of the test rows."""
    new, old = (1970 + time / YEAR for time in (own, test))
    return Check("year", column, old, new, old - new, APART / YEAR)


def _dense(column: str, own: tuple[list[int], int], test: tuple[list[int], int]) -> Check | None:
    """Check the rows of an hour between the quartiles; None where the log is too short to have any rate.

    One that has fewer rows than a day of the test rows may be a single burst, and dates alone have no hours.

    Args:
        own, test: the quartiles and the number of rows.
    """
    (low, _, high), rows = own
    (first, _, last), of = test
    if high == low or last == first or 2 * (last - first) * rows < DAY * of:
        return None
    new, old = rows / 2 / (high - low) * HOUR, of / 2 / (last - first) * HOUR
    return Check("density", column, old, new, new / old, MOST_DENSE)


def _factor(own: int, test: int) -> str:
    """Say by what the times, in whole seconds, are to be multiplied to be about those of the test rows."""
    found = factor(own, own, test, test)
    return f"; multiplied by {found:,} they would be about those of the test rows" if found else ""


def _date(time: int) -> str:
    return str(np.datetime64(time, "s").astype("datetime64[D]"))
