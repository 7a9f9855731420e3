"""The first look at a log: what it guesses, that its dataset entry works, and that no file is a traceback."""

import gzip
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, get_args

import project
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML
from test_tabular import DAMAGE, Damage, arrays, damaged

from pipeline import __main__ as commands
from pipeline import inspection
from pipeline.common.errors import PipelineError
from pipeline.config.params import Params
from pipeline.datasets import tabular
from pipeline.inspection import Inspection, inspect, profiling
from pipeline.inspection.entry import one_line
from pipeline.inspection.guessing import words
from pipeline.inspection.sniffing import encoding_of
from pipeline.preprocess.rejects import RejectLog
from pipeline.schema import Role

Entry = dict[str, Any]
CLICK = "click"
COMMAS = str.maketrans(",.", ".,")


def log(
    count: int = 600, *, seed: int = 1, **columns: Callable[[int, random.Random], Any]
) -> list[list[str]]:
    """Rows of a log as texts, the header first; a column is a function of the row's number and of chance."""
    draw = random.Random(seed)
    made = {
        "user_id": lambda i, r: f"u{r.randint(0, 30)}",
        **columns,
        CLICK: lambda i, r: str(int(r.random() < 0.3)),
    }
    return [list(made), *([str(make(i, draw)) for make in made.values()] for i in range(count))]


def text(rows: list[list[str]], separator: str = ",", end: str = "\n") -> str:
    return "".join(separator.join(row) + end for row in rows)


def parsed(found: Inspection) -> Entry:
    """The entry, as params.yaml would have it."""
    values: dict[str, Entry] = YAML(typ="safe", pure=True).load(f"data:\n{found.entry}")["data"]
    (entry,) = values.values()
    return entry


def fields_of(found: Inspection) -> dict[str, Any]:
    fields: dict[str, Any] = parsed(found)["preprocess"]["fields"]
    return fields


def row_of(found: Inspection, column: str) -> list[str]:
    """The cells of a column in the table."""
    lines = [line for line in found.report.splitlines() if line.startswith(f"  {column} ")]
    return [cell.strip() for cell in lines[0].split("  ") if cell.strip()]


Look = Callable[..., Inspection]


@pytest.fixture(name="look")
def _look(tmp_path: Path) -> Look:
    """Write a file and inspect it; the entry must pass the check of params.yaml and be readable."""

    def go(content: Any, name: str = "log.csv", **options: Any) -> Inspection:
        folder = tmp_path / "raw"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        path = folder / name
        if isinstance(content, pa.Table):
            pq.write_table(content, path)
        else:
            content = text(content) if isinstance(content, list) else content
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        found = inspect(path, "mine", **options)
        if found.complete:
            check_entry(parsed(found), folder)
        return found

    return go


PARAMS = project.small_params(models=["lr"])
PARAMS["tune"]["space"]["model"] = {}
PARAMS |= {"model": {"lr": {}}, "data": {"synthetic": PARAMS["data"]["synthetic"]}}


def with_entry(entry: Entry) -> dict[str, Any]:
    return {**PARAMS, "data": {**PARAMS["data"], "mine": entry}}


def read(folder: Path, rejects: RejectLog, entry: Entry) -> Iterator[pa.Table]:
    """Read a folder as the entry says; user and item are for whoever writes the table."""
    keys = {key: value for key, value in entry["preprocess"].items() if key not in get_args(Role)}
    return tabular.read(folder, rejects, **keys).tables


def check_entry(entry: Entry, folder: Path) -> int:
    """Check an entry as params.yaml is checked, and read the folder with it; return the number of rows."""
    Params(with_entry(entry))
    return sum(len(table) for table in read(folder, RejectLog(), entry))


# ---- what a column is ----


@pytest.mark.parametrize(
    ("name", "make", "kind", "field"),
    [
        ("city", lambda i, r: ["Aldea", "Brovik"][i % 30 % 2], "category", "user"),
        ("item_id", lambda i, r: r.randint(100, 130), "category", "item"),
        ("itemId", lambda i, r: 10**6 + r.randint(0, 200), "category", "item"),
        ("zip", lambda i, r: f"0{1000 + 77 * (i % 30 // 2)}", "category", "user"),
        ("slot", lambda i, r: i % 4, "category", "context"),
        ("hash", lambda i, r: r.randint(10**17, 10**17 + 99), "category", "context"),
        (
            "age",
            lambda i, r: 18 + i % 30 // 2 * 62 // 14,
            "number, 18 to 80",
            {"domain": "user", "type": "number"},
        ),
        (
            "price",
            lambda i, r: r.choice(["1.5", "2e2", "-3", "0.25"]),
            "number, -3 to 200",
            {"domain": "item", "type": "number"},
        ),
        ("wait_ms", lambda i, r: i * 7, "number, 0 to 4193", {"domain": "context", "type": "number"}),
        (
            "tags",
            lambda i, r: "|".join(r.sample("abcd", r.randint(0, 3))),
            "bag, separator |",
            {"domain": "item", "type": "bag", "separator": "|"},
        ),
        (
            "genres",
            lambda i, r: '"' + ", ".join(r.sample("abcd", 2)) + '"',
            "bag, separator ,",
            {"domain": "item", "type": "bag", "separator": ","},
        ),
        (
            "history",
            lambda i, r: " ".join(str(r.randint(1, 99)) for _ in range(r.randint(1, 4))),
            "bag, separator space",
            {"domain": "context", "type": "bag", "separator": " "},
        ),
        (
            "feat",
            lambda i, r: f'"[{i % 5}, {i % 3}]"',
            "bag, a list in brackets",
            {"domain": "context", "type": "bag", "separator": ","},
        ),
        ("place", lambda i, r: f'"{r.choice("ab")}, {r.choice("cd")}"', "category", "context"),
        (
            "ts",
            lambda i, r: datetime.fromtimestamp(1.6e9 + 9000 * i, UTC).isoformat(),
            "time, 2020-09-13 to 2020-11-14",
            {"domain": "context", "type": "timestamp", "parts": ["hour", "weekday"]},
        ),
        (
            "when",
            lambda i, r: datetime.fromtimestamp(1.6e9 + 9000 * i, UTC).strftime("%d.%m.%Y %H:%M"),
            "time, 2020-09-13 to 2020-11-14",
            {
                "domain": "context",
                "type": "timestamp",
                "format": "%d.%m.%Y %H:%M",
                "parts": ["hour", "weekday"],
            },
        ),
        (
            "epoch",
            lambda i, r: 1600000000 + 9000 * i,
            "time, 2020-09-13 to 2020-11-14",
            {"domain": "context", "type": "timestamp", "format": "seconds", "parts": ["hour", "weekday"]},
        ),
        (
            "epoch",
            lambda i, r: 1600000000000 + 9000000 * i,
            "time, 2020-09-13 to 2020-11-14",
            {
                "domain": "context",
                "type": "timestamp",
                "format": "milliseconds",
                "parts": ["hour", "weekday"],
            },
        ),
        (
            "epoch",
            lambda i, r: 1600000000 + 1000 * i,
            "time, 2020-09-13 to 2020-09-20",
            {"domain": "context", "type": "timestamp", "format": "seconds", "parts": ["hour"]},
        ),
        (
            "hour",
            lambda i, r: 20102100 + i % 24,
            "time, 2020-10-21 to 2020-10-21",
            {"domain": "context", "type": "timestamp", "format": "%y%m%d%H", "parts": ["hour"]},
        ),
        (
            "day",
            lambda i, r: date.fromordinal(737000 + i % 50),
            "time, 2018-11-02 to 2018-12-21",
            {"domain": "context", "type": "timestamp", "parts": ["weekday"]},
        ),
        (
            "amount",
            lambda i, r: f'"{i % 9},{r.randint(10, 99)}"',
            "decimal comma",
            {"domain": "context", "type": "number"},
        ),
    ],
)
def test_a_column_is_guessed_from_its_values_and_its_name(
    look: Look, name: str, make: Callable[..., Any], kind: str, field: Any
):
    found = look(log(user_id=lambda i, r: f"u{i % 30}", **{name: make}))
    assert kind in row_of(found, name)[1] + row_of(found, name)[2]
    assert fields_of(found) == {"user_id": "user", name: field}


