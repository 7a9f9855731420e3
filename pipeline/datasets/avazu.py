"""Avazu: ten days of advertisements shown in mobile apps and on sites, 40,428,967 of them, October 2014.

Data: Kaggle's competition of 2014, https://www.kaggle.com/competitions/avazu-ctr-prediction. Its file
may not be redistributed, so the user provides it: as a local copy, by a mirror, or by a token for Kaggle.

Label: click. Row ids exceed 64 bits and are not a field. All fields are categories of the strings as they
are, including -1. `hour` is YYMMDDHH in UTC; the fields hour and weekday are derived from it, and `time` is
the start of that hour. No column identifies a user or an advertisement, so none is declared: there are
no groups, and mf, din and disenctr are refused, unless the entry says what stands for them, such as
`preprocess: {user: device_ip, item: C14}` (device_id has one value in most rows).

The domains are our choice: the device's columns are user, the anonymous C14 to C21, which describe the
advertisement, are item, and the place and time of the impression are context.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import requests

from pipeline.common.errors import PipelineError
from pipeline.common.files import read_json
from pipeline.download import kaggle
from pipeline.download.fetch import Unreachable
from pipeline.download.manifest import File, Source
from pipeline.download.obtain import NotInMirror, copy_own, obtain
from pipeline.preprocess.clean_table import ClickLog
from pipeline.preprocess.cleaning import equals, keep, missing, reject, screen
from pipeline.preprocess.parse import chunk
from pipeline.preprocess.rejects import RejectLog
from pipeline.preprocess.text import Dialect, records
from pipeline.preprocess.timestamps import date_part, seconds
from pipeline.preprocess.units import Lines
from pipeline.schema import Column

PAGE = "https://www.kaggle.com/competitions/avazu-ctr-prediction"
SOURCE = Source(
    name="avazu-1m",
    url="https://www.kaggle.com/api/v1/competitions/data/download/avazu-ctr-prediction",
    licence=f"Kaggle competition rules, {PAGE}/rules: to be accepted by each user, no redistribution.",
    files=(File("train.gz"),),
)
NAMES = ("train.gz", "train.csv")  # of the file in a mirror or a folder
HINT = (
    "Set download.path of this dataset in params.yaml to your copy of train.gz or train.csv; or set "
    f"CTR_MIRROR (or `mirror` in params.yaml) to a folder or URL that contains {SOURCE.name}/train.gz or "
    f"{SOURCE.name}/train.csv; or download it from Kaggle: accept the rules on {PAGE}/rules and put your "
    "token into KAGGLE_API_TOKEN, into KAGGLE_USERNAME and KAGGLE_KEY, or into ~/.kaggle/kaggle.json"
)

SITE = ("site_id", "site_domain", "site_category")
APP = ("app_id", "app_domain", "app_category")
DEVICE = ("device_id", "device_ip", "device_model", "device_type", "device_conn_type")
ADVERTISEMENT = tuple(f"C{number}" for number in range(14, 22))
COLUMNS = (
    *(Column(name, "category", "context", dated=True) for name in ("hour", "weekday")),
    *(Column(name, "category", "context") for name in ("C1", "banner_pos", *SITE, *APP)),
    *(Column(name, "category", "user") for name in DEVICE),
    *(Column(name, "category", "item") for name in ADVERTISEMENT),
)
HEADER = ["id", "click", "hour", "C1", "banner_pos", *SITE, *APP, *DEVICE, *ADVERTISEMENT]
GZIP = b"\x1f\x8b"  # the first bytes of a .gz file


def download(folder: Path, cache: Path, *, mirror: str | None = None, path: str | None = None) -> None:
    """Put the raw file into `folder` under its own name.

    Args:
        path: of a local file in the format of train.csv, plain or compressed, or of a folder with a
            train.gz or train.csv.
    """
    if path is not None:
        copy_own(_own_file(path), folder, source=SOURCE.name, licence=SOURCE.licence)
    elif mirror is not None:
        _from_mirror(folder, cache, mirror)
    else:
        _from_kaggle(folder, cache)


def read(folder: Path, rejects: RejectLog) -> ClickLog:
    """Read the rows in file order, which is chronological."""
    return ClickLog(COLUMNS, _rows(folder, rejects))


def _rows(folder: Path, rejects: RejectLog) -> Iterator[pa.Table]:
    (name,) = read_json(folder / "manifest.json")["files"]
    clean = partial(_clean, name)
    return records(folder / name, HEADER, rejects, Dialect(), header=True, only=HEADER[1:], clean=clean)


def _clean(file: str, table: pa.Table, lines: Lines, rejects: RejectLog) -> pa.Table:
    rules = {"click": ("[01]", "0 or 1"), "hour": ("[0-9]{8}", "YYMMDDHH")}
    table, lines = screen(table, lines, file, rejects, rules)
    time, bad = seconds(chunk(table["hour"]), "%y%m%d%H")
    reject(table, lines, file, rejects, bad, "hour", "is not a valid date")
    table, lines = keep(table, lines, ~bad)
    time = time.filter(pa.array(~bad))
    derived = {"hour": date_part(time, "hour"), "weekday": date_part(time, "weekday")}
    names = [column.name for column in COLUMNS]
    fields = {n: derived[n] if n in derived else missing(chunk(table[n]), "") for n in names}
    label = equals(chunk(table["click"]), "1").astype(np.uint8)
    return pa.table({**fields, "label": label, "time": time})


def _own_file(path: str) -> Path:
    """Return the local file, or the one in the local folder."""
    own = Path(path).expanduser()
    if own.is_dir():
        found = [own / name for name in NAMES if (own / name).is_file()]
        if not found:
            raise PipelineError(f"{own} contains no train.gz or train.csv (download.path in params.yaml)")
        return found[0]
    if own.suffix == ".zip":
        raise PipelineError(f"{own} is an archive: unpack it and set download.path to its train.gz")
    return own


def _from_mirror(folder: Path, cache: Path, mirror: str) -> None:
    for name in NAMES:
        try:
            return obtain(replace(SOURCE, files=(File(name),)), folder, cache=cache, mirror=mirror)
        except NotInMirror:
            continue
    raise PipelineError(
        f"the mirror {mirror} contains no file of {SOURCE.name}. {HINT}; for that unset the mirror"
    )


def _from_kaggle(folder: Path, cache: Path) -> None:
    (file,) = SOURCE.files
    auth = kaggle.credentials()
    if auth is None and not (cache / file.name).exists():
        raise PipelineError(f"{SOURCE.name}: no path, no mirror, and no token for Kaggle. {HINT}")
    try:
        obtain(SOURCE, folder, cache=cache, auth=auth)
    except Unreachable as error:
        if error.status == requests.codes.unauthorized:
            raise PipelineError(
                f"{SOURCE.name}: Kaggle rejects the token (HTTP 401): create a new one in the settings of "
                "your account, https://www.kaggle.com/settings"
            ) from None
        if error.status == requests.codes.forbidden:
            raise PipelineError(
                f"{SOURCE.name}: Kaggle denies your account the file (HTTP 403): log in, accept the "
                f"competition's rules on {PAGE}/rules, and run the command again"
            ) from None
        raise
    with open(folder / file.name, "rb") as opened:
        if opened.read(2) != GZIP:
            (cache / file.name).unlink()
            raise PipelineError(f"{SOURCE.name}: what Kaggle sent is not a .gz file. {HINT}")
