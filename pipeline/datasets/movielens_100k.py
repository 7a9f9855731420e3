"""MovieLens 100K: 100,000 ratings of 1,682 movies by 943 users, 1997-1998.

Data: Harper and Konstan, "The MovieLens Datasets: History and Context", ACM TiiS 2015,
https://doi.org/10.1145/2827872; https://grouplens.org/datasets/movielens/100k/.

Label: rating >= `threshold`; the grade behind it is the rating. All files are latin-1. Movie 267 is called
"unknown" and has no date, so its year is missing. Some zip codes contain letters (T8H1N); they are strings.
The age is a category of its exact value.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from annotated_types import Ge, Le

from pipeline.common.errors import PipelineError
from pipeline.download.manifest import File, Source
from pipeline.download.obtain import obtain
from pipeline.preprocess.clean_table import ClickLog
from pipeline.preprocess.cleaning import FILLED, ID, Rule, equals, keep, screen
from pipeline.preprocess.joins import Side, side_table
from pipeline.preprocess.parse import chunk, grades, numbers, recode
from pipeline.preprocess.rejects import RejectLog
from pipeline.preprocess.text import Dialect, records
from pipeline.schema import Column

Stars = Annotated[int, Ge(1), Le(5)]
SOURCE = Source(
    name="movielens-100k",
    url="https://files.grouplens.org/datasets/movielens/ml-100k.zip",
    archive="ml-100k.zip",
    checksum="md5:0e33842e24a9c977be4e0107933c0723",
    inside="ml-100k/",
    licence="GroupLens Research, University of Minnesota: research use with acknowledgement, no "
    "redistribution, no commercial use without permission; terms in the archive's README.",
    files=(
        File("u.data", "sha256:06416e597f82b7342361e41163890c81036900f418ad91315590814211dca490"),
        File("u.genre", "sha256:9757e0d3e6b298159a80dd48eaf938114690e911e39af97a76949ef1663610bb"),
        File("u.info", "sha256:5b0a40b2e47a729ee6203063f6dcf8790c2e63f5a18663e6ee318a72c5f3c27b"),
        File("u.item", "sha256:553841ebc7de3a0fd0d6b62a204ea30c1e651aacfb2814c7a6584ac52f2c5701"),
        File("u.occupation", "sha256:cd5fbec9afe345d993a62fc7817df1a4a9079c4feb267b3118763b8fd942137d"),
        File("u.user", "sha256:f120e114da2e8cf314fd28f99417c94ae9ddf1cb6db8ce0e4b5995d40e90e62c"),
    ),
)

COLUMNS = (
    Column("user", "category", "user", role="user"),
    Column("gender", "category", "user"),
    Column("age", "category", "user"),
    Column("occupation", "category", "user"),
    Column("zip3", "category", "user"),
    Column("movie", "category", "item", role="item"),
    Column("year", "category", "item"),
    Column("genres", "bag", "item"),
)

GENDER: Rule = ("[MF]", "M or F")
CODE: Rule = ("[0-9]{1,3}", "a whole number")
USERS = {"user": ID, "age": CODE, "gender": GENDER, "occupation": FILLED, "zip": FILLED}
TITLE = ["movie", "title", "released", "video", "url"]
RATINGS = Dialect("\t", "latin-1")
SIDES = Dialect("|", "latin-1")


def download(folder: Path, cache: Path, *, mirror: str | None = None) -> None:
    """Put the raw files into `folder`."""
    obtain(SOURCE, folder, cache=cache, mirror=mirror)


def read(folder: Path, rejects: RejectLog, *, threshold: Stars = 4, drop: Sequence[Stars] = ()) -> ClickLog:
    """Read the ratings in file order, joined with users and movies.

    Args:
        threshold: a rating of this many stars or more is a click.
        drop: ratings to leave out.
    """
    sides = Side(users(folder / "u.user", USERS, rejects, SIDES)), Side(_movies(folder, rejects))
    return ClickLog(COLUMNS, ratings(folder / "u.data", RATINGS, rejects, *sides, threshold, drop))


def ratings(
    path: Path,
    dialect: Dialect,
    rejects: RejectLog,
    users: Side,
    movies: Side,
    threshold: int,
    drop: Sequence[int],
) -> Iterator[pa.Table]:
    """Yield the ratings of a file of user, movie, rating, time, joined with users and movies."""
    names = ["user", "movie", "rating", "time"]
    rules = {"user": ID, "movie": ID, "rating": ("[1-5]", "1 to 5"), "time": ID}
    stars = [str(star) for star in range(threshold, 6)]
    for table, lines in records(path, names, rejects, dialect, text=["time"]):
        table, lines = screen(table, lines, path.name, rejects, rules)
        if drop:
            dropped = equals(chunk(table["rating"]), *map(str, drop))
            rejects.drop(path.name, int(dropped.sum()))
            table, lines = keep(table, lines, ~dropped)
        side = {**users.join(chunk(table["user"])), **movies.join(chunk(table["movie"]))}
        yield pa.table(
            {
                **{column.name: side[column.name] for column in COLUMNS},
                "label": equals(chunk(table["rating"]), *stars).astype(np.uint8),
                "grade": grades(numbers(chunk(table["rating"]))[0], 1, 2, 3, 4),
                "group": side["user"],
                "time": pc.cast(table["time"], pa.int64()),
            }
        )


def users(path: Path, rules: Mapping[str, Rule], rejects: RejectLog, dialect: Dialect) -> pa.Table:
    """Read a file of users with the zip codes' first three characters as `zip3`.

    Args:
        rules: of the file's columns, in their order.
    """
    table = side_table(path, [*rules], rules, rejects, dialect)
    zip3 = recode(chunk(table["zip"]), lambda codes: pc.utf8_slice_codeunits(codes, 0, 3))
    return table.drop_columns("zip").append_column("zip3", zip3)


def _movies(folder: Path, rejects: RejectLog) -> pa.Table:
    genres = _genres(folder, rejects)
    rules = {"movie": ID, "title": FILLED, **dict.fromkeys(genres, ("[01]", "0 or 1"))}
    table = side_table(folder / "u.item", [*TITLE, *genres], rules, rejects, SIDES)
    flags = zip(*(table[genre].to_pylist() for genre in genres), strict=True)
    bags = ["|".join(genre for genre, flag in zip(genres, row, strict=True) if flag == "1") for row in flags]
    return pa.table({"movie": table["movie"], "year": recode(chunk(table["title"]), year), "genres": bags})


def year(titles: pa.Array) -> pa.Array:
    """Return the year that is in brackets in the titles: `Land Before Time III (1995) (V)`."""
    return pc.struct_field(pc.extract_regex(titles, r"\((?P<year>[0-9]{4})\)"), "year")


def _genres(folder: Path, rejects: RejectLog) -> list[str]:
    """Return the names of the genre flags of u.item, in their order."""
    path = folder / "u.genre"
    table = side_table(path, ["genre", "number"], {"genre": FILLED, "number": ID}, rejects, SIDES)
    numbers = [int(number) for number in table["number"].to_pylist()]
    if numbers != list(range(len(numbers))):
        raise PipelineError(f"{path}: the genres are numbered {numbers}, expected 0, 1, 2, ...")
    return [str(genre) for genre in table["genre"].to_pylist()]