def test_of_many_bags_the_first_are_named_and_the_rest_counted(look: Look) -> None:
    tags = lambda i, r: "|".join(r.sample("abcd", r.randint(0, 3)))
    found = look(log(**{f"tags_{number}": tags for number in range(7)}))
    assert "8 values (tags_0, tags_1, tags_2, tags_3, tags_4 and 2 more);" in found.report


@pytest.mark.parametrize(
    ("name", "make", "kind", "comment"),
    [
        ("row", lambda i, r: i, "unique in every row", "# row: context  # unique in every row"),
        (
            "uuid",
            lambda i, r: f"x{r.random()}",
            "unique in every row",
            "# uuid: context  # unique in every row",
        ),
        ("country", lambda i, r: "NL", "constant", "# country: user  # constant"),
        ("void", lambda i, r: "NULL", "empty", "# void: empty"),
        (
            "part",
            lambda i, r: ["train", "train", "test"][i % 3],
            "split",
            "split: {method: column, column: part, seed: 1024, valid: 0.1}",
        ),
        (
            "note",
            lambda i, r: f"some words that somebody wrote about number {i % 400}",
            "free text",
            "# note: context  # free text",
        ),
    ],
)
def test_a_useless_column_is_left_in_the_entry_as_a_comment(
    look: Look, name: str, make: Callable[..., Any], kind: str, comment: str
):
    found = look(log(**{name: make}))
    assert row_of(found, name)[1] == kind
    assert comment in found.entry
    assert fields_of(found) == {"user_id": "user"}


def test_what_varies_from_row_to_row_of_an_item_or_user_is_of_the_context(look: Look) -> None:
    """Whatever its name; a price that changes now and then, an id and a history are as they are called."""
    found = look(
        log(
            2000,
            item_id=lambda i, r: f"i{i % 40}",
            user_id=lambda i, r: f"u{i % 31}",
            bid_price=lambda i, r: "" if r.random() < 0.1 else f"{r.random():.6f}",
            price=lambda i, r: f"{i % 40 + (r.random() < 0.1)}.5",
            brand=lambda i, r: "" if i % 3 == 0 else f"b{i % 40 % 6}",
            category=lambda i, r: r.choice("abc"),
            age=lambda i, r: 20 + i % 31 // 2,
            location=lambda i, r: r.choice("wxyz"),
            campaign_id=lambda i, r: f"c{r.randint(0, 9)}",
            tags=lambda i, r: "|".join(r.sample("abcd", 2)),
            tier=lambda i, r: "abcd"[i % 31 % 4],
            shelf=lambda i, r: i % 40 // 7,
            hour=lambda i, r: r.randint(0, 23),
            app=lambda i, r: "old" if r.random() < 0.01 else "new",
        )
    )
    assert {
        name: spec if isinstance(spec, str) else spec["domain"] for name, spec in fields_of(found).items()
    } == {
        "user_id": "user",
        "item_id": "item",
        "bid_price": "context",
        "price": "item",
        "brand": "item",
        "category": "context",
        "age": "user",
        "location": "context",
        "campaign_id": "item",
        "tags": "item",
        "tier": "user",
        "shelf": "item",
        "hour": "context",
        "app": "context",
    }
    alone = look(log(bid_price=lambda i, r: f"{r.random():.6f}"))
    assert fields_of(alone)["bid_price"]["domain"] == "item", "no item says otherwise"


@pytest.mark.parametrize(
    ("names", "missing"),
    [(("user_id", "item_id"), []), (("user_id", "b2"), ["item"]), (("a1", "b2"), ["user", "item"])],
)
def test_it_says_when_no_column_is_called_like_a_user_or_an_item(
    names: tuple[str, str], missing: list[str], look: Look
) -> None:
    head, *rows = log(user_id=lambda i, r: f"u{i % 31}", item_id=lambda i, r: f"i{i % 40}")
    called = dict(zip(("user_id", "item_id"), names, strict=True))
    report = look([[called.get(name, name) for name in head], *rows]).report
    said = [role for role in ("user", "item") if f"  {role}: no column is called like its id" in report]
    assert said == missing
    assert all(f"write `{role}: NAME` in the entry" in report for role in missing)


def test_distinct_and_missing_values_are_counted_and_the_first_shown(look: Look):
    rows = log(city=lambda i, r: ["Aldea", "", "Brovik\u0007", "C" * 50, "NA"][i % 5])
    assert row_of(look(rows), "city")[1:] == [
        "category",
        "3",
        "40.0 %",
        "Aldea, Brovik\\x07, CCCCCCCCCCCCCCCCCCCCC...",
    ]


