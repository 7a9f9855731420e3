"""MovieLens 1M: 1,000,209 ratings of 3,883 movies by 6,040 users, 2000-2003.

Data: Harper and Konstan, "The MovieLens Datasets: History and Context", ACM TiiS 2015,
https://doi.org/10.1145/2827872; https://grouplens.org/datasets/movielens/1m/.

Label: rating >= `threshold`; the grade behind it is the rating. Dropping rating 3 makes another, easier task,
for which papers report an AUC of 0.90 and more. Fields are separated by `::`, all files are latin-1. The age
is a code of its range (1, 18, 25, ...), the zip code a string (some are `98107-2117`), and the year is part
of the title. 177 of the movies have no rating.

A reconstructed copy of ratings.dat exists whose users, movies and ratings are exact and 9,147 of whose times
are imputed, all of ratings of 3 stars or less: a model that reads them sees the label. So the times of a copy
with other bytes are left out.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.datasets.movielens_100k import CODE, COLUMNS, GENDER, Stars, ratings, users, year
from pipeline.download.manifest import File, Source
from pipeline.download.obtain import obtain
from pipeline.preprocess.clean_table import ClickLog
from pipeline.preprocess.cleaning import FILLED, ID
from pipeline.preprocess.joins import Side, side_table
from pipeline.preprocess.parse import chunk, recode
from pipeline.preprocess.rejects import RejectLog
from pipeline.preprocess.text import Dialect

SOURCE = Source(
    name="movielens-1m",
    url="https://files.grouplens.org/datasets/movielens/ml-1m.zip",
    archive="ml-1m.zip",
    checksum="md5:c4d9eecfca2ab87c1945afe126590906",
    inside="ml-1m/",
    licence="GroupLens Research, University of Minnesota: research use with acknowledgement, no "
    "redistribution, no commercial use without permission; terms in the archive's README.",
    files=(
        File("ratings.dat", "git-blob:77a7c4b150f588c23bb9e1f068aa996c0b413695", rebuilt=True, times=True),
        File("users.dat", "sha256:1dc3a95300cb19f7c10e027daf29b8cdf1d908dab65b5edfb45950aa389a10a3"),
        File("movies.dat", "sha256:0140fc2356357c1a851d0f52e893a1e4d3696df632c4141cea8d5bc3d621f0b9"),
    ),
)

USERS = {"user": ID, "gender": GENDER, "age": CODE, "occupation": CODE, "zip": FILLED}
DIALECT = Dialect("::", "latin-1")


def download(folder: Path, cache: Path, *, mirror: str | None = None) -> None:
    """Put the raw files into `folder`."""
    obtain(SOURCE, folder, cache=cache, mirror=mirror)


def read(
    folder: Path,
    rejects: RejectLog,
    *,
    threshold: Stars = 4,
    drop: Sequence[Stars] = (),
    released: Literal["year", "decade"] = "year",
) -> ClickLog:
    """Read the ratings in file order, joined with users and movies.

    Args:
        threshold: a rating of this many stars or more is a click.
        drop: ratings to leave out.
        released: what the field `year` holds: the year, or the first of its decade, those before 1940 as one.
    """
    movies = _movies(folder, rejects, year if released == "year" else decade)
    sides = Side(users(folder / "users.dat", USERS, rejects, DIALECT)), Side(movies)
    return ClickLog(COLUMNS, ratings(folder / "ratings.dat", DIALECT, rejects, *sides, threshold, drop))


def decade(titles: pa.Array) -> pa.Array:
    """Return the first year of the decade of the year in the titles, 1930 for all before 1940."""
    decades = pc.binary_join_element_wise(pc.utf8_slice_codeunits(year(titles), 0, 3), "0", "")
    return pc.if_else(pc.less(decades, "1930"), "1930", decades)


def _movies(folder: Path, rejects: RejectLog, released: Callable[[pa.Array], pa.Array]) -> pa.Table:
    rules = {"movie": ID, "title": FILLED, "genres": FILLED}
    table = side_table(folder / "movies.dat", ["movie", "title", "genres"], rules, rejects, DIALECT)
    years = recode(chunk(table["title"]), released)
    return pa.table({"movie": table["movie"], "year": years, "genres": table["genres"]})
