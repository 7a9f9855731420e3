"""The datasets, one source per file; this table is the only list of them.

A dataset is a module with

    download(folder, cache, *, mirror, ...)     puts the raw files and manifest.json into `folder`
    read(folder, rejects, *, ...)               raw files -> `clean_table.ClickLog`: fields and clean tables

`read` works row by row: nothing in it is fitted, and it counts corrupted records in the reject log. The
further keyword arguments of both functions are the dataset's keys in params.yaml.
"""

from types import ModuleType

from pipeline.datasets import (
    avazu,
    book_crossing,
    criteo,
    feed,
    kuairec_big,
    movielens_1m,
    movielens_100k,
    synthetic,
    tabular,
)

DATASETS: dict[str, ModuleType] = {
    "synthetic": synthetic,
    "feed": feed,
    "movielens-100k": movielens_100k,
    "movielens-1m": movielens_1m,
    "book-crossing": book_crossing,
    "kuairec-big": kuairec_big,
    "avazu-1m": avazu,
    "criteo": criteo,
    "tabular": tabular,
}