def test_beyond_the_bound_the_number_of_values_is_a_lower_bound(look: Look, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(profiling, "MAX_DISTINCT", 100)
    found = look(log(3000, item_id=lambda i, r: r.randint(0, 999), key=lambda i, r: i))
    assert row_of(found, "item_id")[1:3] == ["category", ">= 100"]
    assert row_of(found, "key")[1:3] == ["unique in every row", ">= 100"]


def test_few_odd_values_do_not_change_a_type_but_are_reported(look: Look):
    def price(i: int, r: random.Random) -> str:
        return "oops" if i == 100 else "?" if i % 7 == 0 else f"{r.random():.2f}"

    found = look(log(4000, price=price, at=lambda i, r: "never" if i == 9 else f"2020-01-{1 + i % 28:02}"))
    assert "price: 1 of 4,000 values are no number; these records will be rejected" in found.report
    assert "at: 1 of 4,000 values are no time (iso); these records will be rejected" in found.report
    assert parsed(found)["preprocess"]["missing"][-1] == "?"
    assert fields_of(found)["price"] == {"domain": "item", "type": "number"}


def test_a_few_words_among_numbers_are_reported_with_what_to_do(look: Look):
    odd = look(log(1000, price=lambda i, r: "on request" if i % 50 == 0 else f"{r.random():.2f}"))
    assert row_of(odd, "price")[1] == "category"
    assert "price: 98.0 % of its values are numbers, 20 are not, so it is a category;" in odd.report
    half = look(log(1000, price=lambda i, r: "on request" if i % 2 == 0 else f"{r.random():.2f}"))
    assert "% of its values are numbers" not in half.report


WRITTEN: dict[str, tuple[Callable[[float], str], str]] = {
    "point and comma": (
        lambda amount: f"{amount:,.2f}".translate(COMMAS),
        "as in 1.234,31; if it is an amount, write them as 1234.31, or as 1234,31 with `decimal: ','`, and",
    ),
    "comma and point": (
        lambda amount: f"{amount:,.2f}",
        "as in 1,234.31; if it is an amount, write them as 1234.31, and inspect again",
    ),
    "commas alone": (
        lambda amount: f"{int(amount):,}",
        "as in 1,234; if it is an amount, write them as 1234, and",
    ),
    "apostrophe": (lambda amount: f"{amount:,.2f}".replace(",", "'"), "as in 1'234.31; if it"),
    "blank and comma": (
        lambda amount: f"{amount:,.2f}".replace(",", " ").replace(".", ","),
        "as in 1 234,31; if it",
    ),
    "comma": (lambda amount: f"{amount:.2f}".replace(".", ","), ""),
    "point": (lambda amount: f"{amount:.3f}", ""),
    "three parts": (lambda amount: f"10.{100 + int(amount) % 7}.{100 + int(amount) % 9}", ""),
    "words": (lambda amount: f"a,{int(amount) % 90}", ""),
}


@pytest.mark.parametrize(("write", "told"), WRITTEN.values(), ids=WRITTEN)
@pytest.mark.parametrize("large", [1, 25])
def test_numbers_with_signs_between_thousands_are_told_to_be_no_numbers(
    look: Look, write: Callable[[float], str], told: str, large: int
) -> None:
    """Whether all are large, and where prices differ in every row, or few are."""

    def price(i: int, r: random.Random) -> str:
        return write(1234.31 if i == 0 else 1000 + 777.77 * i if i % large == 0 else 1 + i % 900)

    found = look(text(log(price=price), ";"))
    lines = [line for line in found.report.splitlines() if line.startswith("  ! price")]
    assert [told in line for line in lines] == ([True] if told else [])


def test_records_without_a_user_are_told_to_count_as_one(look: Look):
    found = look(log(1000, user_id=lambda i, r: "" if i % 10 == 0 else f"u{r.randint(0, 50)}"))
    assert "user_id: 100 records without a value count as one user" in found.report
    assert "count as one" not in look(log(1000)).report


def test_months_and_days_that_could_be_either_are_reported(look: Look):
    found = look(log(date=lambda i, r: f"{1 + i % 9:02}/{1 + i % 11:02}/2020"))
    assert "its times could be %m/%d/%Y as well as %d/%m/%Y: check the format" in found.report


def test_words_of_a_name():
    assert words("AdGroupID_2") == ["ad", "group", "id", "2"]
    assert words("größe-cm") == ["gr", "öß", "e", "cm"] or words("größe-cm")


# ---- the label ----


@pytest.mark.parametrize(
    ("name", "make", "label", "rate"),
    [
        ("clicked", lambda i, r: i % 4 // 3, "clicked", "25.00 %"),
        ("is_click", lambda i, r: i % 4 == 0, "is_click", "25.00 %"),
        ("target", lambda i, r: [-1, 1][i % 2], {"column": "target", "at_least": 1}, "50.00 %"),
        ("rating", lambda i, r: 1 + i % 5, {"column": "rating", "at_least": 4}, "40.00 %"),
        ("stars", lambda i, r: 0.5 * (i % 11), {"column": "stars", "at_least": 3}, "45.45 %"),
        (
            "event",
            lambda i, r: ["view", "purchase", "view"][i % 3],
            {"column": "event", "equals": "purchase"},
            "33.33 %",
        ),
        ("clk", lambda i, r: [0, 1, 2, 0][i % 4], {"column": "clk", "at_least": 1}, "50.00 %"),
        (
            "label",
            lambda i, r: ["good", "bad", "bad"][i % 3],
            {"column": "label", "equals": "good"},
            "33.33 %",
        ),
        ("mobile", lambda i, r: int(i % 10 == 0), "mobile", "10.00 %"),
    ],
)
def test_the_label_is_found(look: Look, name: str, make: Callable[..., Any], label: Any, rate: str):
    rows = [row[:-1] for row in log(660, **{name: make})]
    found = look(rows)
    assert parsed(found)["preprocess"]["label"] == label
    assert f"{rate} clicks" in found.report
    assert name not in fields_of(found)
    assert ("--label COLUMN" in found.report) == (name == "mobile")


def test_other_candidates_are_shown_and_can_be_chosen(look: Look):
    rows = log(rating=lambda i, r: 1 + i % 5, mobile=lambda i, r: i % 2)
    found = look(rows)
    assert parsed(found)["preprocess"]["label"] == "click"
    assert "or: {column: rating, at_least: 4}, 40.00 % clicks" in found.report
    assert "or: mobile, 50.00 % clicks" in found.report
    found = look(rows, label="rating")
    assert parsed(found)["preprocess"]["label"] == {"column": "rating", "at_least": 4}
    with pytest.raises(PipelineError, match="--label: unknown column 'ratin'; did you mean 'rating'"):
        look(rows, label="ratin")
    with pytest.raises(PipelineError, match=r"--label: no rule splits the values of 'user_id' \(category\)"):
        look(rows, label="user_id")


@pytest.mark.parametrize("column", ["rating", "click"])
def test_one_damaged_value_does_not_hide_a_label(look: Look, column: str):
    rows = log(3000, rating=lambda i, r: 1 + i % 5)
    rows[7][rows[0].index(column)] = "broken"
    found = look(rows)
    assert parsed(found)["preprocess"]["label"] == "click"
    assert "or: {column: rating, at_least: 4}" in found.report


def with_values(count: int, column: str, values: dict[int, str], **columns: Any) -> list[list[str]]:
    """Rows of a log of which some hold another value in a column; a row's number is its line."""
    rows = log(count, **columns)
    for line, value in values.items():
        rows[line - 1][rows[0].index(column)] = value
    return rows


def after_label(found: Inspection, label: str, folder: Path) -> tuple[int, int, int]:
    """Put another label into an entry and read the folder; return rows out, rejected and dropped."""
    entry = parsed(found)
    entry["preprocess"]["label"] = YAML(typ="safe", pure=True).load(label)["label"]
    Params(with_entry(entry))
    rejects = RejectLog()
    out = sum(len(table) for table in read(folder, rejects, entry))
    tallies = rejects.files.values()
    return out, sum(tally.rejected for tally in tallies), sum(tally.dropped for tally in tallies)


def proposed(found: Inspection) -> list[str]:
    """The labels that the warning proposes."""
    return [line.split("`")[1] for line in found.report.splitlines() if "`label: " in line]


@pytest.mark.parametrize("count", [600, 3000])
def test_a_label_that_is_neither_is_reported_with_its_line_and_what_to_do(
    look: Look, tmp_path: Path, count: int
) -> None:
    found = look(with_values(count, CLICK, {7: "maybe", 9: "Perhaps", 300: "maybe"}))
    assert parsed(found)["preprocess"]["label"] == CLICK
    assert (
        f"  ! 3 of {count:,} labels are neither positive (1, true, yes) nor negative (0, false, no): "
        "maybe (2, first at log.csv:7), Perhaps (1, first at log.csv:9)\n"
    ) in found.report
    assert ("more than preprocess allows" in found.report) == (count == 600)
    left_out, clicked = proposed(found)
    assert after_label(found, f"label: {CLICK}", tmp_path / "raw") == (count - 3, 3, 0)
    assert after_label(found, left_out, tmp_path / "raw") == (count - 3, 0, 3)
    assert after_label(found, clicked, tmp_path / "raw") == (count, 0, 0)


def test_a_label_that_is_often_neither_can_be_named(look: Look) -> None:
    rows = [row[:-1] for row in log(600, wanted=lambda i, r: ["yes", "no", "YES", "maybe", "no"][i % 5])]
    found = look(rows, label="wanted")
    assert parsed(found)["preprocess"]["label"] == "wanted"
    assert "120 of 600 labels are neither" in found.report
    assert "maybe (120, first at log.csv:5)" in found.report
    assert proposed(found)[1] == "label: {column: wanted, equals: [yes, YES, maybe]}"


def test_of_many_labels_that_are_neither_the_first_are_reported(look: Look, tmp_path: Path) -> None:
    found = look(with_values(600, CLICK, {line: f"x{line}" for line in range(20, 40, 2)}))
    assert "x20 (1, first at log.csv:20), x22 (1, first at log.csv:22), x24 (1, first at log.csv:24)" in (
        found.report
    )
    assert ", 7 other values\n" in found.report
    assert after_label(found, proposed(found)[0], tmp_path / "raw") == (590, 0, 10)


def test_a_rating_that_is_no_number_is_reported_with_its_line(look: Look, tmp_path: Path) -> None:
    rows = with_values(3000, "rating", {8: "broken"}, rating=lambda i, r: 1 + i % 5)
    found = look([row[:-1] for row in rows])
    assert "1 of 3,000 labels are not numbers: broken (1, first at log.csv:8)" in found.report
    assert proposed(found) == ["label: {column: rating, at_least: 4, drop: [broken]}"]
    assert after_label(found, proposed(found)[0], tmp_path / "raw") == (2999, 0, 1)


def test_a_label_in_a_later_file_and_in_parquet_is_found(tmp_path: Path) -> None:
    rows = log(600)
    (tmp_path / "a.csv").write_text(text(rows))
    (tmp_path / "b.csv").write_text(text(with_values(600, CLICK, {12: "maybe"})))
    assert "maybe (1, first at b.csv:12)" in inspect(tmp_path, "mine").report
    columns = {name: [row[i] for row in rows[1:]] for i, name in enumerate(rows[0])}
    columns[CLICK][10] = "maybe"
    pq.write_table(pa.table(columns), tmp_path / "c.parquet")
    assert "maybe (1, first at c.parquet:11)" in inspect(tmp_path / "c.parquet", "mine").report


def test_valid_labels_are_not_mentioned(look: Look) -> None:
    for name, make in (
        ("clicked", lambda i, r: ["1", "0", "TRUE", "no"][i % 4]),
        ("rating", lambda i, r: 1 + i % 5),
        ("event", lambda i, r: ["view", "purchase", "view"][i % 3]),
    ):
        rows = [row[:-1] for row in log(660, city=lambda i, r: r.choice("abc"), **{name: make})]
        assert "labels are" not in look(rows, label=name).report


def test_without_a_label_the_entry_is_not_complete(look: Look):
    found = look([row[:-1] for row in log(city=lambda i, r: r.choice("abc"))])
    assert not found.complete
    assert "no column looks like one; name it with --label COLUMN" in found.report
    assert "label: # which column is the label?" in found.entry


@pytest.mark.parametrize(
    ("value", "words_"),
    [
        (lambda i, r: "0", "is 0 in every row"),
        (lambda i, r: "" if i % 3 else "1", "is 1 in 200 rows and missing in 400"),
    ],
)
def test_a_label_with_one_value_is_told_to_teach_nothing(
    look: Look, value: Callable[..., str], words_: str
) -> None:
    rows = [row[:-1] for row in log(click_=value, city=lambda i, r: r.choice("abc"))]
    rows[0][1] = CLICK
    found = look(rows)
    assert not found.complete
    assert f"! click: is called like a label, but {words_}, so there is nothing to learn" in found.report
    other = look([[*row, "mobile" if i == 0 else str(i % 2)] for i, row in enumerate(rows)])
    assert parsed(other)["preprocess"]["label"] == "mobile"
    assert f"! click: is called like a label, but {words_}" in other.report, "the label is a guess"
    with pytest.raises(PipelineError, match=f"--label: 'click' {words_}, so there is nothing to learn; name"):
        look(rows, label=CLICK)


def test_records_without_a_label_are_reported_and_left_out(look: Look) -> None:
    rows = log()
    rows[5][-1] = ""
    found = look(rows)
    assert "1 record without a label will be left out" in found.report
    assert parsed(found)["preprocess"]["label"] == {"column": CLICK, "drop": [None]}


def test_a_log_with_times_of_day_is_split_by_time(look: Look) -> None:
    """And only there: a date has few values, of which one may be a fifth of the rows."""
    times = [datetime.fromtimestamp(1.6e9 + 9000 * i, UTC).isoformat() for i in range(600)]
    for at, method in (
        (lambda i, r: times[i], "time"),
        (lambda i, r: times[i][:10], "random"),
        (lambda i, r: times[i // 10], "random"),
    ):
        found = look(log(at=at))
        assert parsed(found)["split"]["method"] == method
        assert ("split by time: the newest fifth are the test rows" in found.report) == (method == "time")


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (["train.csv", "valid.csv", "test.csv"], {"train": "train", "valid": "valid", "test": "test"}),
        (
            ["TRAIN_0.csv", "train_1.csv", "my-test.csv"],
            {"TRAIN_0": "train", "train_1": "train", "my-test": "test"},
        ),
        (["train.csv", "more.csv", "test.csv"], {}),
        (["train.csv", "valid.csv"], {}),
        (["test_of_train.csv", "test.csv"], {}),
    ],
)
def test_files_whose_names_say_which_part_they_are_are_the_split(
    tmp_path: Path, names: list[str], parts: dict[str, str]
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    for seed, name in enumerate(names):
        (folder / name).write_text(text(log(300, seed=seed)))
    found = inspect(folder, name="mine")
    entry = parsed(found)
    assert entry["preprocess"].get("file") == ("part" if parts else None)
    drawn = {} if "valid" in parts.values() else {"seed": 1024, "valid": 0.1}
    of_files = {f"{stem}.csv": part for stem, part in parts.items()}
    by_files = {"method": "column", "column": "part", "values": of_files, **drawn}
    assert entry["split"] == (
        by_files if parts else {"method": "random", "seed": 1024, "test": 0.2, "valid": 0.1}
    )
    assert ("split by the names of the files" in found.report) == bool(parts)


def in_files(folder: Path, **rows: int) -> Path:
    """A folder of logs with so many rows, by their names."""
    for seed, (name, count) in enumerate(rows.items()):
        (folder / f"{name}.csv").write_text(text(log(count, seed=seed)))
    return folder


def test_the_records_and_clicks_of_parts_are_told(tmp_path: Path) -> None:
    in_files(tmp_path, train=300, train_2=100, valid=200, test=100)
    report = inspect(tmp_path, "mine").report
    for part, names in (("train", ["train", "train_2"]), ("valid", ["valid"]), ("test", ["test"])):
        lines = [line for name in names for line in (tmp_path / f"{name}.csv").read_text().splitlines()[1:]]
        clicks = sum(line.endswith(",1") for line in lines)
        told = f"      {part}: {len(lines)} records, {100 * clicks / len(lines):.2f} % clicks"
        assert told in report.splitlines()
    assert "no records" not in report


@pytest.mark.parametrize("rows", [None, 150])
def test_a_part_without_records_is_told(tmp_path: Path, rows: int | None) -> None:
    """It has no row whose file is the part, so that `split` stops; also where it was not read to the end."""
    in_files(tmp_path, train=300, valid=0, test=200)
    report = inspect(tmp_path, "mine", rows=rows).report
    assert "  ! valid.csv has no records\n      so no row is valid, and `split` will stop\n" in report
    assert "(with `valid: 0.1` under `split` the rows are drawn from train)" in report
    assert ("      valid: 0 records\n" in report) == (rows is None)
    assert report.count("has no records") == 1


@pytest.mark.parametrize(
    ("names", "says", "values"),
    [
        (
            ["train", "valid", "test", "old"],
            "(test.csv: test, train.csv: train, valid.csv: valid), those of old.csv do not,",
            "{old.csv: null, test.csv: test, train.csv: train, valid.csv: valid}",
        ),
        (
            ["train", "valid"],
            "(train.csv: train, valid.csv: valid), none says test,",
            "{train.csv: train, valid.csv: valid}",
        ),
        (
            ["train_test", "test"],
            "(test.csv: test), those of train_test.csv do not,",
            "{test.csv: test, train_test.csv: null}",
        ),
        (["train_1", "train_2"], None, None),
        (["a", "b"], None, None),
    ],
)
def test_files_of_which_some_names_say_parts_are_told_to_be_split_together(
    tmp_path: Path, names: list[str], says: str | None, values: str | None
) -> None:
    found = inspect(in_files(tmp_path, **dict.fromkeys(names, 100)), "mine")
    assert parsed(found)["split"]["method"] == "random"
    if says is None:
        assert "names of some files" not in found.report
        return
    told = f"  ! the names of some files say parts {says}\n      so all are split together at random;"
    assert told in found.report
    assert f"`split: {{method: column, column: part, values: {values}}}`" in found.report
    assert ("null leaves a file out" in found.report) == ("null" in str(values))
    if "old" in names:
        assert "`files: [test.csv, train.csv, valid.csv]`" in found.report


def test_a_column_of_splits_is_taken_rather_than_the_files_and_that_is_told(tmp_path: Path) -> None:
    for seed, name in enumerate(("train.csv", "test.csv")):
        part = lambda i, r: ("train", "valid", "test")[i % 3]
        (tmp_path / name).write_text(text(log(300, seed=seed, fold=part)))
    found = inspect(tmp_path, "mine")
    assert parsed(found)["split"] == {"method": "column", "column": "fold"}
    told = "split by the column fold; names of files say parts, too: test.csv: test, train.csv: train"
    assert told in found.report


def test_the_column_of_the_files_names_takes_no_other_ones_name(tmp_path: Path) -> None:
    for seed, name in enumerate(("train.csv", "test.csv")):
        (tmp_path / name).write_text(text(log(300, seed=seed, part=lambda i, r: i % 7)))
    entry = parsed(inspect(tmp_path, name="mine"))
    assert (entry["preprocess"]["file"], entry["split"]["column"]) == ("file", "file")


# ---- leaks and duplicates ----


def test_columns_that_predict_the_label_or_repeat_another_are_left_out(look: Look):
    rows = log(
        900,
        user_name=lambda i, r: "",
        bought=lambda i, r: "",
        dwell=lambda i, r: "",
        price=lambda i, r: r.random(),
    )
    for i, row in enumerate(rows[1:]):
        clicked = row[-1] == "1"
        row[1] = f"Name {row[0]}"
        row[2] = "basket" if clicked else "none"
        row[3] = f"{1 + i % 13}.5" if clicked else ""
    found = look(rows)
    assert set(fields_of(found)) == {"user_id", "price"}
    assert "! user_name: same information as user_id; left out of the fields" in found.report
    assert "! bought: predicts the label, click: a leak" in found.report
    assert "! dwell: predicts the label, click: a leak" in found.report
    assert "# dwell: {domain: context, type: number}  # predicts the label, click: a leak" in found.entry


def test_of_columns_with_the_same_times_the_first_is_proposed(look: Look) -> None:
    """Milliseconds, and text by another clock, different in every row; another time is another field."""
    moments = [1_700_000_000.123 + 1001 * i for i in range(600)]
    clock = timezone(timedelta(hours=5, minutes=30))
    rows = log(
        ts_ms=lambda i, r: "" if i % 50 == 0 else int(moments[i] * 1000),
        sent_at=lambda i, r: "" if i % 50 == 0 else datetime.fromtimestamp(moments[i], clock).isoformat(),
        seen_at=lambda i, r: datetime.fromtimestamp(moments[i] + r.randint(0, 9), UTC).isoformat(),
    )
    found = look(rows)
    assert list(fields_of(found)) == ["user_id", "ts_ms", "seen_at"]
    told = "! sent_at: the same time as ts_ms, by the clock of +05:30 (utc_offset); left out of the fields"
    assert told in found.report
    assert "# the same time as ts_ms" in found.entry
    alone = look([[row[0], *row[2:]] for row in rows])
    assert list(fields_of(alone)) == ["user_id", "sent_at", "seen_at"]


def test_a_number_that_ranks_the_clicks_without_fault_is_a_leak(look: Look):
    rows = log(900, watched_ms=lambda i, r: 0)
    for i, row in enumerate(rows[1:]):
        row[1] = str(5 + i % 100 if row[-1] == "1" else i % 5)
    assert "watched_ms: predicts the label" in look(rows).report


def test_users_that_always_decide_alike_are_no_leak(look: Look):
    """Rare clicks, and most users never click: that says little of those who do."""
    rows = log(3000, seed=3)
    for i, row in enumerate(rows[1:]):
        row[0], row[-1] = f"u{i % 1000}", str(int(i % 97 == 0))
    found = look(rows)
    assert fields_of(found) == {"user_id": "user"}
    assert "!" not in found.report


def test_copies_of_records_are_counted_whatever_their_numbers(look: Look):
    """Each record three times, and a row number that makes all different."""
    head, *rows = log(200, price=lambda i, r: f"{r.random():.4f}")
    copies = [[str(number), *row] for number, row in enumerate(rows * 3)]
    report = look([["id", *head], *copies]).report
    assert "! 400 of 600 records are copies of an earlier one" in report
    assert "`split: {repeated: drop}`" in report
    assert "where one is in train and another in test" in report


@pytest.mark.parametrize(("rows", "numbers"), [(60, "steps"), (70, None)])
def test_numbers_of_a_small_log_are_steps(
    look: Look, monkeypatch: pytest.MonkeyPatch, rows: int, numbers: str | None
) -> None:
    monkeypatch.setattr("pipeline.inspection.entry.FEW_ROWS", 70)
    found = parsed(look(log(rows, price=lambda i, r: f"{r.random():.3f}")))
    assert found["encode"].get("numbers") == numbers
    assert "numbers" not in parsed(look(log(rows)))["encode"]


# ---- group, time, names ----


def test_user_item_and_time_are_found(look: Look):
    rows = log(
        birth_date=lambda i, r: f"19{10 + i % 80}-01-0{1 + i % 9}",
        campaign_id=lambda i, r: f"c{i % 7}",
        ad_id=lambda i, r: f"a{i % 30}",
        day=lambda i, r: f"2020-01-{1 + i % 28:02}",
        ts=lambda i, r: 1600000000 + 1000 * i,
        user_age=lambda i, r: r.randint(10, 99),
    )
    preprocess = parsed(look(rows))["preprocess"]
    assert (preprocess["user"], preprocess["item"], preprocess["time"]) == ("user_id", "ad_id", "ts")
    assert "group" not in preprocess, "that of the user"


def test_names_that_the_pipeline_or_yaml_reserves(look: Look):
    names = [
        "group",
        "time",
        "null",
        "yes",
        "3",
        "a: b",
        "#x",
        '"q"',
        "ümlaut",
        "",
        "x\ty",
        "- a",
        "*",
        "label?",
    ]
    draw = random.Random(4)
    rows = [[*names, "click"]]
    rows += [[f"v{draw.randint(0, 9)}" for _ in names] + [str(draw.randint(0, 1))] for _ in range(90)]
    found = look("\n".join(";".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows))
    fields = fields_of(found)
    assert [fields[name]["column"] for name in ("my_group", "my_time", "unnamed")] == ["group", "time", ""]
    assert set(names) - {"group", "time", ""} < set(fields)


# ---- how files are written ----


@pytest.mark.parametrize(
    ("separator", "end", "words_"),
    [
        (",", "\n", "comma"),
        (";", "\r\n", "semicolon"),
        ("\t", "\n", "tab"),
        ("|", "\n", "'|'"),
        ("::", "\n", "'::'"),
    ],
)
def test_separators_are_found(look: Look, separator: str, end: str, words_: str):
    rows = log(price=lambda i, r: f"{r.random():.2f}", city=lambda i, r: r.choice(["a", "b/c"]))
    found = look(text(rows, separator, end))
    assert f"600 records, separator {words_}, utf-8, header" in found.report
    assert parsed(found)["preprocess"].get("separator", ",") == separator


@pytest.mark.parametrize("separator", [";", ","])
def test_a_separator_is_not_taken_from_lists_and_numbers(look: Look, separator: str):
    rows = log(price=lambda i, r: f'"{i % 9},50"', tags=lambda i, r: "a|b;c" if separator == "," else "a|b,c")
    found = look(text(rows, separator))
    assert parsed(found)["preprocess"].get("separator", ",") == separator
    assert parsed(found)["preprocess"]["decimal"] == ","


def test_a_log_without_header_gets_names(look: Look):
    draw = random.Random(2)
    rows = [[str(draw.randint(1, n)) for n in (40, 70, 5)] + [str(880000000 + 5000 * i)] for i in range(700)]
    found = look(text(rows, "\t"), "u.data")
    preprocess = parsed(found)["preprocess"]
    assert preprocess["names"] == ["column_1", "column_2", "column_3", "column_4"]
    assert preprocess["label"]["column"] == "column_3"
    assert preprocess["time"] == "column_4"
    assert preprocess["fields"]["column_1"] == "context"
    assert "no header: set the columns' `names`" in found.report


def test_quotes_escapes_and_line_ends_within_fields(look: Look):
    rows = log(title=lambda i, r: f'"a, \\"b\\"\n{i % 3}"')
    found = look(rows)
    assert parsed(found)["preprocess"]["escape"] == "\\"
    rows = log(title=lambda i, r: f'"a, ""b""\n{i % 3}"')
    assert "escape" not in parsed(look(rows))["preprocess"]
    rows = log(size=lambda i, r: f'"{i % 3} inches' if i % 5 else "7")
    assert parsed(look(text(rows, "\t"), "log.tsv"))["preprocess"]["quote"] is None


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        ("Köln\nKöln\n".encode(), "utf-8"),
        ("Köln\nKöln\n".encode("latin-1"), "latin-1"),
        ("Köln 5 €\n".encode("cp1252"), "cp1252"),
        (b"abc\n", "utf-8"),
        ("Köln\nKöln\nKöln\n".encode() + b"\xe4\n", "utf-8"),
        (b"\xe4\x81\n", "latin-1"),
    ],
)
def test_encodings_are_guessed(data: bytes, encoding: str):
    assert encoding_of(data) == encoding


def test_an_encoding_that_shows_late_is_found_too(look: Look):
    rows = log(30_000, city=lambda i, r: f"Stadt {i % 9} mit einem langen Namen und noch mehr dahinter")
    late = [["u1", "Köln", "1"]] * 100
    found = look(text([*rows, *late]).encode("latin-1"))
    assert parsed(found)["preprocess"]["encoding"] == "latin-1"
    assert row_of(found, "city")[2] == "10"


def test_one_damaged_line_does_not_change_the_encoding(look: Look):
    found = look(text(log(2000, city=lambda i, r: "Köln")).encode() + b"\xff,x,1\n")
    assert "encoding" not in parsed(found)["preprocess"]
    assert "1 line rejected\n      log.csv:2002: byte 0xff at column 1 is not utf-8" in found.report


def with_odd_bytes(rows: int) -> bytes:
    """A log in ASCII but for one line."""
    data = text(log(rows, city=lambda i, r: f"c{i % 7}")).encode()
    return data.replace(b",c4,", b",K\xf6ln,", 1)


@pytest.mark.slow
def test_a_few_odd_bytes_are_damage_in_a_long_log_and_told_in_a_short_one(look: Look):
    found = look(with_odd_bytes(2000))
    assert "encoding" not in parsed(found)["preprocess"]
    assert "1 line rejected\n      log.csv:6: byte 0xf6 at column" in found.report
    found = look(with_odd_bytes(500))
    assert parsed(found)["preprocess"]["encoding"] == "latin-1"
    assert "1 of its first 501 lines not UTF-8, first log.csv:6: byte 0xf6 in b'" in found.report
    late = log(30_000, city=lambda i, r: f"Stadt {i % 9} mit einem langen Namen und noch mehr dahinter")
    found = look(text([*late, *[["u1", "Köln", "1"]] * 100]).encode("latin-1"))
    assert "first log.csv:30002: byte 0xf6 at column 5 is not utf-8" in found.report


def test_packed_files_and_folders(look: Look, tmp_path: Path):
    rows = log()
    assert "600 records" in look(gzip.compress(text(rows).encode()), "log.csv.gz").report
    folder = tmp_path / "many"
    folder.mkdir()
    (folder / "_SUCCESS").touch()
    (folder / "README.md").write_text("x")
    for number in range(3):
        (folder / f"part-{number}.csv").write_text(text(rows))
    found = inspect(folder, "mine")
    assert f"{folder}, 3 files: 1,800 records, separator comma, utf-8, header" in found.report
    (folder / "part-1.csv").write_text("a,b\n1,2\n")
    with pytest.raises(PipelineError, match=r"part-1\.csv does not have the same columns as part-0\.csv"):
        inspect(folder, "mine")


def test_parquet_files(look: Look):
    size = 300
    table = pa.table(
        {
            "user_id": [i % 20 for i in range(size)],
            "price": [None if i % 9 == 0 else i / 4 for i in range(size)],
            "tags": [["a", "b"], None, ["c"]] * 100,
            "at": pa.array([10**15 + i * 10**10 for i in range(size)], pa.timestamp("us")),
            "blob": [b"x"] * size,
            "deep": [{"a": 1}] * size,
            "click": [i % 3 == 0 for i in range(size)],
        }
    )
    found = look(table, "log.parquet")
    assert "300 records, Parquet" in found.report
    assert parsed(found)["preprocess"]["label"] == "click"
    assert {
        name: spec if isinstance(spec, str) else spec["type"] for name, spec in fields_of(found).items()
    } == {"user_id": "user", "price": "number", "tags": "bag", "at": "timestamp"}
    assert "# blob: binary, cannot be used" in found.entry
    assert "# deep: struct<a: int64>, cannot be used" in found.entry


def test_the_first_rows_alone(look: Look):
    found = look(log(), rows=100)
    assert "the first 100 records" in found.report
    assert "600 records" in look(log(), rows=600).report


def test_the_same_file_gives_the_same_text(look: Look):
    rows = log(city=lambda i, r: r.choice("abc"), price=lambda i, r: r.random())
    assert look(rows) == look(rows)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("log.csv", b"", "is empty"),
        ("log.csv", b"user,click\n", "has no records"),
        ("log.csv", b"one\ntwo\n", "no separator found"),
        ("log.csv", b"a,a\n1,2\n", "same name: 'a' is columns 1, 2"),
        ("log.csv", b"\xff\xfea\x00", "UTF-16"),
        ("log.csv.gz", b"junk", "is it damaged?"),
        ("log.jsonl", b'{"user": 1, "click": 0}\n', "JSON lines: convert it"),
        ("log.xlsx", b"PK\x03\x04 , \n , ", "an Excel file"),
        ("log.parquet", b"junk", "cannot be read as Parquet"),
    ],
)
def test_what_is_no_table_is_an_error(look: Look, name: str, content: bytes, message: str):
    with pytest.raises(PipelineError, match=message):
        look(content, name)


