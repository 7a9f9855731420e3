"""Book-Crossing's reader on invented lines in the true format, and on the mirror's files if available."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from ruamel.yaml import YAML

from pipeline.common.errors import PipelineError
from pipeline.common.files import read_json, seal, write_json
from pipeline.config import params
from pipeline.datasets import book_crossing
from pipeline.datasets.book_crossing import SOURCE
from pipeline.download.manifest import manifest, verify
from pipeline.preprocess.rejects import RejectLog

MIRROR = Path(__file__).parents[2] / "shared/datasets"

# line ends are CRLF; the string is raw, so a backslash is one
USERS = r""""User-ID";"Location";"Age"
"1";"Springfield,  Oregon , USA";NULL
"2";"&#321;ód&#378;, n/a, poland";"34"
"3";"kilburn, london, england, united kingdom";"244"
"4";"N/A, \"n/a\".), denmark";"0"
"5";"river
 town,jutland,";"19"
"6";"albany, new york";"100"
"7";"tyne & wear, -, united kingdom.";"young"
"8";"no, age, here"
"x9";"a, b, c";"20"
"10";"rome, lazio, italy";"07"
"""
TITLES = '"ISBN";"Book-Title";"Book-Author";"Year-Of-Publication";"Publisher"'
BOOKS = (
    TITLES
    + r""";"Image-URL-S";"Image-URL-M";"Image-URL-L"
"000000000X";"A \"quoted\"; title";"Ann O&#39;Hara";"1999";"Smith &amp; Sons";"s";"m";"l"
"000000000x";"Its own quote at the end\"";"ANN  O'HARA";"0";"Smith & Sons";"s";"m";"l"
"0000000003";"A title";"2000";"Gallimard";"http://s";"s";"m";"l"
"0000000004";"Ends in a backslash\\";"n/a";"2050";NULL;"s";"m";"l"
"0000000005";"Too few\";Anybody";"2000";"House";"";"";""
"0000000006";"Old";"Árpád Ö.";"1799";"House";"s";"m";"l"
"000000000X";"A second time";"Nobody";"1950";"House";"s";"m";"l"
" 0000000007 ";"";"";"1800";"";"s";"m";"l"
"""
)
RATINGS = r""""User-ID";"ISBN";"Book-Rating"
"1";"000000000X";"0"
"2";" 000000000X ";"7"
"2";"000000000X";"7"
"3";"000000000x";"6"
"4";"\"0000000002\"";"10"
"5";"0000000003";"1"
"6";"0000000004";"8"
"7";"0000000005";"9"
"9";"0000000006";"5"
"10";"0000000007";"0"

