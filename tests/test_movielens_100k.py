"""The reader of MovieLens-100K on a few lines in the true format, the awkward ones among them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.common.errors import PipelineError
from pipeline.common.files import read_json
from pipeline.datasets import movielens_100k
from pipeline.preprocess.rejects import RejectLog
from pipeline.schema import SPLITS

MIRROR = Path(__file__).parents[2] / "shared/datasets"
GENRES = ["unknown", "Action", "Children's"]
ITEMS = (
    "1|Toy Story (1995)|01-Jan-1995||http://x|0|1|1\n"
    "267|unknown||||1|0|0\n"
    "543|Misérables, Les (1995)|01-Jan-1995||http://x|0|0|0\n"
    "1412|Land Before Time III (1995) (V)|01-Jan-1995||http://x|0|0|1\n"
)
USERS = "1|24|M|technician|85711\n2|53|F|other|T8H1N\n3|7|M|student|98107-2117\n"
DATA = "1\t1\t5\t881250949\n2\t267\t3\t891717742\n3\t543\t4\t878887116\n9\t1412\t1\t878887116\n"


@pytest.fixture
def movielens(tmp_path: Path) -> Callable[..., Path]:
    def write(**changed: str) -> Path:
        genres = "".join(f"{genre}|{number}\n" for number, genre in enumerate(GENRES)) + "\n"
        files = {"genre": genres, "item": ITEMS, "user": USERS, "data": DATA, **changed}
        for name, text in files.items():
            (tmp_path / f"u.{name}").write_bytes(text.encode("latin-1"))
        return tmp_path

    return write


def read(folder: Path, **options: Any) -> tuple[list[dict[str, Any]], RejectLog]:
    rejects = RejectLog()
    return pa.concat_tables(movielens_100k.read(folder, rejects, **options).tables).to_pylist(), rejects


def test_movielens_rows_are_joined_and_awkward_values_kept(movielens: Callable[..., Path]):
    rows, rejects = read(movielens())
    assert [row["label"] for row in rows] == [1, 0, 1, 0]
    assert [row["grade"] for row in rows] == [4, 2, 3, 0]  # the rating, counted from 0
    assert rows[0] == {
        "user": "1", "gender": "M", "age": "24", "occupation": "technician", "zip3": "857",
        "movie": "1", "year": "1995", "genres": "Action|Children's",
        "label": 1, "grade": 4, "group": "1", "time": 881250949,
    }  # fmt: skip
    # movie 267 has neither date nor year; zip codes may hold letters and dashes
    assert (rows[1]["year"], rows[1]["genres"], rows[1]["zip3"]) == (None, "unknown", "T8H")
    assert (rows[2]["zip3"], rows[2]["genres"], rows[2]["year"]) == ("981", "", "1995")
    # user 9 is not in u.user: the row stays, what is known of the user is missing
    assert (rows[3]["user"], rows[3]["gender"], rows[3]["age"], rows[3]["movie"]) == ("9", None, None, "1412")
    account = rejects.check(len(rows), max_rejected=0, name="m")
    assert (account["rows_in"], account["rejected"]) == (4, 0)
    assert account["files"]["u.genre"]["records"] == 3


def test_movielens_threshold_is_the_label_rule(movielens: Callable[..., Path]):
    rows, _ = read(movielens(), threshold=5)
    assert [row["label"] for row in rows] == [1, 0, 0, 0]


def test_corrupted_lines_are_rejected_with_file_line_and_reason(movielens: Callable[..., Path]):
    bad = "1\t1\t5\n1\t1\t6\t881250949\n\n1\tone\t5\t881250949\n" + DATA + "1\t1\t5\t99x\n2\t1"
    rows, rejects = read(movielens(data=bad))
    assert len(rows) == 4
    assert rejects.first == [
        "u.data:1: 3 fields where 4 belong: '1\\t1\\t5'",
        "u.data:2: rating '6' is not 1 to 5",
        "u.data:4: movie 'one' is not a whole number",
        "u.data:9: time '99x' is not a whole number",
        "u.data:10: 2 fields where 4 belong: '2\\t1'",
    ]
    account = rejects.check(len(rows), max_rejected=0.6, name="m")
    assert account["rows_in"] == 9 == account["rows_out"] + account["rejected"]
    with pytest.raises(PipelineError, match=r"m: 5 of 9 records of u\.data .*\n  u\.data:1: 3 fields"):
        rejects.check(len(rows), max_rejected=0.5, name="m")


def test_a_corrupted_side_table_is_counted_on_its_own(movielens: Callable[..., Path]):
    rows, rejects = read(movielens(user=USERS + "4|x|M|writer|00000\n"))
    assert len(rows) == 4
    assert rejects.first == ["u.user:4: age 'x' is not a whole number"]
    assert rejects.check(len(rows), max_rejected=0.3, name="m")["rejected"] == 0
    with pytest.raises(PipelineError, match=r"1 of 4 records of u\.user"):
        rejects.check(len(rows), max_rejected=0.1, name="m")


@pytest.mark.parametrize("file", ["data", "user", "item", "genre"])
def test_an_empty_or_missing_file_is_an_error_that_names_it(movielens: Callable[..., Path], file: str):
    folder = movielens(**{file: ""})
    with pytest.raises(PipelineError, match=rf"u\.{file} is empty"):
        read(folder)
    (folder / f"u.{file}").unlink()
    with pytest.raises(PipelineError, match=rf"u\.{file} cannot be opened"):
        read(folder)


def test_nothing_but_corrupted_lines_is_an_error(movielens: Callable[..., Path]):
    rows, rejects = read(movielens(data="x\ny\n"))
    assert rows == []
    with pytest.raises(PipelineError, match="no row is left of 2"):
        rejects.check(0, max_rejected=1.0, name="m")


@pytest.mark.skipif(
    not (MIRROR / "movielens-100k/u.data").exists(),
    reason="no real data: ../shared/datasets/movielens-100k/u.data and the files beside it",
)
def test_the_real_movielens_100k_from_the_mirror(
    tmp_path: Path, run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CTR_MIRROR", str(MIRROR))
    data = run(tmp_path, "movielens-100k")
    manifest = read_json(data / "raw/movielens-100k/manifest.json")
    assert manifest["matches_publisher"] is True
    report = read_json(data / "interim/movielens-100k/report.json")
    assert (report["rows_in"], report["rows_out"], report["rejected"]) == (100_000, 100_000, 0)
    assert report["clicks"] == 55_375
    table = pq.read_table(data / "interim/movielens-100k/table.parquet")
    assert len(set(table["user"].to_pylist())) == 943
    assert len(set(table["movie"].to_pylist())) == 1682
    assert {c.name for c in movielens_100k.COLUMNS if table[c.name].null_count} == {"year"}
    processed = data / "processed/movielens-100k"
    assert [len(np.load(processed / f"{part}.ids.npy")) for part in SPLITS] == [72_000, 8_000, 20_000]
    groups = np.concatenate([np.load(processed / f"{part}.group.npy") for part in SPLITS])
    assert sorted(set(groups.tolist())) == list(range(943))
