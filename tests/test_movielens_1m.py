"""The reader of MovieLens-1M on a few lines in the true format, the awkward ones among them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.common.errors import PipelineError
from pipeline.common.files import read_json
from pipeline.datasets import movielens_1m
from pipeline.preprocess import clean_table
from pipeline.preprocess.clean_table import CleanTable
from pipeline.preprocess.rejects import RejectLog
from pipeline.schema import SPLITS

MIRROR = Path(__file__).parents[2] / "shared/datasets"
FILES = {
    "movies": (
        "1::Wooden Heroes (1995)::Animation|Children's|Comedy\n"
        "73::Élan, Le (1995)::Drama|Musical\n"
        "557::Roma Sparita (1962)::Drama\n"
        "2434::Down the Delta (1998): A Story::Drama\n"
    ),
    "users": "1::F::1::10::48067\n2::M::56::16::T8H1N\n3::M::25::15::98107-2117\n",
    "ratings": (
        "1::1::5::978300001\n2::73::3::978300002\n3::557::4::978300003\n9::2434::1::978300003\n"
        "1::4000::2::978300000\n"
    ),
}


@pytest.fixture
def raw(tmp_path: Path) -> Callable[..., Path]:
    def write(**changed: str) -> Path:
        for name, text in {**FILES, **changed}.items():
            (tmp_path / f"{name}.dat").write_bytes(text.encode("latin-1"))
        return tmp_path

    return write


def read(folder: Path, **options: Any) -> tuple[list[dict[str, Any]], RejectLog]:
    rejects = RejectLog()
    return pa.concat_tables(movielens_1m.read(folder, rejects, **options).tables).to_pylist(), rejects


def test_the_decade_takes_the_place_of_the_year(raw: Callable[..., Path]):
    movies = FILES["movies"].replace("(1962)", "(1925)").replace("(1998): A", "(2000): A")
    rows, _ = read(raw(movies=movies), released="decade")
    assert [row["year"] for row in rows] == ["1990", "1990", "1930", "2000", None]


def test_rows_are_joined_and_awkward_values_kept(raw: Callable[..., Path]):
    rows, rejects = read(raw())
    assert rows[0] == {
        "user": "1", "gender": "F", "age": "1", "occupation": "10", "zip3": "480",
        "movie": "1", "year": "1995", "genres": "Animation|Children's|Comedy",
        "label": 1, "grade": 4, "group": "1", "time": 978300001,
    }  # fmt: skip
    assert [row["label"] for row in rows] == [1, 0, 1, 0, 0]
    assert [row["zip3"] for row in rows] == ["480", "T8H", "981", None, "480"]
    assert [row["year"] for row in rows] == ["1995", "1995", "1962", "1998", None]
    # a user or a movie that the side tables lack: the row stays, what is known of it is missing
    assert (rows[3]["user"], rows[3]["gender"], rows[3]["genres"]) == ("9", None, "Drama")
    assert (rows[4]["movie"], rows[4]["genres"], rows[4]["gender"]) == ("4000", None, "F")
    assert rejects.check(5, max_rejected=0, name="m")["rows_in"] == 5


def test_ratings_can_be_left_out_and_the_threshold_moved(raw: Callable[..., Path]):
    rows, rejects = read(raw(), threshold=5, drop=[3, 4])
    assert [(row["movie"], row["label"]) for row in rows] == [("1", 1), ("2434", 0), ("4000", 0)]
    account = rejects.check(3, max_rejected=0, name="m")
    assert (account["rows_in"], account["dropped"]) == (5, 2)


def test_corrupted_lines_are_rejected_with_file_line_and_reason(raw: Callable[..., Path]):
    bad = "1::1::5\n1::1::6::978300001\n\n1:1:5:978300001\n" + FILES["ratings"] + "1::1::5::978300001::7\n"
    rows, rejects = read(raw(ratings=bad, users=FILES["users"] + "4::X::25::15::12345\n"))
    assert len(rows) == 5
    assert rejects.first == [
        "users.dat:4: gender 'X' is not M or F",
        "ratings.dat:1: 3 fields where 4 belong: '1::1::5'",
        "ratings.dat:2: rating '6' is not 1 to 5",
        "ratings.dat:4: 1 fields where 4 belong: '1:1:5:978300001'",
        "ratings.dat:10: 5 fields where 4 belong: '1::1::5::978300001::7'",
    ]


@pytest.mark.parametrize("file", FILES)
def test_a_missing_file_is_an_error_that_names_it(raw: Callable[..., Path], file: str):
    folder = raw()
    (folder / f"{file}.dat").unlink()
    with pytest.raises(PipelineError, match=rf"{file}\.dat cannot be opened"):
        read(folder)


@pytest.mark.skipif(
    not (MIRROR / "movielens-1m/ratings.dat").exists(),
    reason="no real data: ../shared/datasets/movielens-1m/ratings.dat and the files beside it",
)
def test_the_real_movielens_1m_from_the_mirror(
    tmp_path: Path, run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CTR_MIRROR", str(MIRROR))
    data = run(tmp_path, "movielens-1m")
    raw = data / "raw/movielens-1m"
    manifest = read_json(raw / "manifest.json")
    matches = {name: entry["matches_publisher"] for name, entry in manifest["files"].items()}
    assert matches == {"ratings.dat": False, "users.dat": True, "movies.dat": True}
    assert manifest["matches_publisher"] is False
    report = read_json(data / "interim/movielens-1m/report.json")
    assert (report["rows_in"], report["rows_out"], report["rejected"]) == (1_000_209, 1_000_209, 0)
    assert round(report["clicks"] / report["rows_out"], 5) == 0.57516
    counts = {name: entry["records"] for name, entry in report["files"].items()}
    assert counts == {"users.dat": 6040, "movies.dat": 3883, "ratings.dat": 1_000_209}

    table = CleanTable(data / "interim/movielens-1m")
    absent = {
        column.name for column in table.columns if any(b.null_count for b in table.column_blocks(column.name))
    }
    assert absent == set()  # every rated user and movie is known, and every title has its year
    seen = {
        name: pa.chunked_array(list(table.column_blocks(name))).unique().to_pylist()
        for name in ("user", "movie")
    }
    assert (len(seen["user"]), len(seen["movie"])) == (6040, 3883 - 177)

    processed = data / "processed/movielens-1m"
    assert [len(np.load(processed / f"{part}.ids.npy")) for part in SPLITS] == [720_150, 80_017, 200_042]
    genres = read_json(processed / "schema.json")[-1]
    assert (genres["name"], genres["size"]) == ("genres", 1 + 18)

    # without the middle rating
    folder, rejects = tmp_path / "drop3", RejectLog()
    folder.mkdir()
    report = clean_table.write(folder, movielens_1m.read(raw, rejects, drop=[3]), rejects, "drop3")
    assert (report["rows_out"], report["dropped"]) == (739_012, 261_197)
