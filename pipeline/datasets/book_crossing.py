"""Book-Crossing: 1,149,780 ratings of books by 278,858 members of a community of readers, 2004.

Data: Ziegler et al., "Improving Recommendation Lists Through Topic Diversification", WWW 2005,
https://doi.org/10.1145/1060745.1060754; http://www2.informatik.uni-freiburg.de/~cziegler/BX/.

Label: rating above `above`, 6 in the FiiNet paper. A rating of 0 is implicit: the member did not rate the
book. Papers seldom say how they treat these, although they are most of the log, so `implicit` specifies it:
as negatives they give a CTR of 28 %; without them it is 75 %, and that is another task. The grade behind the
label is the rating; with implicit negatives, which are in no order with the rated ones, that of clicks alone.
There are no times.

The files are latin-1 with HTML entities, quoted, with escaped quotes. The fields:

- age: a category of its exact value, as in MovieLens (bins of a number gave the same AUC). Below 5 and above
  100 it is a mistake or a joke, and missing.
- city, region, country: the first, the last but one and the last part of "city, region, country". Parts in
  between (a district, a county) are left out. If there are fewer than three parts, the country is missing.
- book: the ISBN as it is, without spaces around it. Thousands are not valid ISBNs (other lengths, letters, a
  small x), so it is merely a name; a pair of member and book may occur twice.
- year: missing before 1800 and after 2005 (the data are from 2004), and so is 0.

Cities, regions, countries, authors and publishers are compared in lower case, with single spaces and without
quotes and full stops around them.
A mirror may lack the books; the fields author, year and publisher are omitted then.
"""

import html
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from annotated_types import Ge, Le

from pipeline.common.files import read_json
from pipeline.download.manifest import File, Source
from pipeline.download.obtain import obtain
from pipeline.preprocess.clean_table import ClickLog
from pipeline.preprocess.cleaning import ID, equals, keep, screen
from pipeline.preprocess.joins import Side, side_table
from pipeline.preprocess.parse import chunk, grades, numbers, recode
from pipeline.preprocess.rejects import RejectLog
from pipeline.preprocess.text import Dialect, records
from pipeline.schema import Column

RATINGS, USERS, BOOKS = "BX-Book-Ratings.csv", "BX-Users.csv", "BX-Books.csv"
SOURCE = Source(
    name="book-crossing",
    url="http://www2.informatik.uni-freiburg.de/~cziegler/BX/BX-CSV-Dump.zip",
    archive="BX-CSV-Dump.zip",
    licence="Cai-Nicolas Ziegler, University of Freiburg: research use with acknowledgement.",
    files=(
        File(RATINGS, rebuilt=True, records=1_149_780),
        File(USERS, "sha256:33cfe23088cb9f857861f240553425f87372888c22edce59c94fd17fb97b1c82"),
        File(BOOKS, optional=True, records=271_379),
    ),
)

OF_USERS = (
    Column("user", "category", "user", role="user"),
    Column("age", "category", "user"),
    Column("city", "category", "user"),
    Column("region", "category", "user"),
    Column("country", "category", "user"),
)
OF_ITEMS = (Column("book", "category", "item", role="item"),)
OF_BOOKS = (
    Column("author", "category", "item"),
    Column("year", "category", "item"),
    Column("publisher", "category", "item"),
)
AGES = range(5, 101)
YEARS = range(1800, 2006)
MAX_RATING = 10
MISSING = frozenset(("", "na", "none", "null", "unknown"))  # letters and digits of a missing value
DIALECT = Dialect(";", "latin-1", quote='"', escape="\\")
Place = tuple[str | None, str | None, str | None]


def download(folder: Path, cache: Path, *, mirror: str | None = None) -> None:
    """Put the raw files into `folder`."""
    obtain(SOURCE, folder, cache=cache, mirror=mirror)


def read(
    folder: Path,
    rejects: RejectLog,
    *,
    above: Annotated[int, Ge(0), Le(MAX_RATING - 1)] = 6,
    implicit: Literal["negative", "drop"] = "negative",
) -> ClickLog:
    """Read the ratings in file order, joined with users and, if available, books.

    Args:
        above: a higher rating is a click.
        implicit: whether a rating of 0 becomes a negative or is left out.
    """
    columns: tuple[Column, ...] = OF_USERS + OF_ITEMS + OF_BOOKS
    if BOOKS in read_json(folder / "manifest.json")["missing"]:
        columns = OF_USERS + OF_ITEMS
        print(f"{SOURCE.name}: {BOOKS} is unavailable: the fields author, year and publisher are omitted")
    return ClickLog(columns, _ratings(folder, rejects, columns, above, implicit))


