"""Times in text -> seconds since 1970 (UTC), and their hour, weekday and other parts as categories.

A time format is one of

- `iso`: `2020-07-05`, `2020-07-05 00:08:23.438`, `2020-07-05T00:08:23+02:00`, also with slashes for dashes;
- `seconds` or `milliseconds` since 1970;
- a pattern of the directives in `_DIRECTIVES`, such as `%d.%m.%Y %H:%M`.

A time without an offset is in UTC. Fractions of a second are cut off. Parts are those of the clock in UTC, or
at another offset (`+08:00`) if one is given.

The patterns are matched here rather than by a library, since those accept what is malformed: Arrow's
`strptime` reads 31 April as 1 May and has no fractions, that of pandas reads second 61 and leading blanks
(and takes twice the time).
"""

import re
from collections.abc import Collection, Sequence
from datetime import datetime
from functools import cache
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as is_
from numpy.typing import NDArray

from pipeline.preprocess.parse import as_text, codes_of, kind, numbers, trimmed

DatePart = Literal["hour", "weekday", "day", "month", "weekend"]
DATE_PARTS: tuple[DatePart, ...] = get_args(DatePart)
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
UNITS_PER_SECOND = {"seconds": 1, "milliseconds": 1000}  # the formats that count since 1970
FIRST_SECOND, LAST_SECOND = -62135596800, 253402300799  # of the years 1 to 9999; others are malformed
OFFSET = "([+-])([01][0-9]|2[0-3]):?([0-5][0-9])"
_OFFSET = r"(?:Z|UTC|GMT|(?P<sign>[+-])(?P<zh>[0-9]{2})(?::?(?P<zm>[0-9]{2}))?)"
_DIRECTIVES = {
    "Y": "(?P<Y>[0-9]{4})",
    "y": "(?P<y>[0-9]{2})",  # 69 to 99 are 1969 to 1999
    "m": "(?P<m>[0-9]{1,2})",
    "b": "(?P<b>[A-Za-z]{3})",
    "B": "(?P<B>[A-Za-z]{3,9})",
    "d": "(?P<d>[0-9]{1,2})",
    "H": "(?P<H>[0-9]{1,2})",
    "I": "(?P<I>[0-9]{1,2})",
    "p": "(?P<p>[AaPp][Mm])",
    "M": "(?P<M>[0-9]{1,2})",
    "S": "(?P<S>[0-9]{1,2})",
    "f": "(?P<f>[0-9]{1,9})",
    "z": _OFFSET,
    "a": "[A-Za-z]+",  # the weekday follows from the date
    "A": "[A-Za-z]+",
}
_ABBREVIATIONS = {"F": "%Y-%m-%d", "T": "%H:%M:%S", "R": "%H:%M", "D": "%m/%d/%y"}
_ISO = (
    r"(?P<Y>[0-9]{4})[-/](?P<m>[0-9]{1,2})[-/](?P<d>[0-9]{1,2})"
    r"(?:[T ](?P<H>[0-9]{1,2})(?::(?P<M>[0-9]{2})(?::(?P<S>[0-9]{2})(?:[.,](?P<f>[0-9]+))?)?)?"
    rf" ?{_OFFSET}?)?"
)


def check_format(time_format: str) -> None:
    """Raise if this is no time format.

    Raises:
        ValueError: it says what is wrong.
    """
    if time_format != "iso" and time_format not in UNITS_PER_SECOND:
        _regex(time_format)


def seconds(
    column: pa.Array, time_format: str = "iso", missing: Collection[str] = ()
) -> tuple[pa.Int64Array, NDArray[np.bool_]]:
    """Return whole seconds since 1970, and a mask of the malformed values.

    Missing values (null, blank or one of `missing`) are null and not malformed; malformed ones are null too.

    Args:
        column: of any usable type, plain or dictionary-encoded; Arrow's times and dates need no format.
        time_format: see above.
        missing: texts that stand for a missing value.
    """
    if is_.is_dictionary(column.type):
        times, malformed = seconds(column.dictionary, time_format, missing)
        return times.take(column.indices), np.append(malformed, False)[codes_of(column, len(malformed))]
    if kind(column.type) == "time":
        present, times = column.is_valid(), _of_arrow(column)
    else:
        text = trimmed(as_text(column), {"", *missing})
        present, times = text.is_valid(), _of_text(text, time_format)
    return times, pc.and_(present, times.is_null()).to_numpy(zero_copy_only=False)


