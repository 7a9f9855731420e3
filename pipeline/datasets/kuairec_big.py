"""KuaiRec, big matrix: 12,530,806 views of 10,728 videos by 7,176 users of a short-video app, 2020.

Data: Gao et al., "KuaiRec: A Fully-observed Dataset and Insights for Evaluating Recommender Systems",
CIKM 2022, https://doi.org/10.1145/3511808.3557220; https://kuairec.com.

Label: watch ratio (time played / length of the video) above `above`, as in the FiiNet paper. The time played
is not a field, since the label is computed from it. The grade behind the label is the number of `CUTS` that
the watch ratio is above. The length is one, since it is known before the view. Of
user attributes that come both as a count and as a range, the range is used. Hour and weekday are those of
China, UTC+8, as in the file's column `time`. `user_active_degree` is UNKNOWN where it is missing, some
anonymous features have missing values, and the categories of a video are a list in text: `[27, 9]`.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.common.ranges import NonNegative
from pipeline.download.manifest import File, Source
from pipeline.download.obtain import obtain
from pipeline.preprocess.clean_table import ClickLog
from pipeline.preprocess.cleaning import ID, keep, missing, reject, screen
from pipeline.preprocess.joins import Side, side_table
from pipeline.preprocess.parse import chunk, grades, numbers, recode
from pipeline.preprocess.rejects import RejectLog
from pipeline.preprocess.text import Dialect, records
from pipeline.preprocess.timestamps import date_part, seconds
from pipeline.preprocess.units import Lines
from pipeline.schema import Column

SOURCE = Source(
    name="kuairec-big",
    url="https://zenodo.org/records/18164998/files/KuaiRec.zip",
    archive="KuaiRec.zip",
    inside="*/",
    licence="CC BY-SA 4.0, https://creativecommons.org/licenses/by-sa/4.0/",
    files=(
        File("big_matrix.csv", rebuilt=True, records=12_530_806, times=True),
        File(
            "user_features.csv",
            "sha256:c03ce5c6e90c50407b45585bde983db3079492346f7fa676d860777abfd783f4",
            rebuilt=True,
        ),
        File(
            "item_categories.csv",
            "sha256:b8b8330387cd69659ff6b35b9b69bb35303196a5264d5d7743e92ae8e19cd15e",
            rebuilt=True,
        ),
    ),
)

RANGES = ("follow_user_num_range", "fans_user_num_range", "friend_user_num_range", "register_days_range")
FLAGS = ("is_lowactive_period", "is_live_streamer", "is_video_author")
ONEHOT = tuple(f"onehot_feat{number}" for number in range(18))
ATTRIBUTES = ("user_active_degree", *FLAGS, *RANGES, *ONEHOT)
COLUMNS = (
    Column("user", "category", "user", role="user"),
    *(Column(name, "category", "user") for name in ATTRIBUTES),
    Column("video", "category", "item", role="item"),
    Column("categories", "bag", "item"),
    Column("duration", "number", "item"),
    Column("hour", "category", "context", dated=True),
    Column("weekday", "category", "context", dated=True),
)
VIEWS = [
    "user_id", "video_id", "play_duration", "video_duration", "time", "date", "timestamp", "watch_ratio",
]  # fmt: skip
USERS = [
    "user_id", "user_active_degree", *FLAGS,
    *(name for kind in RANGES for name in (kind.removesuffix("_range"), kind)), *ONEHOT,
]  # fmt: skip
DIALECT = Dialect(",", "utf-8", quote='"')
CUTS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
CHINA_OFFSET_SECONDS = 8 * 3600  # to UTC


def download(folder: Path, cache: Path, *, mirror: str | None = None) -> None:
    """Put the raw files into `folder`."""
    obtain(SOURCE, folder, cache=cache, mirror=mirror)


def read(folder: Path, rejects: RejectLog, *, above: NonNegative = 3.0) -> ClickLog:
    """Read the views in file order, joined with users and videos.

    Args:
        above: a view whose watch ratio is larger is a click.
    """
    return ClickLog(COLUMNS, _views(folder, rejects, above))


def _views(folder: Path, rejects: RejectLog, above: float) -> Iterator[pa.Table]:
    users, videos = Side(_users(folder, rejects)), Side(_videos(folder, rejects))
    path = folder / "big_matrix.csv"
    wanted = ["user_id", "video_id", "video_duration", "timestamp", "watch_ratio"]
    plain = ["timestamp", "watch_ratio"]
    clean = partial(_clean, users, videos, above, path.name)
    return records(path, VIEWS, rejects, DIALECT, header=True, only=wanted, text=plain, clean=clean)


def _clean(
    users: Side, videos: Side, above: float, file: str, table: pa.Table, lines: Lines, rejects: RejectLog
) -> pa.Table:
    table, lines = screen(table, lines, file, rejects, {"user_id": ID, "video_id": ID})
    ratio, bad_ratio = numbers(chunk(table["watch_ratio"]))
    times, bad_times = seconds(chunk(table["timestamp"]), "seconds")
    length, bad_length = numbers(chunk(table["video_duration"]))
    bad = {
        "watch_ratio": bad_ratio | ~np.isfinite(ratio),  # the label is made of it
        "timestamp": bad_times,
        "video_duration": bad_length,
    }
    good = np.ones(len(table), bool)
    for name, malformed in bad.items():
        reject(table, lines, file, rejects, good & malformed, name, "is not a number")
        good &= ~malformed
    table, lines = keep(table, lines, good)
    ratio, times, length = ratio[good], times.filter(pa.array(good)), length[good]
    side = {**users.join(chunk(table["user_id"])), **videos.join(chunk(table["video_id"]))}
    local = pc.add(times, CHINA_OFFSET_SECONDS)
    derived = {
        "user": side["user_id"],
        "video": side["video_id"],
        "duration": pa.array(length),
        "hour": date_part(local, "hour"),
        "weekday": date_part(local, "weekday"),
    }
    return pa.table(
        {
            **{c.name: derived.get(c.name, side.get(c.name)) for c in COLUMNS},
            "label": (ratio > above).astype(np.uint8),
            "grade": grades(ratio, above, *CUTS),
            "group": side["user_id"],
            "time": times,
        }
    )


def _users(folder: Path, rejects: RejectLog) -> pa.Table:
    path = folder / "user_features.csv"
    table = side_table(path, USERS, {"user_id": ID}, rejects, DIALECT, header=True)
    attributes = {name: missing(chunk(table[name]), "", "UNKNOWN") for name in ATTRIBUTES}
    return pa.table({"user_id": table["user_id"], **attributes})


def _videos(folder: Path, rejects: RejectLog) -> pa.Table:
    path = folder / "item_categories.csv"
    rules = {"video_id": ID, "feat": (r"\[([0-9]+(, *[0-9]+)*)?\]", "a list such as [27, 9]")}
    table = side_table(path, ["video_id", "feat"], rules, rejects, DIALECT, header=True)
    categories = recode(chunk(table["feat"]), _joined)
    return pa.table({"video_id": table["video_id"], "categories": categories})


def _joined(lists: pa.Array) -> pa.Array:
    """`[27, 9]` -> `27|9`."""
    return pc.replace_substring_regex(pc.utf8_trim(lists, "[]"), ", *", "|")
