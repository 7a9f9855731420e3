"""The clean table: what is written comes back, whatever the blocks; rows and fields can be left out."""

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.common.errors import PipelineError
from pipeline.common.files import folder_digest
from pipeline.preprocess import clean_table
from pipeline.preprocess.clean_table import CleanTable, ClickLog, write
from pipeline.preprocess.parse import chunk
from pipeline.preprocess.rejects import RejectLog
from pipeline.preprocess.text import CODED
from pipeline.schema import Column

COLUMNS = (
    Column("city", "category", "user"),
    Column("tags", "bag", "item", ";"),
    Column("price", "number", "item"),
)
FIELDS = [column.name for column in COLUMNS]
Rows = list[dict[str, Any]]


def row(number: int) -> dict[str, Any]:
    """A row that tells its number."""
    return {
        "city": [None, "Oslo", "Bonn", ""][number % 4],
        "tags": [None, "a;b", f"t{number}"][number % 3],
        "price": None if number % 5 == 0 else number / 4,
        "label": number % 2,
        "group": f"u{number % 7}",
        "time": 1000 - number,
        "fold": ["train", "test", None][number % 3],
    }


ROWS = [row(number) for number in range(50)]
TYPES = {"price": pa.float64(), "label": pa.uint8(), "time": pa.int64()}


def table_of(rows: Rows, *, coded: bool = True) -> pa.Table:
    text = CODED if coded else pa.string()
    return pa.table({name: pa.array([r[name] for r in rows], TYPES.get(name, text)) for name in ROWS[0]})


def log_of(rows: Rows, rejects: RejectLog, cuts: list[int]) -> ClickLog:
    """A source that hands out rows in pieces, now coded and now plain, and counts what it has read."""

    def tables() -> Iterator[pa.Table]:
        ends = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
        for number, (start, end) in enumerate(pairwise(ends)):
            rejects.count("log", end - start)
            yield table_of(rows[start:end], coded=number % 2 == 0)

    rejects.count("log", 0)
    return ClickLog(COLUMNS, tables())


def written(
    folder: Path, cuts: list[int], of: Rows = ROWS, **options: Any
) -> tuple[CleanTable, dict[str, Any]]:
    folder.mkdir(exist_ok=True)
    rejects = RejectLog()
    report = write(folder, log_of(of, rejects, cuts), rejects, "toy", {"from": "here"}, **options)
    return CleanTable(folder), report


def rows_of(table: CleanTable) -> Rows:
    """Fields and all else, row by row."""
    names = [name for name in table.names if name not in FIELDS]
    fields = [r for block in table.field_blocks() for r in block.to_pylist()]
    others = {
        name: [value for block in table.column_blocks(name) for value in block.to_pylist()] for name in names
    }
    return [
        {**field, **dict(zip(others, rest, strict=True))}
        for field, rest in zip(fields, zip(*others.values(), strict=True), strict=True)
    ]


def sizes_of(cuts: list[int], block: int) -> list[int]:
    """The blocks that come of the pieces: as many of them in one as make it full."""
    sizes = [0]
    for start, end in pairwise([0, *sorted(cuts), len(ROWS)]):
        sizes[-1] += end - start
        if sizes[-1] >= block:
            sizes.append(0)
    return [size for size in sizes if size]


CUTS = st.lists(st.integers(0, len(ROWS)), max_size=6)


@given(cuts=CUTS, block=st.integers(1, 60), fields=st.permutations(FIELDS), count=st.integers(1, 3))
def test_what_is_written_comes_back_in_whatever_blocks(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], block: int, fields: list[str], count: int
):
    folder = tmp_path_factory.mktemp("interim")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clean_table, "ROWS_PER_BLOCK", block)
        table, report = written(folder, cuts, fields=fields[:count])
    assert [column.name for column in table.columns] == fields[:count]
    assert table.columns == [column for name in fields[:count] for column in COLUMNS if column.name == name]
    kept = [name for name in ROWS[0] if name not in FIELDS or name in fields[:count]]
    assert rows_of(table) == [{name: r[name] for name in kept} for r in ROWS]
    assert len(table) == sum(table.block_rows) == len(ROWS)
    assert table.block_rows == sizes_of(cuts, block)
    assert (report["rows_in"], report["rows_out"], report["clicks"]) == (50, 50, 25)
    for part in table.field_blocks():
        types = {name: part.schema.field(name).type for name in part.column_names}
        assert types == {name: pa.float64() if name == "price" else CODED for name in fields[:count]}
    rest = table.load_extra("fold")
    assert rest["group"].to_pylist() == [number % 7 for number in range(50)]
    assert rest["label"].to_pylist() == [r["label"] for r in ROWS]


