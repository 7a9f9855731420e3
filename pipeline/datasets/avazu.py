"""Avazu: ten days of advertisements shown in mobile apps and on sites, 40,428,967 of them, October 2014.

Data: Kaggle's competition of 2014, https://www.kaggle.com/competitions/avazu-ctr-prediction. Its file
may not be passed on, so it comes from the user: a copy on the disk, a mirror, or Kaggle with the user's
own token.

Label: click. The ids of the rows have more digits than 64 bits hold, and belong to no field. All fields
are categories of the strings as they stand, -1 among them. `hour` is YYMMDDHH in UTC and becomes hour
and weekday; `time` is its begin. No column is a user, so there are no groups.

The domains are our choice: what is known of the device counts as user, the anonymous C14 to C21, which
describe the advertisement, as item, and where and when it was shown as context.
"""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import requests
from requests.auth import AuthBase, HTTPBasicAuth

from pipeline.common.errors import PipelineError
from pipeline.common.files import read_json
from pipeline.download.fetch import Unreachable
from pipeline.download.manifest import File, Source
from pipeline.download.obtain import Lacking, copy_own, obtain
from pipeline.preprocess.clean_table import ClickLog
from pipeline.preprocess.cleaning import equals, keep, missing, reject, screen
from pipeline.preprocess.parse import chunk
from pipeline.preprocess.rejects import RejectLog
from pipeline.preprocess.text import Dialect, records
from pipeline.preprocess.timestamps import date_part, seconds
from pipeline.schema import Column

PAGE = "https://www.kaggle.com/competitions/avazu-ctr-prediction"
SOURCE = Source(
    name="avazu-1m",
    url="https://www.kaggle.com/api/v1/competitions/data/download/avazu-ctr-prediction",
    licence=f"Kaggle competition rules, {PAGE}/rules: to be accepted by each user, no redistribution.",
    files=(File("train.gz"),),
)
NAMES = ("train.gz", "train.csv")  # under which a mirror or a folder may hold it
WAYS = (
    "Name a copy of train.gz or train.csv as download.path of this dataset in params.yaml; or set CTR_MIRROR "
    f"(or `mirror` in params.yaml) to a folder or URL that holds {SOURCE.name}/train.gz or "
    f"{SOURCE.name}/train.csv; or let Kaggle send it: accept the rules on {PAGE}/rules and put your token "
    "into KAGGLE_API_TOKEN, into KAGGLE_USERNAME and KAGGLE_KEY, or into ~/.kaggle/kaggle.json"
)

SITE = ("site_id", "site_domain", "site_category")
APP = ("app_id", "app_domain", "app_category")
DEVICE = ("device_id", "device_ip", "device_model", "device_type", "device_conn_type")
ADVERTISEMENT = tuple(f"C{number}" for number in range(14, 22))
COLUMNS = (
    *(Column(name, "category", "context") for name in ("hour", "weekday", "C1", "banner_pos", *SITE, *APP)),
    *(Column(name, "category", "user") for name in DEVICE),
    *(Column(name, "category", "item") for name in ADVERTISEMENT),
)
HEADER = ["id", "click", "hour", "C1", "banner_pos", *SITE, *APP, *DEVICE, *ADVERTISEMENT]
GZIP = b"\x1f\x8b"


def download(folder: Path, cache: Path, *, mirror: str | None = None, path: str | None = None) -> None:
    """Put the raw file into `folder`, under the name it has.

    Args:
        path: the user's own file in the format of train.csv, plain or compressed, or a folder that
            holds train.gz or train.csv.
    """
    if path is not None:
        copy_own(_own(path), folder, source=SOURCE.name, licence=SOURCE.licence)
    elif mirror is not None:
        _from_mirror(folder, cache, mirror)
    else:
        _from_kaggle(folder, cache)


def read(folder: Path, rejects: RejectLog) -> ClickLog:
    """Read the rows in file order, which is that of time."""
    return ClickLog(COLUMNS, _rows(folder, rejects))