def written(moment: datetime, time_format: str) -> str | int:
    """Write a time in a format: the inverse of `seconds`."""
    if time_format in UNITS_PER_SECOND:
        return int(moment.timestamp()) * UNITS_PER_SECOND[time_format]
    return moment.strftime("%Y-%m-%d %H:%M:%S" if time_format == "iso" else time_format)


def offset_seconds(offset: str) -> int:
    """Return the seconds that a clock is ahead of UTC.

    Raises:
        ValueError: it is not written like +08:00.

    >>> offset_seconds("+08:00"), offset_seconds("-0330")
    (28800, -12600)
    """
    found = re.fullmatch(OFFSET, offset)
    if found is None:
        raise ValueError(f"the offset {offset!r} is not written like +08:00")
    return (-60 if found[1] == "-" else 60) * (60 * int(found[2]) + int(found[3]))


def may_be(texts: Sequence[str], time_format: str) -> bool:
    """Whether one of a few texts is written in a format, whether or not it is on the calendar; cheap."""
    if time_format in UNITS_PER_SECOND:
        return True
    regex = _compiled(time_format)
    return any(regex.fullmatch(text.strip()) for text in texts)


def date_part(times: pa.Int64Array, name: DatePart, offset: str = "+00:00") -> pa.DictionaryArray:
    """Return one part of times in seconds as a category; that of a missing time is missing.

    hour `0` to `23`, weekday `mon` to `sun`, day of the month `1` to `31`, month `jan` to `dec`,
    weekend `yes` or `no`.

    Args:
        offset: from UTC, of the clock and the calendar whose parts these are.
    """
    moments = pc.cast(pc.add(times, offset_seconds(offset)), pa.timestamp("s"))
    names: tuple[str, ...]
    match name:
        case "hour":
            codes, names = pc.hour(moments), tuple(map(str, range(24)))
        case "weekday":
            codes, names = pc.day_of_week(moments), WEEKDAYS
        case "weekend":
            codes, names = pc.greater_equal(pc.day_of_week(moments), 5), ("no", "yes")
        case "day":
            codes, names = pc.subtract(pc.day(moments), 1), tuple(map(str, range(1, 32)))
        case "month":
            codes, names = pc.subtract(pc.month(moments), 1), MONTHS
    return pa.DictionaryArray.from_arrays(pc.cast(codes, pa.int32()), pa.array(names))


@cache
def _compiled(time_format: str) -> re.Pattern[str]:
    return re.compile(_ISO if time_format == "iso" else _regex(time_format))


def _regex(time_format: str) -> str:
    """Return the regular expression of a pattern of directives; the groups are called as these."""
    regex, seen = "", set()
    expanded = re.sub("%([FTRD])", lambda match: _ABBREVIATIONS[match[1]], time_format)
    for piece in re.findall(r"%.?|[^%]+", expanded, re.DOTALL):
        directive = piece[1:]
        if not piece.startswith("%"):
            regex += re.escape(piece)
        elif directive == "%":
            regex += "%"
        elif directive not in _DIRECTIVES:
            known = " ".join(f"%{name}" for name in (*_DIRECTIVES, *_ABBREVIATIONS))
            raise ValueError(f"the format {expanded!r} has {piece!r}, which is none of {known}")
        elif directive in seen:
            raise ValueError(f"the format {expanded!r} has {piece!r} twice")
        else:
            regex += _DIRECTIVES[directive]
            seen |= {directive} - {"a", "A"}
    if not {"Y", "y"} & seen:
        raise ValueError(f"the format {expanded!r} is not iso, seconds or milliseconds, and has no year, %Y")
    if ("I" in seen) != ("p" in seen):
        raise ValueError(f"the format {expanded!r} has only one of %I (hour of 12) and %p (AM or PM)")
    return regex