def test_the_same_rows_make_the_same_files(tmp_path: Path):
    for name in ("a", "b"):
        written(tmp_path / name, [20])
    assert folder_digest(tmp_path / "a") == folder_digest(tmp_path / "b")


@given(cuts=CUTS, rows=st.integers(1, 60))
def test_the_first_rows_alone_are_kept_nothing_behind_them_is_read_and_the_account_adds_up(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], rows: int
):
    table, report = written(tmp_path_factory.mktemp("interim"), cuts, rows=rows)
    assert rows_of(table) == ROWS[:rows]
    ends = sorted({*(cut for cut in cuts), len(ROWS)})
    read = next((end for end in ends if end >= rows), len(ROWS))
    assert report["rows_in"] == read
    assert report["rows_out"] == min(rows, len(ROWS)) == read - report["dropped"]
    assert report["clicks"] == sum(r["label"] for r in ROWS[:rows])


def test_rows_behind_the_last_are_not_asked_for(tmp_path: Path):
    rejects = RejectLog()

    def tables() -> Iterator[pa.Table]:
        for start in (0, 10):
            rejects.count("log", 10)
            yield table_of(ROWS[start : start + 10])
        pytest.fail("twenty rows are enough")

    write(tmp_path, ClickLog(COLUMNS, tables()), rejects, "toy", rows=20)
    assert len(CleanTable(tmp_path)) == 20


def test_what_is_dropped_belongs_to_the_last_file_of_the_log_that_was_read(tmp_path: Path):
    rejects = RejectLog()

    def tables() -> Iterator[pa.Table]:
        rejects.count("side", 3, side_table=True)
        for file in ("first", "second"):
            rejects.count(file, 10)
            yield table_of(ROWS[:10])

    report = write(tmp_path, ClickLog(COLUMNS, tables()), rejects, "toy", rows=14)
    assert {file: tally["dropped"] for file, tally in report["files"].items()} == {
        "side": 0,
        "first": 0,
        "second": 6,
    }


def test_the_report_is_written_as_it_is_returned(tmp_path: Path):
    _, report = written(tmp_path, [])
    assert json.loads((tmp_path / "report.json").read_text()) == report
    assert report["dataset"] == "toy" and report["origin"] == {"from": "here"} == CleanTable(tmp_path).origin


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (["city", "tag"], "toy: preprocess.fields: unknown field 'tag'; did you mean 'tags'"),
        (["label"], "unknown field 'label'"),
        ([], "must name at least one field, and none more than once"),
        (["city", "tags", "city"], "must name at least one field, and none more than once"),
    ],
)
def test_fields_that_cannot_be_kept_are_an_error(tmp_path: Path, fields: list[str], message: str):
    with pytest.raises(PipelineError, match=message):
        written(tmp_path, [], fields=fields)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("cuts", [[], [10, 20]])
def test_a_row_without_its_group_is_an_error_that_says_which(tmp_path: Path, cuts: list[int]):
    rows = [dict(r) for r in ROWS]
    rows[31]["group"] = rows[40]["group"] = None
    with pytest.raises(
        PipelineError, match=r"toy: the column 'group' has no value in row 31 .*give it no group"
    ):
        written(tmp_path, cuts, rows)


def test_groups_are_numbered_by_their_first_rows_whatever_their_names_and_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    groups = ["z", "a", "z", "ß", "", "a", "m", "z"]
    rows = [{**ROWS[0], "group": group} for group in groups]
    for block in (1, 3, 100):
        monkeypatch.setattr(clean_table, "ROWS_PER_BLOCK", block)
        table, _ = written(tmp_path / str(block), [2, 5], rows)
        codes = table.load_extra()["group"]
        assert codes.type == pa.int32()
        assert codes.to_pylist() == [0, 1, 0, 2, 3, 1, 4, 0]


def test_groups_are_numbered_by_their_first_rows_whatever_the_order_of_a_dictionary(tmp_path: Path):
    rejects = RejectLog()
    rejects.count("log", 4)
    group = pa.DictionaryArray.from_arrays(pa.array([3, 1, 3, 0], pa.int32()), ["a", "b", "unused", "c"])
    table = table_of(ROWS[:4]).drop_columns("group").append_column("group", group)
    write(tmp_path, ClickLog(COLUMNS, iter([table])), rejects, "toy")
    assert CleanTable(tmp_path).load_extra()["group"].to_pylist() == [0, 1, 0, 2]


def test_a_column_that_is_no_field_comes_when_it_is_named(tmp_path: Path):
    table, _ = written(tmp_path, [])
    assert table.load_extra().column_names == ["label", "group", "time"]
    assert table.load_extra("fold", "nowhere").column_names == ["label", "group", "time", "fold"]
    assert table.load_extra("fold")["fold"].to_pylist() == [r["fold"] for r in ROWS]
    assert table.load_extra("city")["city"].to_pylist() == [r["city"] for r in ROWS]


