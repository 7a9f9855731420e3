"""Times in text -> seconds since 1970 (UTC), and their hour, weekday and other parts as categories.

A format is `iso` (`2020-07-05`, `2020-07-05 00:08:23.438`, `2020-07-05T00:08:23+02:00`; slashes may stand
for the dashes), `seconds` or `milliseconds` since 1970, or a pattern of the directives below, such as
`%d.%m.%Y %H:%M`. A time without an offset counts as UTC. Fractions of a second are cut off.
"""

import re
from collections.abc import Collection
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as is_
from numpy.typing import NDArray

from pipeline.preprocess.parse import as_text, number
from pipeline.preprocess.parse import kind as kind_of

DatePart = Literal["hour", "weekday", "day", "month", "weekend"]
DATE_PARTS: tuple[DatePart, ...] = get_args(DatePart)
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
UNITS = {"seconds": 1, "milliseconds": 1000}  # formats that count since 1970: units a second
FIRST, LAST = -62135596800, 253402300799  # seconds of the years 1 to 9999: what lies outside is no time
_OFFSET = r"Z|UTC|GMT|[+-][0-9]{2}(?::?[0-9]{2})?"
_DIRECTIVES = {
    "Y": "[0-9]{4}",
    "y": "[0-9]{2}",
    "m": "[0-9]{1,2}",
    "b": "[A-Za-z]{3}",
    "B": "[A-Za-z]{3,9}",
    "d": "[0-9]{1,2}",
    "H": "[0-9]{1,2}",
    "I": "[0-9]{1,2}",
    "p": "[AaPp][Mm]",
    "M": "[0-9]{1,2}",
    "S": "[0-9]{1,2}",
    "f": "[0-9]{1,9}",
    "z": _OFFSET,
}
_SHORT = {"F": "%Y-%m-%d", "T": "%H:%M:%S", "R": "%H:%M", "D": "%m/%d/%y"}
_ISO = (
    r"(?P<Y>[0-9]{4})[-/](?P<m>[0-9]{1,2})[-/](?P<d>[0-9]{1,2})"
    r"(?:[T ](?P<H>[0-9]{1,2})(?::(?P<M>[0-9]{2})(?::(?P<S>[0-9]{2})(?:[.,](?P<f>[0-9]+))?)?)?"
    rf" ?(?P<z>{_OFFSET})?)?"
)


def check_format(style: str) -> None:
    """Refuse a format that is none.

    Raises:
        ValueError: it says what is wrong with it.
    """
    if style != "iso" and style not in UNITS:
        _pattern(style)


def seconds(column: pa.Array, style: str = "iso") -> tuple[pa.Int64Array, NDArray[np.bool_]]:
    """Return whole seconds since 1970, and which values are no times.

    A null or an empty string is a missing time: null, and not among the bad ones. Bad values are null
    as well.

    Args:
        column: strings, plain or dictionary-encoded.
        style: a format, see above.
    """
    if pa.types.is_dictionary(column.type):
        values, bad = seconds(column.dictionary, style)
        found = np.append(bad, False)[pc.fill_null(column.indices, len(bad)).to_numpy(zero_copy_only=False)]
        return values.take(column.indices), found
    text = pc.utf8_trim_whitespace(pc.cast(column, pa.string()))
    text = pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)
    if style in UNITS:
        values, bad = number(text)
        good = np.isfinite(values) & ~bad
        counted = np.floor(np.where(good, values, 0) / UNITS[style])
        good &= (counted >= FIRST) & (counted <= LAST)
        times = pa.array(np.where(good, counted, 0).astype(np.int64), mask=~good)
    else:
        times = _fast(text) if style == "iso" else None
        times = _slow(text, _ISO if style == "iso" else _pattern(style)) if times is None else times
    bad = pc.and_(pc.is_null(times), pc.is_valid(text)).to_numpy(zero_copy_only=False)
    return times, bad