def test_a_path_without_tables_is_an_error(tmp_path: Path):
    with pytest.raises(PipelineError, match="does not exist"):
        inspect(tmp_path / "nothing", "mine")
    with pytest.raises(PipelineError, match=r"contains no file that ends in \.csv"):
        inspect(tmp_path, "mine")
    with pytest.raises(PipelineError, match="the dataset 'a b'"):
        inspect(tmp_path, "a b")


@pytest.mark.parametrize(
    ("path", "name"),
    [("logs/My Clicks_2020.csv.gz", "my-clicks-2020"), ("é.csv", "my-clicks"), ("a.b.parquet", "a-b")],
)
def test_an_entry_is_called_like_its_file(path: str, name: str):
    assert inspection.name_of(Path(path)) == name


@pytest.mark.slow
@given(st.text(max_size=8))
def test_any_name_and_value_survives_yaml(value: str):
    if any(0xD800 <= ord(c) < 0xE000 for c in value):
        return
    line = f"{one_line(value)}: {one_line([value, value])}\n"
    assert YAML(typ="safe", pure=True).load(line) == {value: [value, value]}


# ---- into params.yaml ----

ENTRY = "  mine:\n    source: tabular\n    settings: {}\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("data:\n  a: {}\n# of b\nb: 1\n", f"data:\n  a: {{}}\n\n{ENTRY}# of b\nb: 1\n"),
        (
            "b: 1\ndata: # all\n  a:\n    # in a\n    x: 1\n    # end of a\n",
            f"b: 1\ndata: # all\n  a:\n    # in a\n    x: 1\n    # end of a\n\n{ENTRY}",
        ),
        ("data:\n  a: {}", f"data:\n  a: {{}}\n\n{ENTRY}"),
        (
            "data:\n    a: {}\n\n\nb: |\n  data:\n",
            "data:\n    a: {}\n\n"
            + ENTRY.replace("  mine", "    mine")
            .replace("    source", "      source")
            .replace("    settings", "      settings")
            + "\n\nb: |\n  data:\n",
        ),
        (
            "data:\r\n  a: {}\r\nb: 1\r\n",
            f"data:\r\n  a: {{}}\r\n\r\n{ENTRY.replace(chr(10), chr(13) + chr(10))}b: 1\r\n",
        ),
        (
            "data:\n  a: &a {x: 1}\n# between\n  b: *a\n---\n"[:-4],
            f"data:\n  a: &a {{x: 1}}\n# between\n  b: *a\n\n{ENTRY}",
        ),
        ("data:\n\nb: 1\n", f"data:\n\n{ENTRY}\nb: 1\n"),
    ],
)
def test_an_entry_is_put_behind_the_others_and_nothing_else_changes(tmp_path: Path, before: str, after: str):
    params = tmp_path / "params.yaml"
    params.write_bytes(before.encode())
    inspection.add(params, "mine", ENTRY)
    assert params.read_bytes().decode() == after
    assert [file.name for file in tmp_path.iterdir()] == ["params.yaml"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data:\n  mine: {}\n", "data: 'mine' already exists; choose another --name"),
        ("data: {a: {}}\n", "cannot append to the block `data`; paste the entry there yourself"),
        ("datasets: []\n", "cannot append to the block `data`"),
        ("data: ~\n", "cannot append to the block `data`"),
        ("data: 3\n", "has no block `data`"),
        ("- data\n", "has no block `data`"),
        ("data: [\n", "is not valid YAML"),
        ("data:\n  a: |\n    text\n\n\n    data:\nb: '\n  c: 1\n'\n", None),
    ],
)
def test_where_an_entry_has_no_place_nothing_is_written(tmp_path: Path, text: str, message: str | None):
    params = tmp_path / "params.yaml"
    params.write_text(text)
    if message is None:
        inspection.add(params, "mine", ENTRY)
        return
    with pytest.raises(PipelineError) as caught:
        inspection.add(params, "mine", ENTRY)
    assert message in str(caught.value)
    assert params.read_text() == text


