"""Anybody's click log: what the keys of params.yaml mean, what is rejected, and that nothing crashes."""

import json
import os
import random
from collections.abc import Callable
from copy import deepcopy
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import project
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from pipeline.common.errors import PipelineError
from pipeline.config.params import Params
from pipeline.datasets import tabular
from pipeline.preprocess import clean_table
from pipeline.preprocess.rejects import RejectLog
from pipeline.preprocess.tables import LIST_SEPARATOR

Rows = list[dict[str, Any]]
USER = {"user": "user"}
LOG = "user,price,tags,ts,click\n"
FIELDS = {
    "user": "user",
    "price": {"domain": "item", "type": "number"},
    "tags": {"domain": "item", "type": "bag"},
    "ts": {"domain": "context", "type": "timestamp"},
}


@pytest.fixture(name="read")
def _read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Rows, dict[str, Any]]]:
    """Read files (name -> text or bytes or table) through to the interim table; return rows and report."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    folders = iter(range(10**6))

    def go(
        files: Any, *, rows: int | None = None, max_rejected: float = 1.0, **options: Any
    ) -> tuple[Rows, dict[str, Any]]:
        raw, out = (tmp_path / f"{kind}{next(folders)}" for kind in ("raw", "out"))
        raw.mkdir()
        out.mkdir()
        files = files if isinstance(files, dict) else {"log.csv": files}
        for name, content in files.items():
            if isinstance(content, pa.Table):
                pq.write_table(content, raw / name)
            else:
                (raw / name).write_bytes(content.encode() if isinstance(content, str) else content)
        (raw / "manifest.json").write_text("{}")
        rejects = RejectLog()
        log = tabular.read(raw, rejects, **{"label": "click", "fields": USER, **options})
        report = clean_table.write(out, log, rejects, "mine", rows=rows, max_rejected=max_rejected)
        table = pq.read_table(out / "table.parquet")
        return table.to_pylist(), {**report, "columns": log.columns}

    return go


Read = Callable[..., tuple[Rows, dict[str, Any]]]


def column(rows: Rows, name: str) -> list[Any]:
    return [row[name] for row in rows]


# ---- what the keys mean ----


def test_a_log_with_every_type_of_field(read: Read):
    text = (
        LOG
        + "anna,1.5,new|eco,2020-07-05 00:08:23.438,1\n"
        + ' bert , -2e1 ,"x",2020-07-06T23:00:00+02:00,true\n'
        + "NULL,NA,,\\N,No\n"
        + 'anna,inf,"[\'a\', ""b""]",2020-07-05,0.0\n'
    )
    rows, report = read(text, fields=FIELDS, group="user", keep=["price", "tags"])
    assert rows == [
        {
            "user": "anna",
            "price": 1.5,
            "tags": "new|eco",
            "ts_hour": "0",
            "ts_weekday": "sun",
            "label": 1,
            "group": "anna",
        },
        {
            "user": "bert",
            "price": -20.0,
            "tags": "x",
            "ts_hour": "21",
            "ts_weekday": "mon",
            "label": 1,
            "group": "bert",
        },
        {
            "user": None,
            "price": pytest.approx(np.nan, nan_ok=True),
            "tags": None,
            "ts_hour": None,
            "ts_weekday": None,
            "label": 0,
            "group": "",
        },
        {
            "user": "anna",
            "price": np.inf,
            "tags": "a, b",
            "ts_hour": "0",
            "ts_weekday": "sun",
            "label": 0,
            "group": "anna",
        },
    ]
    assert [(c.name, c.kind, c.domain) for c in report["columns"]] == [
        ("user", "category", "user"),
        ("price", "number", "item"),
        ("tags", "bag", "item"),
        ("ts_hour", "category", "context"),
        ("ts_weekday", "category", "context"),
    ]
    assert (report["rows_in"], report["rejected"]) == (4, 0)


def test_a_field_may_have_another_name_than_its_column_and_a_column_several_fields(read: Read):
    fields = {
        "my_label": {"column": "label", "domain": "item"},
        "age": {"domain": "user", "type": "number"},
        "age_group": {"column": "age", "domain": "user"},
        "t": {
            "column": "time",
            "domain": "context",
            "type": "timestamp",
            "format": "%d.%m.%Y",
            "parts": ["month"],
        },
        "day": {"column": "time", "domain": "context"},
    }
    rows, _ = read("label,age,time,click\nx,30,24.12.2020,1\n", fields=fields, time="time")
    assert rows == [
        {
            "my_label": "x",
            "age": 30.0,
            "age_group": "30",
            "t_month": "dec",
            "day": "24.12.2020",
            "label": 1,
            "time": 1608768000,
        }
    ]


@pytest.mark.parametrize(
    ("label", "values", "expected"),
    [
        ("y", ["1", "0", "TRUE", "False", "1.0", "yes", "NO"], [1, 0, 1, 0, 1, 1, 0]),
        ({"column": "y", "above": 3}, ["3", "3.5", "4e0", "inf"], [0, 1, 1, 1]),
        ({"column": "y", "at_least": 3}, ["3", "2.99", "-inf"], [1, 0, 0]),
        ({"column": "y", "at_least": 3, "drop": [0, "x"]}, ["3", "0", "0.0", "x", "1"], [1, 0]),
        ({"column": "y", "equals": "buy"}, ["buy", "Buy", " buy ", "view"], [1, 0, 1, 0]),
        ({"column": "y", "equals": ["buy", 2]}, ["buy", "2.0", "2", "3"], [1, 1, 1, 0]),
        ({"column": "y", "equals": True}, ["true", "TRUE", "1"], [1, 1, 0]),
        ({"column": "y", "equals": -1}, ["-1", "1", "x"], [1, 0, 0]),
    ],
)
def test_label_rules(read: Read, label: Any, values: list[str], expected: list[int]):
    rows, report = read("user,y\n" + "".join(f"u,{value}\n" for value in values), label=label)
    assert column(rows, "label") == expected
    assert report["dropped"] == len(values) - len(expected)
    assert report["rejected"] == 0


def test_a_record_is_rejected_with_line_column_and_reason(read: Read):
    text = (
        LOG
        + "a,1,,2020-07-05,1\n"
        + "a,x,,2020-07-05,1\n"
        + "a,1,,yesterday,1\n"
        + "\n"
        + "a,1,,,2\n"
        + "a,1,,,\n"
        + "a,1,,\n"
        + 'a,1,"t\nu",2020-07-05,0\n'
        + "a,x,,never,3\n"
    )
    rows, report = read(text, fields=FIELDS)
    assert column(rows, "tags") == [None, "t u"]
    assert report["first_rejects"] == [
        "log.csv:3: price 'x' is not a number",
        "log.csv:4: ts 'yesterday' is not a time (iso)",
        (
            "log.csv:6: click '2' is none of 0, 1, yes, no; say under `label` "
            "from where on numbers are clicks, such as `at_least: 2`"
        ),
        "log.csv:7: click '' is missing, and it is the label; `drop: [null]` under `label` leaves it out",
        "log.csv:8: 4 fields where 5 belong: 'a,1,,'",
        "log.csv:11: click '3' is none of 0, 1, yes, no",
    ]
    assert (report["rows_in"], report["rows_out"], report["rejected"]) == (8, 2, 6)
    with pytest.raises(PipelineError, match=r"mine: 6 of 8 records of log\.csv are corrupted"):
        read(text, fields=FIELDS, max_rejected=0.5)


def test_a_time_that_rows_are_split_by_is_needed_in_each(read: Read):
    rows, report = read(LOG + "a,,,2020-07-05,1\nb,,,,0\n", time="ts")
    assert rows == [{"user": "a", "label": 1, "time": 1593907200}]
    assert report["first_rejects"] == ["log.csv:3: ts '' is missing, and `time` needs it"]
    rows, _ = read("user,when,click\na,1593907200123,1\n", time={"column": "when", "format": "milliseconds"})
    assert column(rows, "time") == [1593907200]


def test_texts_of_missing_values_can_be_chosen(read: Read):
    text = "user,price,click\n-,-1,1\nNULL,2,0\n"
    fields = {"user": "user", "price": {"domain": "item", "type": "number"}}
    rows, _ = read(text, fields=fields, missing=["-", "-1"])
    assert column(rows, "user") == [None, "NULL"]
    assert np.isnan(rows[0]["price"])


def test_all_values_may_be_missing(read: Read):
    rows, _ = read(LOG + ",,,,1\n,,,,0\n", fields=FIELDS)
    assert [[v for k, v in row.items() if k not in ("label", "price")] for row in rows] == [[None] * 4] * 2
    assert all(np.isnan(row["price"]) for row in rows)


def test_long_numbers_and_leading_zeros_stay_what_they_are_as_categories(read: Read):
    values = ["123456789012345678901234567890", "007", "1e400", "12.50", "0x1F"]
    rows, _ = read("user,click\n" + "".join(f"{value},1\n" for value in values))
    assert column(rows, "user") == values


def test_decimal_commas(read: Read):
    text = "user;price;rating;click\na;1,5;3,5;1\nb;-2;4;0\n"
    fields = {"price": {"domain": "item", "type": "number"}}
    label = {"column": "rating", "above": 3.5}
    rows, _ = read(text, separator=";", decimal=",", fields=fields, label=label)
    assert [(row["price"], row["label"]) for row in rows] == [(1.5, 0), (-2.0, 1)]
    label |= {"grades": [1.5, 3, 3.75]}
    rows, _ = read(text, separator=";", decimal=",", fields=fields, label=label)
    assert [row["grade"] for row in rows] == [2, 4]


@pytest.mark.parametrize(
    ("name", "text", "options"),
    [
        ("log.csv", "user,click\na b,1\n", {}),
        ("log.tsv", "user\tclick\na b\t1\n", {}),
        ("log.csv", "user;click\na b;1\n", {"separator": ";"}),
        ("log.dat", "user::click\na b::1\n", {"separator": "::"}),
        ("log.txt", "a b|1\n", {"separator": "|", "names": ["user", "click"]}),
        ("log.csv", "\ufeffuser , click\r\n a b ,1 ", {}),
        ("log.csv", "click,other,user\n1,x,a b\n", {}),
        ("log.csv", "user,click\n'a b',1\n", {"quote": "'"}),
        ("log.csv", '"user","click"\n"a b","1"\n', {}),
        ("log.csv", 'user,click\n"a\\ b",1\n', {"escape": "\\"}),
        ("log.csv", "user,click\n\xe4,1\n".encode("latin-1"), {"encoding": "latin-1"}),
    ],
)
def test_text_files_are_written_in_many_ways(read: Read, name: str, text: Any, options: Any):
    rows, _ = read({name: text}, **options)
    assert rows in ([{"user": "a b", "label": 1}], [{"user": "ä", "label": 1}])


def test_a_quoted_field_may_hold_separators_quotes_and_line_ends(read: Read):
    rows, report = read('user,click\n"a,""b""\nc",1\n"d",0\n')
    assert column(rows, "user") == ['a,"b" c', "d"]
    assert report["rows_in"] == 2


def test_files_of_a_folder_come_by_name_and_their_columns_in_any_order(read: Read):
    files = {
        "b.csv": "click,user\n1,late\n",
        "a.csv": "user,click\nearly,0\n,x\n",
        "c.parquet": pa.table({"user": ["last"], "click": [1]}),
    }
    rows, report = read(files)
    assert column(rows, "user") == ["early", "late", "last"]
    assert report["first_rejects"] == [
        (
            "a.csv:3: click 'x' is none of 0, 1, yes, no; say under `label` "
            "which of its values are clicks, `equals: [...]`, or which are left out, `drop: ['x']`"
        )
    ]
    assert {name: entry["records"] for name, entry in report["files"].items()} == {
        "a.csv": 2,
        "b.csv": 1,
        "c.parquet": 1,
    }


def test_a_file_without_records_may_lie_among_others(read: Read):
    assert len(read({"a.csv": "user,click\n", "b.csv": "user,click\nx,1\n"})[0]) == 1


def test_rows_do_not_depend_on_the_block_they_are_read_in(read: Read, monkeypatch: pytest.MonkeyPatch):
    draw = random.Random(3)
    lines = [
        f"u{draw.randint(0, 9)},{draw.choice(['', 'x', '1.5'])},a|b,2020-01-{i % 40},{i % 3}\n"
        for i in range(200)
    ]
    lines[50] = '"u,1,,,1\n'
    text = LOG + "".join(lines)
    expected = read(text, fields=FIELDS, group="user")
    from pipeline.preprocess import tables
    from pipeline.preprocess import text as reader

    monkeypatch.setattr(reader.TextFile.pieces, "__defaults__", (700,))
    found = read(text, fields=FIELDS, group="user")
    assert json.dumps(found, default=str) == json.dumps(expected, default=str)
    table = pa.table({"user": ["a", "b", "c"] * 9, "click": [0, 1, 5] * 9})
    expected = read({"log.parquet": table})
    monkeypatch.setattr(tables, "ROWS_PER_BLOCK", (4, 4))
    assert read({"log.parquet": table}) == expected


def test_the_first_rows_alone(read: Read):
    rows, report = read("user,click\n" + "a,1\n" * 10, rows=3)
    assert len(rows) == 3
    assert (report["rows_in"], report["dropped"]) == (10, 7)


# ---- Parquet ----


def test_parquet_columns_of_every_usable_type_are_categories(read: Read):
    day = date(2020, 2, 29)
    moment = datetime(2020, 2, 29, 1, 2, 3, tzinfo=UTC)
    columns = {
        "string": (pa.array([" a ", "", None, "NULL"]), ["a", None, None, None]),
        "large": (pa.array(["a", "b", None, "a"], pa.large_string()), ["a", "b", None, "a"]),
        "view": (pa.array(["a", "b", None, "a"], pa.string_view()), ["a", "b", None, "a"]),
        "coded": (pa.array(["a", None, "b ", "a"]).dictionary_encode(), ["a", None, "b", "a"]),
        "coded_int": (pa.array([7, None, 8, 7], pa.int8()).dictionary_encode(), ["7", None, "8", "7"]),
        "int": (pa.array([1, -2, None, 2**62]), ["1", "-2", None, str(2**62)]),
        "unsigned": (pa.array([1, 0, None, 2**64 - 1], pa.uint64()), ["1", "0", None, str(2**64 - 1)]),
        "gaps": (pa.array([12.0, np.nan, -0.0, None]), ["12", None, "0", None]),
        "float": (
            pa.array([0.1, 1e300, -np.inf, 2.0**60], pa.float64()),
            ["0.1", "1e+300", "-inf", "1.152921504606847e+18"],
        ),
        "float32": (pa.array([0.1, 3.0, None, 1.5], pa.float32()), ["0.1", "3", None, "1.5"]),
        "half": (pa.array(np.array([0.5, 3.0, 1.0, 1.5], np.float16)), ["0.5", "3", "1", "1.5"]),
        "decimal": (pa.array([Decimal("12.00"), Decimal("1.50"), None, None]), ["12", "1.50", None, None]),
        "flag": (pa.array([True, False, None, True]), ["true", "false", None, "true"]),
        "date": (pa.array([day, None, day, day]), ["2020-02-29", None, "2020-02-29", "2020-02-29"]),
        "moment": (
            pa.array([moment, None, moment, moment], pa.timestamp("us", "Asia/Tokyo")),
            ["2020-02-29 01:02:03", None, *["2020-02-29 01:02:03"] * 2],
        ),
        "clock": (pa.array([time(1, 2), None, None, None], pa.time32("s")), ["01:02:00", None, None, None]),
        "nothing": (pa.nulls(4), [None] * 4),
    }
    table = pa.table({**{name: array for name, (array, _) in columns.items()}, "click": [1, 0, 1, 0]})
    rows, _ = read({"log.parquet": table}, fields=dict.fromkeys(columns, "item"))
    for name, (_, expected) in columns.items():
        assert column(rows, name) == expected, name


def test_parquet_numbers_lists_and_times(read: Read):
    moment = datetime(2020, 7, 5, 0, 8, 23, 999000, tzinfo=UTC)
    table = pa.table(
        {
            "int": [3, None],
            "big": pa.array([2**64 - 1, None], pa.uint64()),
            "decimal": pa.array([Decimal("1.50"), None]),
            "flag": [True, None],
            "text": [" 1e3", "NA"],
            "wait": pa.array([timedelta(seconds=90), None], pa.duration("ms")),
            "tags": [["a", "b|c", None, " "], None],
            "ids": pa.array([[1, 2], []], pa.large_list(pa.int32())),
            "pair": pa.array([[0.5, 12.0], [1.0, 1.0]], pa.list_(pa.float64(), 2)),
            "at": pa.array([moment, None], pa.timestamp("ms")),
            "zoned": pa.array([moment, None], pa.timestamp("ns", "Europe/Berlin")),
            "day": pa.array([moment.date(), None], pa.date32()),
            "epoch": [1593907703, None],
            "compact": [20200705, None],
            "click": [True, False],
        }
    )
    number, bag, moments = ({"domain": "item", "type": t} for t in ("number", "bag", "timestamp"))
    fields = {
        **dict.fromkeys(["int", "big", "decimal", "flag", "text", "wait"], number),
        **dict.fromkeys(["tags", "ids", "pair"], bag),
        **{name: {**moments, "parts": ["hour", "day"]} for name in ("at", "zoned", "day")},
        "epoch": {**moments, "format": "seconds", "parts": ["hour"]},
        "compact": {**moments, "format": "%Y%m%d", "parts": ["weekend"]},
    }
    rows, report = read({"log.parquet": table}, fields=fields, time="at")
    assert report["first_rejects"] == ["log.parquet:2: at is missing, and `time` needs it"]
    rows, report = read({"log.parquet": table}, fields=fields)
    first, second = rows
    assert first == {
        "int": 3.0,
        "big": 2.0**64,
        "decimal": 1.5,
        "flag": 1.0,
        "text": 1000.0,
        "wait": 90.0,
        "tags": LIST_SEPARATOR.join(["a", "b|c", "", ""]),
        "ids": LIST_SEPARATOR.join("12"),
        "pair": LIST_SEPARATOR.join(["0.5", "12"]),
        "at_hour": "0",
        "at_day": "5",
        "zoned_hour": "0",
        "zoned_day": "5",
        "day_hour": "0",
        "day_day": "5",
        "epoch_hour": "0",
        "compact_weekend": "yes",
        "label": 1,
    }
    assert [v for v in second.values() if isinstance(v, float)] == pytest.approx([np.nan] * 6, nan_ok=True)
    assert {v for v in second.values() if not isinstance(v, float)} == {
        None,
        "",
        0,
        LIST_SEPARATOR.join("11"),
    }
    assert {c.name: c.separator for c in report["columns"] if c.kind == "bag"} == dict.fromkeys(
        ["tags", "ids", "pair"], LIST_SEPARATOR
    )


def test_lists_and_texts_of_one_bag_get_one_separator(read: Read):
    files = {
        "a.csv": "tags,click\nx|y,1\n",
        "b.parquet": pa.table({"tags": [["u", "v|w"]], "click": [0]}),
    }
    rows, _ = read(files, fields={"tags": {"domain": "item", "type": "bag"}})
    assert [row["tags"].split(LIST_SEPARATOR) for row in rows] == [["x", "y"], ["u", "v|w"]]


def test_files_of_a_folder_may_differ_in_types(read: Read):
    files = {
        "a.parquet": pa.table({"user": [1, 2], "click": [0, 1]}),
        "b.parquet": pa.table({"user": [1.0, None], "click": ["0", "1"]}),
    }
    assert column(read(files)[0], "user") == ["1", "2", "1", None]


def test_missing_values_chosen_as_texts_are_missing_numbers_too(read: Read):
    table = pa.table({"price": [1.5, -1.0], "click": [0, 1]})
    rows, _ = read(
        {"a.parquet": table}, fields={"price": {"domain": "item", "type": "number"}}, missing=["-1"]
    )
    assert np.isnan(rows[1]["price"])


def test_rejected_records_of_parquet_are_numbered_from_1(read: Read):
    table = pa.table({"user": ["a"] * 3, "price": ["1", "x", "2"], "click": [0, 1, 7]})
    _, report = read({"a.parquet": table}, fields={"price": {"domain": "item", "type": "number"}})
    assert report["first_rejects"] == [
        "a.parquet:2: price 'x' is not a number",
        (
            "a.parquet:3: click '7' is none of 0, 1, yes, no; say under `label` "
            "from where on numbers are clicks, such as `at_least: 7`"
        ),
    ]


@pytest.mark.parametrize(
    ("array", "field", "message"),
    [
        (pa.array([b"x"]), "item", "holds binary, which cannot be read as a category"),
        (pa.array([{"a": 1}]), "item", "holds struct<a: int64>, which cannot be read as a category"),
        (pa.array([[1]]), "item", "which cannot be read as a category; its type is bag"),
        (pa.array([[[1]]]), {"domain": "item", "type": "bag"}, "which cannot be read as a bag"),
        (pa.array([date(2020, 1, 1)]), {"domain": "item", "type": "number"}, "its type is timestamp"),
        (pa.array([True]), {"domain": "item", "type": "timestamp"}, "cannot be read as a timestamp"),
        (
            pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int32())),
            {"domain": "item", "type": "bag"},
            "holds map",
        ),
    ],
)
def test_a_parquet_type_that_does_not_fit_is_an_error(read: Read, array: pa.Array, field: Any, message: str):
    with pytest.raises(PipelineError, match=rf"preprocess\.fields\.x: the column 'x' .*{message}"):
        read({"a.parquet": pa.table({"x": array, "click": [1]})}, fields={"x": field})


def test_columns_that_are_not_used_may_be_of_any_type(read: Read):
    table = pa.table({"user": ["a"], "click": [1], "blob": [b"\xff"], "deep": [{"a": [1]}]})
    assert read({"a.parquet": table})[0] == [{"user": "a", "label": 1}]


def test_strings_of_parquet_that_are_no_utf8_are_an_error(read: Read):
    buffers = [None, pa.py_buffer(np.array([0, 1], np.int32)), pa.py_buffer(b"\xff")]
    table = pa.table({"user": pa.Array.from_buffers(pa.string(), 1, buffers), "click": [1]})
    with pytest.raises(PipelineError, match=r"a\.parquet cannot be read as Parquet .*UTF8"):
        read({"a.parquet": table})


# ---- errors for people ----


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        ("", {}, "log.csv is empty"),
        ("user,click\n", {}, "log.csv has no records"),
        (
            "usr,click\na,1\n",
            {},
            "log.csv: preprocess.fields.user: unknown column 'user'; did you mean 'usr'",
        ),
        ("user,klick\na,1\n", {}, "preprocess.label: unknown column 'click'; did you mean 'klick'"),
        (
            "user,click\na,1\n",
            {"group": "usr"},
            "preprocess.group: unknown column 'usr'; did you mean 'user'",
        ),
        ("user,click\na,1\n", {"time": "ts"}, "preprocess.time: unknown column 'ts'"),
        ("user,click\na,1\n", {"keep": ["part"]}, "preprocess.keep: unknown column 'part'"),
        ("user, click,user \na,1,b\n", {}, "same name: 'user' is columns 1, 3"),
        ("user,click,click\na,1,1\n", {}, "same name: 'click' is columns 2, 3"),
        ("user;click\na;1\n", {}, "looks like ';', so set `separator: \";\"`"),
        ("user\tclick\na\t1\n", {}, 'so set `separator: "\\t"`'),
        ("user::click\na::1\n", {}, 'so set `separator: "::"`'),
        ("user,click\na,1\n", {"separator": ";"}, 'so set `separator: ","`'),
        ("a,1,2\n", {"names": ["user", "click"]}, "the first line has 3 fields, `names` has 2"),
        ("user,click\na,1\n", {"fields": {"click": "user"}}, "the label is made of the column 'click'"),
        (
            "user,click\na,1\n",
            {"fields": {"x": {"column": "click", "domain": "user"}}},
            "the label is made of",
        ),
        ("user,click\na,1\n", {"fields": {}}, "preprocess.fields: is empty"),
        ("user,click\na,1\n", {"group": "click"}, "preprocess.group: 'click' is the label's column"),
        ("user,click\na,1\n", {"time": "click"}, "preprocess.time: 'click' is the label's column"),
        ("user,click\na,1\n", {"keep": ["click"]}, "preprocess.keep: 'click' is the label's column"),
        (
            "time,click\na,1\n",
            {"fields": {"time": "context"}},
            "the name 'time' is taken by the pipeline itself",
        ),
        ("user,group,click\na,b,1\n", {"keep": ["group"]}, "preprocess.keep: the name 'group' is taken"),
        (
            "ts,ts_hour,click\n2020-01-01,3,1\n",
            {"fields": {"ts": {"domain": "context", "type": "timestamp"}, "ts_hour": "context"}},
            "the name 'ts_hour' is taken by the field 'ts'",
        ),
        (
            {"a.csv": "user,click\na,1\n", "b.csv": "usr,click,x\na,1,2\n"},
            {},
            (
                "b.csv does not have the same columns as a.csv: missing 'user', extra 'usr', 'x'. If it is "
                "no part of the log, move it out of the folder, or name the wanted files under `download`: "
                "`files: [a.csv]`"
            ),
        ),
        (
            {"a.csv": "user,click\n", "b.csv": "user,click,a,b,c,d,e,f,g\n"},
            {},
            "b.csv does not have the same columns as a.csv: extra 'a', 'b', 'c', 'd', 'e' and 2 more. If",
        ),
        (
            {"a.csv": "usr,click\na,1\n", "b.csv": "user,click\na,1\n", "c.csv": "click,user\n1,a\n"},
            {},
            (
                "a.csv does not have the same columns as b.csv and 1 other file: missing 'user', extra 'usr'"
                ". If it is no part of the log, move it out of the folder, or name the wanted files under "
                "`download`: `files: [b.csv, c.csv]`"
            ),
        ),
        (
            "\xe9,click\na,1\n".encode("latin-1"),
            {},
            "is not utf-8; if the file is not in UTF-8, say `encoding: latin-1`",
        ),
        ("user,click\na,1\n", {"encoding": "utf-16"}, "encoding 'utf-16'"),
        ("user,click\na,1\n", {"encoding": "klingon"}, "encoding 'klingon' is not known"),
        ("user,click\na,1\n", {"separator": ""}, "separator ''"),
        ("user,click\na,1\n", {"separator": "\n"}, "separator"),
        ("user,click\na,1\n", {"separator": "§"}, "not an ASCII character"),
        ("user,click\na,1\n", {"quote": "''"}, "quote"),
        ("user,click\na,1\n", {"escape": '"'}, "separator, quote and escape must differ"),
        (b"PK\x03\x04junk", {}, "an Excel file: unpack it"),
        (b"\x1f\x8bjunk", {}, "its name must end in .gz"),
        ({"log.csv.gz": b"junk"}, {}, "is it damaged?"),
        ({"log.parquet": b"junk"}, {}, "cannot be read as Parquet"),
        ({"log.parquet": b"PAR1junk"}, {}, "cannot be read as Parquet"),
        (b"\xff\xfeu\x00", {}, "UTF-16"),
    ],
)
def test_what_does_not_fit_is_an_error_before_anything_is_read(
    read: Read, files: Any, options: Any, message: str
):
    with pytest.raises(PipelineError) as caught:
        read(files, **options)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (
            "user,click\n" + "a,5\nb,2\n" * 100,
            {},
            "column 'click': a value such as '5', '2' is none of 0, 1, yes, no, and 200 of the first 200 are",
        ),
        (
            "user,click\n" + 'a,"1,5"\nb,"2,5"\n' * 100,
            {"label": {"column": "click", "above": 2}},
            "a value such as '1,5', '2,5' is not a number, and 200 of the first 200 are",
        ),
        (
            "user,price,click\n" + "a,cheap,1\n" * 100,
            {"fields": {"price": {"domain": "item", "type": "number"}}},
            "column 'price': a value such as 'cheap' is not a number, and 100 of the first 100 are",
        ),
        (
            "user,ts,click\n" + "a,24.12.2020,1\n" * 100,
            {"time": "ts"},
            "such as '24.12.2020' is not a time (iso), and 100 of the first 100 are like that. Say how its",
        ),
    ],
)
def test_a_setting_that_most_values_break_is_an_error_at_once(
    read: Read, text: str, options: Any, message: str
):
    with pytest.raises(PipelineError) as caught:
        read(text, **options)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("value", "cure"),
    [
        (
            "maybe",
            "Say under `label` which of its values are clicks, `equals: [...]`, or which are left out, `drop",
        ),
        ("3", "Say under `label` from where on numbers are clicks, such as `at_least: 3`"),
    ],
)
def test_labels_that_are_neither_yes_nor_no_come_with_the_rule_that_helps(read: Read, value: str, cure: str):
    """Three lines of them, since all are alike."""
    rows = ["a,yes", "b,no"] * 30 + [f"c,{value}"] * 30
    with pytest.raises(PipelineError) as caught:
        read("user,click\n" + "\n".join(rows) + "\n", max_rejected=0.001)
    _, *listed, last = str(caught.value).splitlines()
    assert [line.split("; ")[0] for line in listed] == [
        *(f"  log.csv:{line}: click '{value}' is none of 0, 1, yes, no" for line in (62, 63, 64)),
        "  and 27 more",
    ]
    assert last.startswith(cure)
    assert ". Otherwise fetch the file again, or raise" in last


def test_rejected_lines_come_with_what_to_try(read: Read):
    for line, hint in ((b"\xe4,1\n", "say `encoding: latin-1`"), (b'"a,1\n', "say `quote: null`")):
        with pytest.raises(PipelineError, match=hint):
            read(b"user,click\n" + b"b,0\n" * 50 + line * 3, max_rejected=0.001)


# ---- params.yaml ----


@pytest.fixture(name="values")
def _values() -> dict[str, Any]:
    values = project.own_params()
    values["data"] = {name: values["data"][name] for name in values["datasets"]}
    values["data"]["mine"] = {
        "source": "tabular",
        "download": {"path": "log.csv"},
        "preprocess": {
            "label": "click",
            "fields": deepcopy(FIELDS),
            "time": "ts",
            "max_rejected": 0.01,
            "rows": 5,
        },
        "split": {"method": "random"},
        "encode": {},
        "settings": {},
    }
    return values


def test_params_take_an_item_as_it_is_documented(values: dict[str, Any]):
    doc = tabular.__doc__ or ""
    start = doc.index("    my-clicks:")
    text = doc[start : doc.index("settings: {}", start)] + "settings: {}\n"
    values["data"] |= YAML(typ="safe", pure=True).load(text)
    preprocess = values["data"]["my-clicks"]["preprocess"]
    assert preprocess["fields"]["price"] == {"domain": "item", "type": "number"}
    Params(values)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            "fields/price/typ",
            "number",
            "fields.price: unknown key 'typ'; did you mean 'type'? (valid: column, domain,",
        ),
        (
            "fields/price/type",
            "numeric",
            "fields.price.type: should be 'category', 'number', 'bag', 'timestamp' or 'vector' (it is",
        ),
        (
            "fields/price/domain",
            "itm",
            "fields.price.domain: should be 'user', 'item' or 'context' (it is 'itm'; did you mean 'item'?)",
        ),
        ("fields/price", {"type": "number"}, "fields.price.domain: is missing; give it a value"),
        (
            "fields/price",
            "itm",
            "fields.price: should be 'user', 'item' or 'context' (it is 'itm'; did you mean 'item'?)",
        ),
        ("fields/price", None, "fields.price: needs a domain: user, item or context (it is empty)"),
        ("fields/price", 3, "fields.price: should be a block of keys"),
        ("fields/price/separator", "|", "fields.price: separator belongs to type bag, and this is a number"),
        ("fields/ts/format", "%d.%m", "fields.ts.format: the format '%d.%m' is not iso"),
        (
            "fields/ts/parts",
            ["our"],
            "fields.ts.parts.0: should be 'hour', 'weekday', 'day', 'month' or 'weekend'",
        ),
        ("fields/ts/parts", ["day", "day"], "fields.ts: parts contains one twice"),
        ("fields/ts/parts", [], "fields.ts.parts: is empty"),
        ("fields/3", "user", "fields.3: should be a valid string"),
        ("fields", ["user"], "fields: should be a block of keys"),
        ("label", 1, "label: should be a block of keys"),
        ("label", {"column": "a", "atleast": 1}, "label: unknown key 'atleast'; did you mean 'at_least'?"),
        ("label", {"column": "a", "at_least": "4"}, "label.at_least: should be a valid"),
        (
            "label",
            {"column": "a", "at_least": 4, "above": 3},
            "label: give one of above, at_least and equals",
        ),
        ("label", {"column": "a", "equals": []}, "label: equals is empty"),
        (
            "label",
            {"column": "a", "at_least": 4, "grades": [1]},
            "label: grades are thresholds beside `above`",
        ),
        ("label", {"at_least": 4}, "label.column: is missing; give it a value"),
        ("time", {"column": "ts", "format": "x"}, "time.format: the format 'x'"),
        ("keep", "part", "keep: "),
        ("decimal", ";", "decimal: should be '.' or ','"),
        ("quote", 3, "quote: should be a valid string"),
        ("missing", ["", None], "missing.1: should be a valid string (it is empty)"),
        ("seperator", ";", "unknown key 'seperator'; did you mean 'separator'?"),
        ("max_rejected", 2.0, "max_rejected: must be"),
    ],
)
def test_a_wrong_key_or_value_is_named_where_it_stands(
    values: dict[str, Any], path: str, value: Any, message: str
):
    *parents, last = path.split("/")
    block = values["data"]["mine"]["preprocess"]
    for key in parents:
        block = block[key]
    if path == "fields/3":
        block[3] = value
    else:
        block[last] = value
    with pytest.raises(PipelineError) as caught:
        Params(values)
    head = "params.yaml: data.mine.preprocess"
    assert str(caught.value).startswith((f"{head}.{message}", f"{head}: {message}")), str(caught.value)


def test_the_path_of_the_file_is_needed(values: dict[str, Any]):
    values["data"]["mine"]["download"] = {}
    with pytest.raises(PipelineError, match=r"data\.mine\.download\.path: is missing; give it a value"):
        Params(values)


# ---- the stages ----


@pytest.mark.slow
def test_three_stages_of_an_own_log(tmp_path: Path, run: Callable[..., Path], values: dict[str, Any]):
    draw = random.Random(1)
    logs = tmp_path / "logs"
    logs.mkdir()
    for number in range(2):
        lines = [
            f"u{draw.randint(0, 20)},{draw.random():.3f},a|b,2020-01-{1 + i % 28:02},{draw.randint(0, 1)},"
            f"{draw.choice(['train', 'valid', 'test'])}\n"
            for i in range(300)
        ]
        (logs / f"part-{number}.csv").write_text(f"{LOG.strip()},part\n{''.join(lines)}")
    (logs / "notes.md").write_text("not a table")
    (logs / "_SUCCESS").write_text("")
    item = values["data"]["mine"]
    item["download"] = {"path": "../logs"}
    item["preprocess"] = {"label": "click", "fields": FIELDS, "group": "user", "time": "ts", "keep": ["part"]}
    for split in ({"method": "column", "column": "part"}, {"method": "time"}, {"method": "user"}):
        item["split"] = split
        folder = tmp_path / split["method"]
        project.make_project(folder, datasets=["mine"], data=values["data"])
        data = run(folder, "mine")
        manifest = json.loads((data / "raw/mine/manifest.json").read_text())
        assert list(manifest["files"]) == ["part-0.csv", "part-1.csv"]
        report = json.loads((data / "processed/mine/report.json").read_text())
        assert sum(report[part]["rows"] for part in ("train", "valid", "test")) == 600
    table = pq.read_table(data / "interim/mine/table.parquet")
    assert set(table["part"].to_pylist()) == {"train", "valid", "test"}


# ---- damaged input ----

Damage = list[tuple[str, int, bytes]]
DAMAGE = st.lists(
    st.tuples(
        st.sampled_from(["bytes", "cut", "line", "swap", "header", "drop", "long", "join"]),
        st.integers(0, 400),
        st.sampled_from(
            [
                b'"',
                b'""',
                b"\x00",
                b"\xff",
                b"\xc3",
                b"\r",
                b"\n",
                b"\r\n",
                b"\n\n",
                b";",
                b",",
                b"\t",
                b"\\",
                b"\x1f",
                b"9" * 400,
                b"1e999",
                b"-",
                b"'",
                b"\xef\xbb\xbf",
                "\u2028é".encode(),
                b"\x1a",
                b'","',
                b"[",
                b"::",
            ]
        ),
    ),
    max_size=6,
)
BASE = (
    b"user,price,tags,ts,click\n"
    b"anna,1.5,a|b,2020-07-05 00:08:23,1\n"
    b"bert,,,2020-07-06,0\n"
    b"carl,3,[1],2020-07-07T01:02:03Z,1\n"
    b",nan,x,,0\n"
    b"dora,-7e2,y|y,2020-07-08,0\n"
)


def damaged(damage: Damage, data: bytes = BASE) -> bytes:
    """Damage bytes step by step."""
    for how, place, some in damage:
        at = place % (len(data) + 1)
        lines = data.split(b"\n")
        i = place % len(lines)
        if how == "bytes":
            data = data[:at] + some + data[at:]
        elif how == "cut":
            data = data[:at]
        elif how == "line":
            data = b"\n".join([*lines[:i], some, *lines[i:]])
        elif how == "swap":
            data = data.replace(b",", some, place % 9)
        elif how == "header":
            data = b"\n".join([lines[i], *lines[1:]])
        elif how == "drop":
            data = data[:at] + data[at + 5 :]
        elif how == "long":
            data = data[:at] + some * (place % 50) + data[at:]
        else:
            data = b"\n".join([*lines[:i], *lines[i + 1 :], *lines[:2]])
    return data


DIALECTS: list[dict[str, Any]] = [
    {},
    {},
    {"quote": None},
    {"escape": "\\"},
    {"encoding": "latin-1"},
    {"encoding": "gbk", "quote": None},
    {"separator": "|"},
    {"separator": "::"},
    {"names": ["user", "price", "tags", "ts", "click"]},
    {"decimal": ","},
]


def records_in(data: bytes, header: bool) -> int:
    """Count the lines that are not blank, without the header."""
    lines = (data.removeprefix(b"\xef\xbb\xbf") + b"\n").replace(b"\r\n", b"\n").split(b"\n")
    return sum(line != b"" for line in (lines[1:] if header else lines))


@pytest.fixture(scope="module", name="folder")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damaged")


@pytest.mark.slow
@settings(max_examples=4 * settings.default.max_examples)
@given(damage=DAMAGE, dialect=st.sampled_from(DIALECTS), whole=st.integers(0, 3))
def test_damaged_text_is_accounted_for_or_an_error_as_a_whole(
    folder: Path, damage: Damage, dialect: dict[str, Any], whole: int
):
    for steps in range(len(damage) + 1):  # every step of the damage is an input of its own
        data = damaged(damage[:steps])
        (folder / "log.csv").write_bytes(data)
        report = account(folder, write=not whole, fields=FIELDS, group="user", **dialect)
        plain = b'"' not in data or dialect.get("quote", '"') is None or dialect.get("separator") == "::"
        if report and plain and "escape" not in dialect:
            assert report["rows_in"] == records_in(data, "names" not in dialect)


def account(folder: Path, *, write: bool, **options: Any) -> dict[str, Any] | None:
    """Read a raw folder; return its account, which must be right, or None where there was an error."""
    rejects = RejectLog()
    try:
        log = tabular.read(folder, rejects, **{"label": "click", **options})
        if write:
            out = folder.parent / "written"
            out.mkdir(exist_ok=True)
            report = clean_table.write(out, log, rejects, "mine", max_rejected=1.0)
        else:
            rows = sum(len(table) for table in log.tables)
            report = rejects.check(rows, max_rejected=1.0, name="mine")
    except PipelineError:
        return None
    assert report["rows_in"] == report["rows_out"] + report["rejected"] + report["dropped"]
    return report


SCALARS: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.string(), st.text(max_size=4)),
    (pa.large_string(), st.sampled_from(["1", "0", "2020-01-01", ""])),
    (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    (pa.int8(), st.integers(-2, 2)),
    (pa.uint64(), st.integers(0, 2**64 - 1)),
    (pa.float64(), st.floats()),
    (pa.float32(), st.floats(width=32)),
    (pa.float16(), st.sampled_from([np.float16(x) for x in (0, 1, 0.1, np.inf, np.nan)])),
    (pa.bool_(), st.booleans()),
    (pa.decimal128(9, 2), st.sampled_from([Decimal("1.00"), Decimal("-0.05"), Decimal(0)])),
    (pa.date32(), st.dates()),
    (pa.timestamp("s"), st.integers(-(2**40), 2**40)),
    (pa.timestamp("ns", "UTC"), st.integers(-(2**62), 2**62)),
    (pa.time64("us"), st.times()),
    (pa.duration("us"), st.integers(-(2**40), 2**40)),
    (pa.binary(), st.binary(max_size=3)),
    (pa.null(), st.none()),
]


@st.composite
def arrays(draw: st.DrawFn, size: int) -> pa.Array:
    """A column of any type, nested ones among them, with missing values."""
    type_, values = draw(st.sampled_from(SCALARS))
    shape = draw(st.sampled_from(["plain", "plain", "plain", "list", "large", "struct", "lists", "coded"]))
    if shape in ("list", "large", "lists"):
        values = st.lists(st.one_of(st.none(), values), max_size=3)
        type_ = pa.large_list(type_) if shape == "large" else pa.list_(type_)
    if shape == "lists":
        values, type_ = st.lists(values, max_size=2), pa.list_(type_)
    if shape == "struct":
        values, type_ = st.fixed_dictionaries({"a": values}), pa.struct({"a": type_})
    array = pa.array(draw(st.lists(st.one_of(st.none(), values), min_size=size, max_size=size)), type_)
    coded = shape == "coded" and not pa.types.is_float16(type_) and not pa.types.is_null(type_)
    return array.dictionary_encode() if coded else array


SPECS = [
    "user",
    {"domain": "item", "type": "number"},
    {"domain": "item", "type": "bag"},
    {"domain": "context", "type": "timestamp"},
    {"domain": "context", "type": "timestamp", "format": "seconds", "parts": ["day", "month", "weekend"]},
]
LABELS = ["y", {"column": "y", "at_least": 1}, {"column": "y", "equals": [1, "x", True]}]


@pytest.mark.slow
@settings(max_examples=4 * settings.default.max_examples)
@given(data=st.data(), size=st.integers(0, 5), spec=st.sampled_from(SPECS), label=st.sampled_from(LABELS))
def test_parquet_of_any_types_is_accounted_for_or_an_error_as_a_whole(
    folder: Path, data: st.DataObject, size: int, spec: Any, label: Any
):
    table = pa.table({name: data.draw(arrays(size)) for name in ("x", "y", "t")})
    path = folder / "log.csv"  # known by its first bytes
    pq.write_table(table, path)
    for more in ({}, {"time": "t", "keep": ["t"], "missing": ["0"]}):
        report = account(folder, write="time" in more, fields={"x": spec}, label=label, group="x", **more)
        assert report is None or report["rows_in"] == size
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(1, len(whole) - 1))])
    assert account(folder, write=False, fields={"x": spec}, label=label) is None


def test_a_blank_is_missing_whatever_else_is(tmp_path: Path) -> None:
    plan = tabular.plan_of(fields={"user": "user"}, missing=["n/a"])
    assert plan.missing == {"", "n/a"}