def times(
    column: pa.Array, style: str, missing: Collection[str] = ()
) -> tuple[pa.Int64Array, NDArray[np.bool_]]:
    """Return the values as seconds since 1970 (null: missing), and which are no times.

    Args:
        style: a format, as above; a column of times needs none.
        missing: texts that stand for a missing value.
    """
    if is_.is_dictionary(column.type):
        found, bad = times(column.dictionary, style, missing)
        codes = pc.fill_null(column.indices, len(bad)).to_numpy(zero_copy_only=False)
        return found.take(column.indices), np.append(bad, False)[codes]
    if is_.is_float16(column.type):
        column = pc.cast(column, pa.float32())
    if kind_of(column.type) != "time":
        text = pc.utf8_trim_whitespace(as_text(column))
        gone = pc.is_in(text, pa.array(sorted(missing), pa.string()))
        return seconds(pc.if_else(gone, pa.scalar(None, pa.string()), text), style)
    if is_.is_date(column.type):
        column = pc.cast(column, pa.timestamp("s"))
    units = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[column.type.unit]
    absent = column.is_null().to_numpy(zero_copy_only=False)
    counted = pc.fill_null(column.cast(pa.int64()), 0).to_numpy(zero_copy_only=False) // units
    checked, bad = seconds(pc.cast(pa.array(counted), pa.string()), "seconds")
    return pc.if_else(pa.array(absent), pa.scalar(None, pa.int64()), checked), bad & ~absent


def date_part(times: pa.Int64Array, name: DatePart) -> pa.DictionaryArray:
    """Return one part of times in seconds as a coded column; a missing time has none.

    hour `0` to `23`, weekday `mon` to `sun`, day of the month `1` to `31`, month `jan` to `dec`,
    weekend `yes` or `no`.
    """
    absent = times.is_null().to_numpy(zero_copy_only=False)
    values = pc.fill_null(times, 0).to_numpy(zero_copy_only=False)
    days = values // 86400
    names: tuple[str, ...]
    if name == "hour":
        codes, names = values // 3600 % 24, tuple(map(str, range(24)))
    elif name == "weekday":
        codes, names = (days + 3) % 7, WEEKDAYS  # day 0 was a Thursday
    elif name == "weekend":
        codes, names = ((days + 3) % 7 >= 5).astype(np.int64), ("no", "yes")
    else:
        months = days.astype("datetime64[D]").astype("datetime64[M]")
        if name == "month":
            codes, names = months.astype(np.int64) % 12, MONTHS
        else:
            codes = days - months.astype("datetime64[D]").astype(np.int64)
            names = tuple(str(day) for day in range(1, 32))
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32), mask=absent), pa.array(names))


def _pattern(style: str) -> str:
    """Return the regular expression of a format of directives."""
    style = re.sub("%([FTRD])", lambda match: _SHORT[match[1]], style)
    pattern, seen = "", set()
    for piece in re.findall(r"%.?|[^%]+", style, re.DOTALL):
        key = piece[1:]
        if not piece.startswith("%"):
            pattern += re.escape(piece)
        elif key == "%":
            pattern += "%"
        elif key in ("a", "A"):  # the weekday follows from the date
            pattern += "[A-Za-z]+"
        elif key not in _DIRECTIVES:
            known = " ".join(f"%{name}" for name in (*_DIRECTIVES, "a", "A", *_SHORT))
            raise ValueError(f"the format {style!r} has {piece!r}, which is none of {known}")
        elif key in seen:
            raise ValueError(f"the format {style!r} has {piece!r} twice")
        else:
            seen.add(key)
            pattern += f"(?P<{key}>{_DIRECTIVES[key]})"
    if not {"Y", "y"} & seen:
        raise ValueError(f"the format {style!r} is not iso, seconds or milliseconds, and has no year, %Y")
    if ("I" in seen) != ("p" in seen):
        raise ValueError(f"the format {style!r} has only one of %I (hour of 12) and %p (AM or PM)")
    return pattern