def test_refused_records_above_the_limit_are_an_error(tmp_path: Path):
    rejects = RejectLog()
    log = log_of(ROWS, rejects, [])
    rejects.count("log", 1)
    rejects.reject("log", 51, "torn")
    with pytest.raises(PipelineError, match="toy: 1 of 51 records of log are corrupted"):
        write(tmp_path, log, rejects, "toy")
    rejects = RejectLog()
    log = log_of(ROWS, rejects, [])
    rejects.count("log", 1)
    rejects.reject("log", 51, "torn")
    assert write(tmp_path, log, rejects, "toy", max_rejected=0.02)["rejected"] == 1


@pytest.mark.parametrize("tables", [[], [table_of([])], [table_of([]), table_of([])]])
def test_no_rows_are_an_error(tmp_path: Path, tables: list[pa.Table]):
    with pytest.raises(PipelineError, match="toy holds no rows"):
        write(tmp_path, ClickLog(COLUMNS, iter(tables)), RejectLog(), "toy")


def test_a_value_that_no_row_holds_any_more_changes_nothing(tmp_path: Path):
    """A reader refuses rows and leaves their values in its dictionaries."""
    rejects = RejectLog()
    rejects.count("log", 50)
    rejects.drop("log", 25)
    odd = table_of(ROWS).filter(pa.array(np.arange(50) % 2 == 1))
    write(tmp_path, ClickLog(COLUMNS, iter([odd])), rejects, "toy")
    assert rows_of(CleanTable(tmp_path)) == ROWS[1::2]


def test_a_missing_table_is_an_error(tmp_path: Path):
    with pytest.raises(PipelineError, match=r"table\.parquet is missing; run the preprocess stage again"):
        CleanTable(tmp_path)


def test_text_comes_coded_even_where_parquet_gave_its_dictionary_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(clean_table, "DICTIONARY_BYTES", 100)
    rows = [{**ROWS[1], "city": f"{number:040d}"} for number in range(3000)]
    table, _ = written(tmp_path, [], rows)
    column = pa.chunked_array(list(table.column_blocks("city")))
    assert column.type == CODED
    assert column.to_pylist() == [r["city"] for r in rows]


WHO_AND_WHAT = tuple(
    Column(name, "category", domain, role=role)
    for name, domain, role in (
        ("user", "user", "user"),
        ("device", "user", None),
        ("item", "item", None),
        ("C14", "item", None),
    )
)


def declared(folder: Path, columns: tuple[Column, ...] = WHO_AND_WHAT, **options: Any) -> CleanTable:
    """A table without groups, of which the entry says who and what."""
    rows = {
        column.name: [f"{column.name}{n % 3}" if n % 4 else None for n in range(12)] for column in columns
    }
    rejects = RejectLog()
    rejects.count("log", 12)
    table = pa.table({**rows, "label": pa.array([0, 1] * 6, pa.uint8())})
    folder.mkdir(exist_ok=True)
    write(folder, ClickLog(columns, iter([table])), rejects, "toy", **options)
    return CleanTable(folder)


@pytest.mark.parametrize(
    ("options", "roles", "group"),
    [
        ({}, {"user": "user"}, "user"),
        ({"user": "device", "item": "C14"}, {"device": "user", "C14": "item"}, "device"),
        ({"item": "item", "fields": ["item"]}, {"item": "item"}, None),
    ],
)
def test_user_and_item_are_those_of_the_entry_or_of_the_dataset_and_the_user_is_the_group(
    tmp_path: Path, options: dict[str, Any], roles: dict[str, str], group: str | None
) -> None:
    table = declared(tmp_path, **options)
    assert {column.name: column.role for column in table.columns if column.role} == roles
    assert ("group" in table.names) == (group is not None)
    if group:
        users = chunk(pa.chunked_array(list(table.column_blocks("group")))).to_pylist()
        assert users == [f"{group}{n % 3}" if n % 4 else "" for n in range(12)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"user": "devise"}, r"preprocess.user: unknown field of the type category 'devise'.*'device'"),
        ({"item": "device", "fields": ["user"]}, "preprocess.item: unknown field"),
        ({"item": "user"}, "'user' cannot be both the user and the item"),
    ],
)
def test_a_user_or_item_that_is_no_field_is_an_error(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(PipelineError, match=message):
        declared(tmp_path, **options)


def test_a_bag_identifies_nobody(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"preprocess.item: unknown field of the type category 'tags'"):
        written(tmp_path, [], item="tags")