def _of_arrow(column: pa.Array) -> pa.Int64Array:
    """Seconds of Arrow's timestamps and dates."""
    if is_.is_date(column.type):
        column = pc.cast(column, pa.timestamp("s"))
    units_per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[column.type.unit]
    return _floored(column.cast(pa.int64()), units_per_second)


def _of_text(text: pa.StringArray, time_format: str) -> pa.Int64Array:
    """Seconds of trimmed texts; null where a text is malformed or missing."""
    if time_format in UNITS_PER_SECOND:
        values, _ = numbers(text)
        counted = np.floor(np.where(np.isfinite(values), values, np.nan) / UNITS_PER_SECOND[time_format])
        good = (counted >= FIRST_SECOND) & (counted <= LAST_SECOND)
        return pa.array(np.where(good, counted, 0).astype(np.int64), mask=~good)
    if time_format != "iso":
        return _match(text, _regex(time_format))
    for type_ in (pa.timestamp("us"), pa.timestamp("us", "UTC")):
        try:  # Arrow is fast; it wants all of a column well-formed, and all or none with an offset
            return _floored(pc.cast(text, type_).cast(pa.int64()), 10**6)
        except pa.ArrowInvalid:
            pass
    return _match(text, _ISO)


def _floored(counted: pa.Int64Array, units_per_second: int) -> pa.Int64Array:
    """Whole seconds; null outside of the years 1 to 9999."""
    absent = counted.is_null().to_numpy(zero_copy_only=False)
    whole = pc.fill_null(counted, 0).to_numpy(zero_copy_only=False) // units_per_second
    return pa.array(whole, mask=absent | (whole < FIRST_SECOND) | (whole > LAST_SECOND))


def _match(text: pa.StringArray, regex: str) -> pa.Int64Array:
    """Seconds of the texts that a regular expression matches and that are on the calendar."""
    groups = pc.extract_regex(text, f"^(?:{regex})$")
    parts = {group.name: pc.fill_null(pc.struct_field(groups, group.name), "") for group in groups.type}

    def integers(name: str, default: int) -> NDArray[np.int64]:
        if name not in parts:
            return np.full(len(text), default)
        digits = pc.if_else(pc.equal(parts[name], ""), str(default), parts[name])
        return np.asarray(pc.cast(digits, pa.int64()).to_numpy(zero_copy_only=False))

    year = integers("Y", 0)
    if "y" in parts:
        short = integers("y", 0)
        year = np.where(short < 69, 2000, 1900) + short
    month = integers("m", 1)
    for name in ("b", "B"):
        if name in parts:
            letters = pc.utf8_lower(pc.utf8_slice_codeunits(parts[name], 0, 3))
            known = pc.index_in(letters, pa.array(MONTHS))
            month = pc.fill_null(known, -1).to_numpy(zero_copy_only=False) + 1
    day, hour, minute, second = integers("d", 1), integers("H", 0), integers("M", 0), integers("S", 0)
    if "I" in parts:
        twelve = integers("I", 0)
        afternoon = pc.equal(pc.utf8_lower(parts["p"]), "pm").to_numpy(zero_copy_only=False)
        hour = np.where((twelve >= 1) & (twelve <= 12), twelve % 12 + 12 * afternoon, 24)  # 24: malformed
    months = ((year - 1970) * 12 + month - 1).astype("datetime64[M]")
    days = months.astype("datetime64[D]") + (day - 1)
    good = groups.is_valid().to_numpy(zero_copy_only=False) & (year >= 1) & (month >= 1) & (month <= 12)
    good &= (day >= 1) & (days.astype("datetime64[M]") == months)
    good &= (hour < 24) & (minute < 60) & (second < 60)
    counted = days.astype(np.int64) * 86400 + hour * 3600 + minute * 60 + second
    if "sign" in parts:
        behind = pc.equal(parts["sign"], "-").to_numpy(zero_copy_only=False)
        counted -= np.where(behind, -1, 1) * (integers("zh", 0) * 3600 + integers("zm", 0) * 60)
    good &= (counted >= FIRST_SECOND) & (counted <= LAST_SECOND)
    return pa.array(counted, mask=~good)