def _fast(text: pa.Array) -> pa.Int64Array | None:
    """Let Arrow parse ISO times; None if one of them is not as Arrow wants all of them."""
    for kind in (pa.timestamp("us"), pa.timestamp("us", "UTC")):
        try:
            micros = pc.cast(text, kind).cast(pa.int64())
        except pa.ArrowInvalid:
            continue
        absent = micros.is_null().to_numpy(zero_copy_only=False)
        counted = pc.fill_null(micros, 0).to_numpy(zero_copy_only=False) // 1_000_000
        return pa.array(counted, mask=absent | (counted < FIRST) | (counted > LAST))
    return None


def _slow(text: pa.Array, pattern: str) -> pa.Int64Array:
    """Take times apart with a pattern that names its groups as the directives are called."""
    groups = pc.extract_regex(text, f"^(?:{pattern})$")
    found = groups.is_valid().to_numpy(zero_copy_only=False)
    if not found.any():
        return pa.nulls(len(text), pa.int64())
    names = {field.name for field in groups.type}

    def texts(name: str) -> pa.Array:
        return pc.fill_null(pc.struct_field(groups, name), "")

    def digits(name: str, default: int) -> NDArray[np.int64]:
        if name not in names:
            return np.full(len(text), default)
        values = texts(name)
        values = pc.cast(pc.if_else(pc.equal(values, ""), str(default), values), pa.int64())
        return np.asarray(values.to_numpy(zero_copy_only=False))

    year = digits("Y", 0)
    if "y" in names:
        short = digits("y", 0)
        year = np.where(short < 69, 2000, 1900) + short
    month = digits("m", 1)
    for name in {"b", "B"} & names:
        known = pc.index_in(pc.utf8_lower(pc.utf8_slice_codeunits(texts(name), 0, 3)), pa.array(MONTHS))
        month = pc.fill_null(known, -1).to_numpy(zero_copy_only=False) + 1
    day, hour, minute, second = digits("d", 1), digits("H", 0), digits("M", 0), digits("S", 0)
    if "I" in names:
        twelve = digits("I", 0)
        afternoon = pc.equal(pc.utf8_lower(texts("p")), "pm").to_numpy(zero_copy_only=False)
        hour = np.where((twelve >= 1) & (twelve <= 12), twelve % 12 + 12 * afternoon, 24)
    months = np.clip((year - 1970) * 12 + month - 1, -30000, 120000).astype("datetime64[M]")
    days = months.astype("datetime64[D]") + (day - 1)
    good = found & (year >= 1) & (month >= 1) & (month <= 12) & (day >= 1)
    good &= (days.astype("datetime64[M]") == months) & (hour < 24) & (minute < 60) & (second < 60)
    counted = days.astype(np.int64) * 86400 + hour * 3600 + minute * 60 + second
    if "z" in names:
        counted -= _offset(texts("z"))
    good &= (counted >= FIRST) & (counted <= LAST)
    return pa.array(counted, mask=~good)


def _offset(zones: pa.Array) -> NDArray[np.int64]:
    """Return the seconds that `+02:00`, `+0200` and `+02` are ahead of UTC; a name is UTC."""
    signed = pc.if_else(pc.match_substring_regex(zones, "^[+-]"), zones, "+00")
    digits = pc.utf8_slice_codeunits(pc.binary_join_element_wise(signed, "00", ""), 1, 10)
    digits = pc.replace_substring(digits, ":", "")
    hours = pc.cast(pc.utf8_slice_codeunits(digits, 0, 2), pa.int64()).to_numpy(zero_copy_only=False)
    minutes = pc.cast(pc.utf8_slice_codeunits(digits, 2, 4), pa.int64()).to_numpy(zero_copy_only=False)
    behind = pc.starts_with(signed, "-").to_numpy(zero_copy_only=False)
    return np.asarray(np.where(behind, -1, 1) * (hours * 3600 + minutes * 60))