def test_the_projects_own_params_take_an_entry(tmp_path: Path, look: Look):
    params = tmp_path / "params.yaml"
    before = (project.ROOT / "params.yaml").read_text()
    params.write_text(before)
    inspection.add(params, "mine", look(log()).entry)
    after = params.read_text()
    place = after.index("  mine:\n")
    added = len(after) - len(before)
    assert after[: place - 1] + after[place - 1 + added :] == before
    Params(YAML(typ="safe", pure=True).load(after))


@pytest.mark.slow
def test_from_a_file_to_encoded_parts(
    tmp_path: Path,
    run: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    rows = log(
        2000,
        item=lambda i, r: f"Gerät {r.randint(0, 50)}",
        price=lambda i, r: f"{r.random() * 100:.2f}".replace(".", ","),
        tags=lambda i, r: "|".join(r.sample(["neu", "öko", "groß"], r.randint(0, 2))),
        Zeit=lambda i, r: datetime.fromtimestamp(1.6e9 + 900 * i, UTC).strftime("%d.%m.%Y %H:%M:%S"),
        row=lambda i, r: i,
    )
    (tmp_path / "Meine Klicks.csv").write_bytes(text(rows, ";", "\r\n").encode("latin-1") + b"broken\r\n")
    folder = project.make_project(tmp_path / "project")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["pipeline", "inspect", "../Meine Klicks.csv", "--add"])
    commands.main()
    printed = capsys.readouterr().out
    assert "../Meine Klicks.csv: 2,000 records, separator semicolon, latin-1, header" in printed
    assert "Next: set `datasets: [meine-klicks]` in params.yaml and run `make repro`." in printed
    data = run(folder, "meine-klicks")
    table = pq.read_table(data / "interim/meine-klicks/table.parquet")
    assert table.num_rows == 2000
    assert set(table.column_names) == {
        "user_id",
        "item",
        "price",
        "tags",
        "Zeit_hour",
        "Zeit_weekday",
        "label",
        "group",
        "time",
    }
    assert "Gerät 7" in table["item"].to_pylist()
    monkeypatch.setattr(
        sys, "argv", ["pipeline", "inspect", "nothing.csv", "--name", "meine-klicks", "--add"]
    )
    with pytest.raises(PipelineError, match="'meine-klicks' already exists"):
        commands.main()