def _rows(folder: Path, rejects: RejectLog) -> Iterator[pa.Table]:
    (name,) = read_json(folder / "manifest.json")["files"]
    rules = {"click": ("[01]", "0 or 1"), "hour": ("[0-9]{8}", "YYMMDDHH")}
    for table, lines in records(folder / name, HEADER, rejects, Dialect(), header=True, only=HEADER[1:]):
        table, lines = screen(table, lines, name, rejects, rules)
        times, bad = seconds(chunk(table["hour"]), "%y%m%d%H")
        reject(table, lines, name, rejects, bad, "hour", "is not a valid date")
        table, lines = keep(table, lines, ~bad)
        times = times.filter(pa.array(~bad))
        derived = {"hour": date_part(times, "hour"), "weekday": date_part(times, "weekday")}
        fields = [column.name for column in COLUMNS]
        yield pa.table(
            {
                **{f: derived[f] if f in derived else missing(chunk(table[f]), "") for f in fields},
                "label": equals(chunk(table["click"]), "1").astype(np.uint8),
                "time": times,
            }
        )


def _own(path: str) -> Path:
    """Return the file that the user means."""
    origin = Path(path).expanduser()
    if origin.is_dir():
        found = [origin / name for name in NAMES if (origin / name).is_file()]
        if not found:
            raise PipelineError(f"{origin} holds no train.gz or train.csv (download.path in params.yaml)")
        return found[0]
    if origin.suffix == ".zip":
        raise PipelineError(f"{origin} is an archive: unpack it, and name train.gz as download.path")
    return origin


def _from_mirror(folder: Path, cache: Path, mirror: str) -> None:
    for name in NAMES:
        try:
            return obtain(replace(SOURCE, files=(File(name),)), folder, cache=cache, mirror=mirror)
        except Lacking:
            continue
    raise PipelineError(
        f"the mirror {mirror} holds no file of {SOURCE.name}. {WAYS}; for that unset the mirror"
    )


def _from_kaggle(folder: Path, cache: Path) -> None:
    (file,) = SOURCE.files
    auth = _token()
    if auth is None and not (cache / file.name).exists():
        raise PipelineError(f"{SOURCE.name}: no mirror, no path, and no token for Kaggle. {WAYS}")
    try:
        obtain(SOURCE, folder, cache=cache, auth=auth)
    except Unreachable as error:
        if error.status == requests.codes.unauthorized:
            raise PipelineError(
                f"{SOURCE.name}: Kaggle does not know the token (HTTP 401): make a new one in the settings "
                "of your account, https://www.kaggle.com/settings"
            ) from None
        if error.status == requests.codes.forbidden:
            raise PipelineError(
                f"{SOURCE.name}: Kaggle refuses the file to your account (HTTP 403): log in, accept the "
                f"competition's rules on {PAGE}/rules, and run the command again"
            ) from None
        raise
    with open(folder / file.name, "rb") as opened:
        if opened.read(2) != GZIP:
            (cache / file.name).unlink()
            raise PipelineError(f"{SOURCE.name}: what Kaggle sent is no .gz file. {WAYS}")


def _token() -> AuthBase | None:
    """Return who asks Kaggle: from the environment, or from a file where Kaggle's own programs look."""
    setting = os.environ.get
    if token := setting("KAGGLE_API_TOKEN"):
        return _Bearer(_clean(token, "KAGGLE_API_TOKEN"))
    if (user := setting("KAGGLE_USERNAME")) and (key := setting("KAGGLE_KEY")):
        return HTTPBasicAuth(_clean(user, "KAGGLE_USERNAME"), _clean(key, "KAGGLE_KEY"))
    home = Path.home()
    usual = [home / ".kaggle", Path(setting("XDG_CONFIG_HOME") or home / ".config", "kaggle")]
    for folder in [Path(named)] if (named := setting("KAGGLE_CONFIG_DIR")) else usual:
        if (file := folder / "access_token").is_file():
            return _Bearer(_clean(file.read_text(errors="replace"), str(file)))
        if (file := folder / "kaggle.json").is_file():
            try:
                known = json.loads(file.read_bytes())
                return HTTPBasicAuth(_clean(known["username"], str(file)), _clean(known["key"], str(file)))
            except (ValueError, KeyError, TypeError, AttributeError):
                raise PipelineError(f"{file} holds no username and key: get a new one from Kaggle") from None
    return None


def _clean(secret: str, where: str) -> str:
    """Return a name or token without space around it; it is told to nobody, least of all in an error."""
    if not re.fullmatch(r"[!-~]+", secret.strip()):
        raise PipelineError(f"{where} is empty or has characters that no token of Kaggle has")
    return secret.strip()


class _Bearer(AuthBase):
    """Sends a token; requests drops it where a redirect leaves the host."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request