def _ratings(
    folder: Path, rejects: RejectLog, columns: tuple[Column, ...], above: int, implicit: str
) -> Iterator[pa.Table]:
    users = Side(_users(folder, rejects))
    books = Side(_books(folder, rejects)) if len(columns) > len(OF_USERS + OF_ITEMS) else None
    path = folder / RATINGS
    names = ["User-ID", "ISBN", "Book-Rating"]
    rules = {"User-ID": ID, "ISBN": (r".*\S.*", "filled in"), "Book-Rating": ("[0-9]|10", "0 to 10")}
    for table, lines in records(path, names, rejects, DIALECT, header=True):
        table, lines = screen(table, lines, path.name, rejects, rules)
        if implicit == "drop":
            dropped = equals(chunk(table["Book-Rating"]), "0")
            rejects.drop(path.name, int(dropped.sum()))
            table, lines = keep(table, lines, ~dropped)
        isbn = recode(chunk(table["ISBN"]), pc.utf8_trim_whitespace)
        side = {**users.join(chunk(table["User-ID"])), "book": isbn, **(books.join(isbn) if books else {})}
        clicks = map(str, range(above + 1, MAX_RATING + 1))
        cuts = range(above if implicit == "negative" else 1, MAX_RATING)
        yield pa.table(
            {
                **{column.name: side[column.name] for column in columns},
                "label": equals(chunk(table["Book-Rating"]), *clicks).astype(np.uint8),
                "grade": grades(numbers(chunk(table["Book-Rating"]))[0], above, *cuts),
                "group": side["user"],
            }
        )


def _users(folder: Path, rejects: RejectLog) -> pa.Table:
    names = ["User-ID", "Location", "Age"]
    table = side_table(folder / USERS, names, {"User-ID": ID}, rejects, DIALECT, header=True)
    location = chunk(table["Location"])
    places = [_place(text) for text in location.dictionary.to_pylist()]

    def part(number: int) -> pa.DictionaryArray:
        values = pa.array([place[number] for place in places], pa.string())
        return recode(location, lambda _: values)

    return pa.table(
        {
            "user": table["User-ID"],
            "age": recode(chunk(table["Age"]), _within(AGES)),
            "city": part(0),
            "region": part(1),
            "country": part(2),
        }
    )


def _books(folder: Path, rejects: RejectLog) -> pa.Table:
    names = ["ISBN", "Book-Title", "Book-Author", "Year-Of-Publication", "Publisher"]
    wanted = ["ISBN", "Book-Author", "Year-Of-Publication", "Publisher"]
    names += ["Image-URL-S", "Image-URL-M", "Image-URL-L"]
    table = side_table(folder / BOOKS, names, {}, rejects, DIALECT, header=True, only=wanted)
    return pa.table(
        {
            "book": recode(chunk(table["ISBN"]), pc.utf8_trim_whitespace),
            "author": recode(chunk(table["Book-Author"]), _names),
            "year": recode(chunk(table["Year-Of-Publication"]), _within(YEARS)),
            "publisher": recode(chunk(table["Publisher"]), _names),
        }
    )


def _place(text: str) -> Place:
    """Split a location into city, region and country.

    >>> _place('St. Louis, mo., missouri, USA')
    ('st. louis', 'missouri', 'usa')
    >>> _place('&#321;ód&#378;, n/a,')
    ('łódź', None, None)
    >>> _place('albany, new york')
    ('albany', 'new york', None)
    """
    parts = [_name(part) for part in html.unescape(text).split(",")]
    if len(parts) < 3:
        parts += [None] * (3 - len(parts))
    return parts[0], parts[-2], parts[-1]


def _name(text: str) -> str | None:
    """Normalise a name; None for a missing value (`n/a`, `-`, `"n/a".)`)."""
    name = " ".join(text.lower().split()).strip("\"'`. ")
    return None if re.sub(r"[\W_]", "", name) in MISSING else name


def _names(values: pa.Array) -> pa.Array:
    return pa.array([_name(html.unescape(text)) for text in values.to_pylist()], pa.string())


def _within(bounds: range) -> Callable[[pa.Array], pa.Array]:
    """Return a function that keeps whole numbers within bounds, without leading zeros, and no other value."""

    def change(values: pa.Array) -> pa.Array:
        numbers = (int(t) if re.fullmatch("[0-9]{1,9}", t.strip()) else -1 for t in values.to_pylist())
        return pa.array([str(number) if number in bounds else None for number in numbers], pa.string())

    return change
