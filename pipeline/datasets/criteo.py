"""Criteo: 45,840,617 impressions of a week of display advertising, 2014, a quarter of them clicked.

Data: Criteo's display advertising challenge, https://www.kaggle.com/c/criteo-display-ad-challenge. Its file
may not be redistributed, so the user provides it: as a local copy or by a mirror.

Label: the first column. 13 counts, I1 to I13, of which I2 may be negative, and 26 categories, C1 to C26,
hashed to eight hexadecimal digits; nothing else is known of them. A value that is not there is missing.
There are no times (rows are in the order of time), and no column identifies a user or an advertisement: mf,
din and disenctr are refused, unless the entry says what stands for them. The negatives were thinned out by
the publisher, by a share that it does not give.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.common.errors import PipelineError
from pipeline.common.files import read_json
from pipeline.download.manifest import File, Source
from pipeline.download.obtain import NotInMirror, copy_own, obtain
from pipeline.preprocess.clean_table import ClickLog
from pipeline.preprocess.cleaning import equals, keep, missing, reject, screen
from pipeline.preprocess.parse import chunk, numbers
from pipeline.preprocess.rejects import RejectLog
from pipeline.preprocess.text import Dialect, records
from pipeline.preprocess.units import Lines
from pipeline.schema import Column

NAMES = ("train.txt", "train.txt.gz")
SOURCE = Source(
    name="criteo",
    url="https://www.kaggle.com/c/criteo-display-ad-challenge",
    licence="Criteo's terms for the challenge: research use, no redistribution.",
    files=(File(NAMES[0]),),
)
COUNTS = tuple(f"I{number}" for number in range(1, 14))
CATEGORIES = tuple(f"C{number}" for number in range(1, 27))
COLUMNS = (
    *(Column(name, "number", "context") for name in COUNTS),
    *(Column(name, "category", "context") for name in CATEGORIES),
)
HEADER = ["label", *COUNTS, *CATEGORIES]
RULES = {"label": ("[01]", "0 or 1")}
HINT = (
    "set download.path of this dataset in params.yaml to your copy of train.txt, or CTR_MIRROR (or `mirror` "
    f"in params.yaml) to a folder or URL that contains {SOURCE.name}/train.txt or {SOURCE.name}/train.txt.gz"
)


def download(folder: Path, cache: Path, *, mirror: str | None = None, path: str | None = None) -> None:
    """Put the raw file into `folder` under its own name.

    Args:
        path: of a local file in the format of train.txt, plain or compressed.
    """
    if path is not None:
        copy_own(Path(path).expanduser(), folder, source=SOURCE.name, licence=SOURCE.licence)
        return None
    for name in NAMES if mirror is not None else ():
        try:
            source = Source(SOURCE.name, SOURCE.url, SOURCE.licence, files=(File(name),))
            return obtain(source, folder, cache=cache, mirror=mirror)
        except NotInMirror:
            continue
    raise PipelineError(f"{SOURCE.name}: its publisher gives no file without your consent: {HINT}")


def read(folder: Path, rejects: RejectLog) -> ClickLog:
    """Read the rows in file order, which is chronological."""
    return ClickLog(COLUMNS, _rows(folder, rejects))


def _rows(folder: Path, rejects: RejectLog) -> Iterator[pa.Table]:
    (name,) = read_json(folder / "manifest.json")["files"]
    return records(folder / name, HEADER, rejects, Dialect("\t"), clean=partial(_clean, name))


def _clean(file: str, table: pa.Table, lines: Lines, rejects: RejectLog) -> pa.Table:
    table, lines = screen(table, lines, file, rejects, RULES)
    counts = {}
    good = np.ones(len(table), bool)
    for column in COUNTS:
        counts[column], malformed = numbers(missing(chunk(table[column]), ""))
        reject(table, lines, file, rejects, good & malformed, column, "is not a number")
        good &= ~malformed
    counts = {column: values[good] for column, values in counts.items()}
    table, lines = keep(table, lines, good)
    categories = {column: missing(chunk(table[column]), "") for column in CATEGORIES}
    label = equals(chunk(table["label"]), "1").astype(np.uint8)
    return pa.table({**counts, **categories, "label": label})