@pytest.mark.parametrize(
    ("words_", "message"),
    [
        (["log.csv", "--rows", "0"], "--rows 0: must be at least 1"),
        (["log.csv", "--name", "a.b"], "the dataset 'a.b'"),
        (["log.csv", "--add"], "params.yaml is missing"),
        (["nothing.csv"], "nothing.csv does not exist"),
        (["other.csv"], "the entry lacks its label"),
    ],
)
def test_wrong_commands_are_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words_: list[str], message: str
):
    (tmp_path / "log.csv").write_text(text(log()))
    (tmp_path / "other.csv").write_text("a,b\nx,y\nz,w\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["pipeline", "inspect", *words_])
    with pytest.raises(PipelineError) as caught:
        commands.main()
    assert message in str(caught.value)


def test_a_relative_path_starts_at_the_projects_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "log.csv").write_text(text(log()))
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["pipeline", "--root", "project", "inspect", "log.csv"])
    commands.main()
    assert "download: {path: ../log.csv}" in capsys.readouterr().out


# ---- no file is a traceback ----


@pytest.fixture(scope="module", name="folder")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damaged")


def looked_at(folder: Path) -> None:
    """Inspect the file of a folder; what comes out must be usable or an error for people."""
    try:
        found = inspect(folder / "log.csv", "mine")
    except PipelineError:
        return
    entry = parsed(found)
    if found.complete:
        Params(with_entry(entry))
        with suppress(PipelineError):  # too many damaged lines, or a label that no line has
            read(folder, RejectLog(), entry)