"1";"000000000X";"11"
"1";" ";"5"
"1";"000000000X"
"1.5";"000000000X";"5"
"1";"000000000X;5
10;000000000X;8
"""
FIRST = {
    "user": "1", "age": None, "city": "springfield", "region": "oregon", "country": "usa",
    "book": "000000000X", "author": "ann o'hara", "year": "1999", "publisher": "smith & sons",
    "label": 0, "grade": 0, "group": "1",
}  # fmt: skip
Rows = list[dict[str, Any]]


@pytest.fixture
def raw(tmp_path: Path) -> Callable[..., Path]:
    def write(books: str | None = BOOKS, ratings: str = RATINGS) -> Path:
        texts = {"BX-Users.csv": USERS, "BX-Books.csv": books, "BX-Book-Ratings.csv": ratings}
        for name, text in texts.items():
            if text is not None:
                (tmp_path / name).write_bytes(text.replace("\n", "\r\n").encode("latin-1"))
        write_json(tmp_path / "manifest.json", manifest(SOURCE, tmp_path))
        return tmp_path

    return write


def read(folder: Path, **options: Any) -> tuple[Rows, RejectLog]:
    rejects = RejectLog()
    log = book_crossing.read(folder, rejects, **options)
    table = pa.concat_tables(log.tables)
    assert table.column_names[: len(log.columns)] == [column.name for column in log.columns]
    return table.to_pylist(), rejects


def test_ratings_are_joined_with_users_and_books(raw: Callable[..., Path]):
    rows, rejects = read(raw())
    assert rows[0] == FIRST
    assert [row["user"] for row in rows] == ["1", "2", "2", "3", "4", "5", "6", "7", "9", "10", "10"]
    assert [row["label"] for row in rows] == [0, 1, 1, 0, 1, 0, 1, 1, 0, 0, 1]
    assert all(row["group"] == row["user"] for row in rows)
    assert "time" not in rows[0]
    account = rejects.check(len(rows), max_rejected=1, name="b")
    assert (account["rows_in"], account["rejected"], account["dropped"]) == (16, 5, 0)


def test_malformed_records_are_in_the_reject_log_with_line_and_reason(raw: Callable[..., Path]):
    _, rejects = read(raw())
    user, book, rating, unclosed = (
        USERS.splitlines()[9], BOOKS.splitlines()[5], RATINGS.splitlines()[14], RATINGS.splitlines()[16],
    )  # fmt: skip
    assert sorted(rejects.first) == [
        "BX-Book-Ratings.csv:13: Book-Rating '11' is not 0 to 10",
        "BX-Book-Ratings.csv:14: ISBN ' ' is not filled in",
        f"BX-Book-Ratings.csv:15: 2 fields where 3 belong: {rating!r}",
        "BX-Book-Ratings.csv:16: User-ID '1.5' is not a whole number",
        f"BX-Book-Ratings.csv:17: a quote is opened and not closed: {unclosed!r}",
        f"BX-Books.csv:6: 7 fields where 8 belong: {book!r}",
        f"BX-Users.csv:10: 2 fields where 3 belong: {user!r}",
        "BX-Users.csv:11: User-ID 'x9' is not a whole number",
    ]
    counts = {file: (tally.records, tally.rejected) for file, tally in rejects.files.items()}
    assert counts == {"BX-Users.csv": (10, 2), "BX-Books.csv": (8, 1), "BX-Book-Ratings.csv": (16, 5)}


def test_places_are_split_and_odd_ones_have_missing_parts(raw: Callable[..., Path]):
    rows, _ = read(raw())
    places = {row["user"]: (row["city"], row["region"], row["country"]) for row in rows}
    assert places == {
        "1": ("springfield", "oregon", "usa"),
        "2": ("łódź", None, "poland"),
        "3": ("kilburn", "england", "united kingdom"),
        "4": (None, None, "denmark"),
        "5": ("river town", "jutland", None),
        "6": ("albany", "new york", None),
        "7": ("tyne & wear", None, "united kingdom"),
        "9": (None, None, None),  # no such user
        "10": ("rome", "lazio", "italy"),
    }


def test_an_age_out_of_bounds_is_missing(raw: Callable[..., Path]):
    rows, _ = read(raw())
    ages = {row["user"]: row["age"] for row in rows}
    assert ages == {
        "1": None, "2": "34", "3": None, "4": None, "5": "19", "6": "100", "7": None, "9": None, "10": "7",
    }  # fmt: skip


def test_a_book_is_the_string_of_its_number_and_its_fields_are_clean_or_missing(raw: Callable[..., Path]):
    rows, _ = read(raw())
    books = {row["book"]: (row["author"], row["year"], row["publisher"]) for row in rows}
    assert books == {
        "000000000X": ("ann o'hara", "1999", "smith & sons"),
        "000000000x": ("ann o'hara", None, "smith & sons"),
        '"0000000002"': (None, None, None),  # no such book
        "0000000003": ("2000", None, "http://s"),  # shifted columns: no year
        "0000000004": (None, None, None),
        "0000000005": (None, None, None),  # its record was rejected
        "0000000006": ("árpád ö", None, "house"),
        "0000000007": (None, "1800", None),
    }


def test_ratings_of_zero_are_negatives_or_left_out(raw: Callable[..., Path]):
    folder = raw()
    rows, rejects = read(folder, implicit="drop")
    assert [row["user"] for row in rows] == ["2", "2", "3", "4", "5", "6", "7", "9", "10"]
    assert rejects.check(len(rows), max_rejected=1, name="b")["dropped"] == 2
    assert [row["grade"] for row in rows] == [6, 6, 5, 9, 0, 7, 8, 4, 7]  # the rating, counted from 1
    rows, _ = read(folder)  # a book without a rating is neither above nor below one rated 1 to 6
    assert [row["grade"] for row in rows] == [0, 1, 1, 0, 4, 0, 2, 3, 0, 0, 2]
    rows, _ = read(folder, implicit="drop", above=7)
    assert [row["label"] for row in rows] == [0, 0, 0, 1, 0, 1, 1, 0, 1]
    rows, _ = read(folder, above=0)
    assert [row["label"] for row in rows] == [0, 1, 1, 1, 1, 1, 1, 1, 1, 0, 1]


def test_an_unknown_treatment_of_zeros_is_an_error_of_the_params():
    values = YAML(typ="safe", pure=True).load((Path(__file__).parents[1] / "params.yaml").read_text())
    values["data"]["book-crossing"]["preprocess"]["implicit"] = "keep"
    with pytest.raises(PipelineError, match=r"book-crossing\.preprocess\.implicit: .*'negative' or 'drop'"):
        params.Params(values)


def test_without_books_their_fields_are_omitted_and_a_line_says_so(
    raw: Callable[..., Path], capsys: pytest.CaptureFixture[str]
):
    rows, _ = read(raw(books=None))
    assert rows[0] == {k: v for k, v in FIRST.items() if k not in ("author", "year", "publisher")}
    assert capsys.readouterr().out == (
        "book-crossing: BX-Books.csv is unavailable: the fields author, year and publisher are omitted\n"
    )


def test_books_that_were_downloaded_and_are_missing_are_an_error(raw: Callable[..., Path]):
    folder = raw()
    seal(folder)
    (folder / "BX-Books.csv").unlink()
    with pytest.raises(PipelineError, match=r"BX-Books\.csv is missing; run the download stage again"):
        verify(folder)
    with pytest.raises(PipelineError, match=r"BX-Books\.csv cannot be opened"):
        read(folder)


def test_another_header_is_an_error(raw: Callable[..., Path]):
    with pytest.raises(PipelineError, match=r"BX-Book-Ratings\.csv:1: the header is"):
        read(raw(ratings=RATINGS.replace("Book-Rating", "Rating")))


def test_incomplete_ratings_do_not_match_the_publisher(raw: Callable[..., Path]):
    described = manifest(SOURCE, raw())
    assert described["matches_publisher"] is False
    assert described["files"]["BX-Book-Ratings.csv"]["matches_publisher"] is False
    whole = replace(SOURCE, files=(replace(SOURCE.files[0], records=16),))
    assert manifest(whole, raw())["matches_publisher"] is None


@pytest.mark.skipif(
    not (MIRROR / "book-crossing/BX-Users.csv").exists(), reason="no mirror of the data beside the project"
)
def test_the_mirrors_files_give_the_known_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "raw").mkdir()
    book_crossing.download(tmp_path / "raw", tmp_path / "cache", mirror=str(MIRROR))
    described = read_json(tmp_path / "raw/manifest.json")
    assert described["matches_publisher"] is False
    assert described["missing"] == ["BX-Books.csv"]
    assert [entry["matches_publisher"] for entry in described["files"].values()] == [False, True]

    rejects = RejectLog()
    table = pa.concat_tables(book_crossing.read(tmp_path / "raw", rejects).tables).unify_dictionaries()
    assert rejects.first == []
    assert rejects.files["BX-Users.csv"].records == 278_858
    assert len(table) == 236_556
    assert round(pc.mean(table["label"]).as_py(), 4) == 0.2944
    assert len(table) - table.select(["user", "book"]).group_by(["user", "book"]).aggregate([]).num_rows == 13
    assert [len(table[name].unique()) for name in ("user", "book")] == [21_756, 120_486]
    ages = pc.cast(pc.drop_null(table["age"].cast(pa.string())), pa.int64())
    assert (pc.min(ages).as_py(), pc.max(ages).as_py()) == (5, 98)

    rejects = RejectLog()
    explicit = pa.concat_tables(book_crossing.read(tmp_path / "raw", rejects, implicit="drop").tables)
    assert round(pc.mean(explicit["label"]).as_py(), 4) == 0.7468
    assert rejects.files["BX-Book-Ratings.csv"].dropped == 236_556 - len(explicit) == 143_293
    assert "the fields author, year and publisher are omitted" in capsys.readouterr().out
