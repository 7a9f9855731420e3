"""MovieLens 1M: 1,000,209 ratings of 3,883 movies by 6,040 users, 2000-2003.

Data: Harper and Konstan, "The MovieLens Datasets: History and Context", ACM TiiS 2015,
https://doi.org/10.1145/2827872; https://grouplens.org/datasets/movielens/1m/.

Label: rating >= `threshold`. Dropping rating 3 makes another and easier task, on which papers report an
AUC of 0.90 and more. Fields are separated by `::`, everything is latin-1. The age is a code of its range
(1, 18, 25, ...), the zip code a string (some are `98107-2117`), the year stands in the title. Of the
movies 177 have no rating.
"""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.datasets.movielens_100k import COLUMNS, FILLED, ID, ratings, year
from pipeline.download.manifest import File, Source
from pipeline.download.obtain import obtain
from pipeline.preprocess.clean_table import ClickLog
from pipeline.preprocess.joins import Side, side_table
from pipeline.preprocess.parse import chunk, recode
from pipeline.preprocess.rejects import RejectLog
from pipeline.preprocess.text import Dialect

SOURCE = Source(
    name="movielens-1m",
    url="https://files.grouplens.org/datasets/movielens/ml-1m.zip",
    archive="ml-1m.zip",
    digest="md5:c4d9eecfca2ab87c1945afe126590906",
    inside="ml-1m/",
    licence="GroupLens Research, University of Minnesota: research use with acknowledgement, no "
    "redistribution, no commercial use without permission; terms in the archive's README.",
    files=(
        File("ratings.dat", "git-blob:77a7c4b150f588c23bb9e1f068aa996c0b413695", rebuilt=True),
        File("users.dat", "sha256:1dc3a95300cb19f7c10e027daf29b8cdf1d908dab65b5edfb45950aa389a10a3"),
        File("movies.dat", "sha256:0140fc2356357c1a851d0f52e893a1e4d3696df632c4141cea8d5bc3d621f0b9"),
    ),
)

DIALECT = Dialect("::", "latin-1")


def download(folder: Path, cache: Path, *, mirror: str | None = None) -> None:
    """Put the raw files into `folder`."""
    obtain(SOURCE, folder, cache=cache, mirror=mirror)


def read(folder: Path, rejects: RejectLog, *, threshold: int = 4, drop: Sequence[int] = ()) -> ClickLog:
    """Read the ratings in file order, joined with users and movies.

    Args:
        threshold: a rating of so many stars or more is a click.
        drop: ratings to leave out.
    """
    users, movies = Side(_users(folder, rejects)), Side(_movies(folder, rejects))
    return ClickLog(
        COLUMNS, ratings(folder / "ratings.dat", DIALECT, rejects, users, movies, threshold, drop)
    )


def _users(folder: Path, rejects: RejectLog) -> pa.Table:
    names = ["user", "gender", "age", "occupation", "zip"]
    rules = {
        "user": ID,
        "gender": ("[MF]", "M or F"),
        "age": ("[0-9]{1,3}", "a whole number"),
        "occupation": ("[0-9]{1,3}", "a whole number"),
        "zip": FILLED,
    }
    table = side_table(folder / "users.dat", names, rules, rejects, DIALECT)
    zip3 = recode(chunk(table["zip"]), lambda codes: pc.utf8_slice_codeunits(codes, 0, 3))
    return table.drop_columns("zip").append_column("zip3", zip3)


def _movies(folder: Path, rejects: RejectLog) -> pa.Table:
    rules = {"movie": ID, "title": FILLED, "genres": FILLED}
    table = side_table(folder / "movies.dat", ["movie", "title", "genres"], rules, rejects, DIALECT)
    years = recode(chunk(table["title"]), year)
    return pa.table({"movie": table["movie"], "year": years, "genres": table["genres"]})