@pytest.mark.thorough
@pytest.mark.slow
@settings(max_examples=60)
@given(damage=DAMAGE)
def test_damaged_text_is_inspected_or_rejected(folder: Path, damage: Damage):
    base = text(log(12, price=lambda i, r: r.random(), ts=lambda i, r: f"2020-01-0{1 + i % 9}")).encode()
    for steps in range(len(damage) + 1):
        (folder / "log.csv").write_bytes(damaged(damage[:steps], base))
        looked_at(folder)


@given(st.binary(max_size=60))
def test_any_bytes_are_inspected_or_rejected(folder: Path, data: bytes):
    (folder / "log.csv").write_bytes(data)
    looked_at(folder)


@pytest.mark.slow
@settings(max_examples=80)
@given(data=st.data(), size=st.integers(0, 5))
def test_parquet_of_any_types_is_inspected_or_rejected(folder: Path, data: st.DataObject, size: int):
    table = pa.table({name: data.draw(arrays(size)) for name in ("user", "click", "t")})
    pq.write_table(table, folder / "log.csv")
    looked_at(folder)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file():
    profile = profiling.Profile("x", pa.string())
    for start in range(0, 400_000, 50_000):
        profile.add(pa.array([f"value {i}" for i in range(start, start + 50_000)]).dictionary_encode(), 10**9)
    assert profile.values is None
    assert profile.unique
    assert (profile.rows, profile.distinct) == (400_000, 150_000)
    profile = profiling.Profile("x", pa.string())
    profile.add(pa.array(["long" * 10, "longer" * 10]).dictionary_encode(), 50)
    assert profile.values is None
