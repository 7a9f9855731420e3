"""Times in text against Python's own calendar."""

import re
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.preprocess.timestamps import DATE_PARTS, UNITS_PER_SECOND, check_format, date_part, seconds

ZERO = datetime(1970, 1, 1, tzinfo=UTC)
MOMENTS = st.integers(-62135500000 * 1000, 253402200000 * 1000).map(
    lambda thousandths: ZERO + timedelta(milliseconds=thousandths)
)
STYLES = ["%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S.%fZ", "%Y/%m/%d %H:%M"]


def at(year: int, month: int, day: int, hour: int = 0) -> datetime:
    return datetime(year, month, day, hour, tzinfo=UTC)


def read(texts: list[str | None], style: str = "iso") -> tuple[list[int | None], list[bool]]:
    """The seconds and bad values of texts; coded and plain columns must agree."""
    column = pa.array(texts, pa.string())
    times, bad = seconds(column, style)
    again, again_bad = seconds(column.dictionary_encode(), style)
    assert again.equals(times)
    assert again_bad.tolist() == bad.tolist()
    return times.to_pylist(), bad.tolist()


@given(st.lists(MOMENTS, min_size=1), st.sampled_from(STYLES))
def test_iso_times_are_those_of_the_calendar(moments: list[datetime], style: str):
    moments = [moment.replace(second=0) if "%S" not in style else moment for moment in moments]
    texts = [moment.strftime(style) for moment in moments]
    texts = [re.sub(r"^\d+", lambda year: year[0].zfill(4), text) for text in texts]
    expected = [(moment - ZERO) // timedelta(seconds=1) for moment in moments]
    assert read(texts) == (expected, [False] * len(texts))


@pytest.mark.parametrize(
    ("style", "text"),
    [
        ("iso", "2020-07-05 00:08:23.438"),
        ("iso", "2020-07-05T00:08:23,438"),
        ("iso", " 2020-7-5 0:08:23 "),
        ("iso", "2020-07-05T00:08:23.123456789Z"),
        ("iso", "2020-07-05 02:08:23+02:00"),
        ("iso", "2020-07-04 21:38:23 -0230"),
        ("iso", "2020-07-05T00:08:23 UTC"),
        ("seconds", "1593907703"),
        ("seconds", "1593907703.999"),
        ("seconds", "1.593907703e9"),
        ("milliseconds", "1593907703438"),
        ("%d.%m.%Y %H:%M:%S", "05.07.2020 00:08:23"),
        ("%m/%d/%y %I:%M:%S %p", "7/5/20 12:08:23 am"),
        ("%Y%m%d%H%M%S", "20200705000823"),
        ("%d/%b/%Y:%H:%M:%S %z", "05/Jul/2020:02:08:23 +0200"),
        ("%A, %d %B %Y %T", "Sunday, 5 July 2020 00:08:23"),
        ("%FT%T.%f", "2020-07-05T00:08:23.4"),
        ("on %D at 100%% %R:%S", "on 07/05/20 at 100% 00:08:23"),
    ],
)
def test_a_moment_in_many_formats(style: str, text: str):
    assert read([text], style) == ([1593907703], [False])


@pytest.mark.parametrize(
    ("style", "text"),
    [
        ("iso", "2020-02-30"),
        ("iso", "1900-02-29"),
        ("iso", "2020-13-01"),
        ("iso", "2020-00-01"),
        ("iso", "2020-01-00"),
        ("iso", "0000-01-01"),
        ("iso", "2020-07-05 24:00"),
        ("iso", "2020-07-05 23:60"),
        ("iso", "2020-07-05 23:59:60"),
        ("iso", "20200705"),
        ("iso", "05.07.2020"),
        ("iso", "2020-07-05 x"),
        ("iso", "2020-07-05\n"[:-1] + "\nx"),
        ("seconds", "1593907703438"),  # these are milliseconds: the year 52478
        ("seconds", "2020-07-05"),
        ("seconds", "nan"),
        ("seconds", "-inf"),
        ("seconds", "1e999"),
        ("milliseconds", "x"),
        ("%d.%m.%Y", "31.04.2020"),
        ("%d.%m.%Y", "2020.04.01"),
        ("%d.%m.%Y", "01x04x2020"),
        ("%I:%M %p %Y", "13:00 pm 2020"),
        ("%I:%M %p %Y", "0:30 am 2020"),
        ("%d %b %Y", "01 abc 2020"),
    ],
)
def test_what_is_no_time_is_bad_and_null(style: str, text: str):
    assert read([text, None, ""], style) == ([None] * 3, [True, False, False])


def test_one_odd_value_does_not_change_the_others():
    texts = ["2020-07-05 00:08:23.438", "2020-07-05 02:08:23+02:00", "x", None, "2020-07-05", ""]
    times, bad = read(texts)
    assert times == [1593907703, 1593907703, None, None, 1593907200, None]
    assert bad == [False, False, True, False, False, False]


def test_times_before_1970_are_cut_towards_the_past():
    assert read(["1969-12-31 23:59:59.5"])[0] == [-1]
    assert read(["-0.5"], "seconds")[0] == [-1]
    assert read(["-500"], "milliseconds")[0] == [-1]


def test_years_of_two_digits_lie_between_1969_and_2068():
    texts = [f"{year:02}0101" for year in range(100)]
    years = [datetime.fromtimestamp(s, UTC).year for s in read(texts, "%y%m%d")[0] if s is not None]
    assert years == [*range(2000, 2069), *range(1969, 2000)]


@given(
    st.lists(st.one_of(st.none(), st.text(max_size=12), MOMENTS.map(str)), max_size=8),
    st.sampled_from(["iso", *UNITS_PER_SECOND, "%Y-%m-%d"]),
)
@example(["\x00", "٢٠٢٠-01-01"], "iso")
def test_no_text_is_an_exception_and_only_texts_are_bad(texts: list[str | None], style: str):
    times, bad = read(texts, style)
    for text, time, wrong in zip(texts, times, bad, strict=True):
        assert not (wrong and time is not None)
        assert wrong or time is not None or text is None or not text.strip()


@given(st.lists(st.one_of(st.none(), MOMENTS), max_size=6))
@example([at(2020, 2, 29, 23), at(1969, 12, 31), None, at(2021, 1, 3)])
def test_parts_are_those_of_the_calendar(moments: list[datetime | None]):
    counted = [None if m is None else (m - ZERO) // timedelta(seconds=1) for m in moments]
    times = pa.array(counted, pa.int64())
    expected = {
        "hour": lambda m: str(m.hour),
        "weekday": lambda m: m.strftime("%a").lower(),
        "day": lambda m: str(m.day),
        "month": lambda m: m.strftime("%b").lower(),
        "weekend": lambda m: "yes" if m.weekday() >= 5 else "no",
    }
    for name in DATE_PARTS:
        assert date_part(times, name).to_pylist() == [
            None if m is None else expected[name](m) for m in moments
        ]


@pytest.mark.parametrize("hours", [-12, 0, 5, 14])
def test_an_offset_is_taken_off(hours: int):
    moment = datetime(2020, 7, 5, 12, tzinfo=timezone(timedelta(hours=hours)))
    assert read([moment.isoformat()])[0] == [int(moment.timestamp())]


@pytest.mark.parametrize(
    ("style", "message"),
    [
        ("day", "not iso, seconds or milliseconds, and has no year"),
        ("%d.%m", "has no year"),
        ("%Y-%q", "'%q', which is none of"),
        ("%Y-%m-%d %F", "'%Y' twice"),
        ("%Y %I", "only one of %I"),
        ("%Y %", "'%', which is none of"),
    ],
)
def test_a_wrong_format_says_what_is_wrong(style: str, message: str):
    with pytest.raises(ValueError, match=message):
        check_format(style)


def test_a_column_without_any_value():
    for column in (pa.nulls(3), pa.array([], pa.string()), pa.nulls(2, pa.string())):
        times, bad = seconds(column)
        assert times.null_count == len(column)
        assert not np.any(bad)
