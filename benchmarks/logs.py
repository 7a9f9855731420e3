"""Generated click logs in the formats and sizes of public ones, for measurements.

Only formats, sizes and numbers of distinct values are those of the originals. Who likes what is decided by
a number per user and one per video; the Avazu clicks are random.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.typing import NDArray

from pipeline.common.permutation import mix

ROWS_PER_BLOCK = 500_000
USERS, VIDEOS, CATEGORIES = 7176, 10728, 31
# column -> number of distinct values in Avazu's train.csv (its competition page and common statistics)
AVAZU = {
    "C1": 7, "banner_pos": 7, "site_id": 4737, "site_domain": 7745, "site_category": 26, "app_id": 8552,
    "app_domain": 559, "app_category": 36, "device_id": 2_686_408, "device_ip": 6_729_486,
    "device_model": 8251, "device_type": 5, "device_conn_type": 4, "C14": 2626, "C15": 8, "C16": 9,
    "C17": 435, "C18": 4, "C19": 68, "C20": 172, "C21": 60,
}  # fmt: skip
Draw = Callable[[np.random.Generator, int, int], pa.Table]  # generator, first row, rows


def kuairec(folder: Path, rows: int) -> None:
    """Write big_matrix.csv and the two side tables."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "big_matrix.csv", rows, _views)
    rng = np.random.default_rng(1)
    ranges = {"follow": "(0,10]", "fans": "[1,10)", "friend": "[5,30)"}
    columns: dict[str, NDArray[np.int64] | list[str]] = {"user_id": np.arange(USERS)}
    columns["user_active_degree"] = rng.choice(["full_active", "high_active", "UNKNOWN"], USERS).tolist()
    for name in ("is_lowactive_period", "is_live_streamer", "is_video_author"):
        columns[name] = rng.integers(0, 2, USERS)
    for kind, text in ranges.items():
        columns[f"{kind}_user_num"] = rng.integers(0, 1000, USERS)
        columns[f"{kind}_user_num_range"] = rng.choice(["0", text], USERS).tolist()
    columns["register_days"] = rng.integers(0, 2000, USERS)
    columns["register_days_range"] = rng.choice(["15-30", "61-90", "730+"], USERS).tolist()
    for i, size in enumerate((2, 8, 30, 1076, 13, 10, 3, 47, 340, 7, 5, 3, 2, 2, 2, 2, 2, 2)):
        columns[f"onehot_feat{i}"] = rng.integers(0, size, USERS)
    _quoted(folder / "user_features.csv", pa.table(columns))
    lists = [str(rng.choice(CATEGORIES, rng.integers(1, 4), replace=False).tolist()) for _ in range(VIDEOS)]
    _quoted(folder / "item_categories.csv", pa.table({"video_id": np.arange(VIDEOS), "feat": lists}))


def avazu(folder: Path, rows: int) -> None:
    """Write train.csv."""
    folder.mkdir(parents=True, exist_ok=True)
    words = {name: _words(name, size) for name, size in AVAZU.items()}

    def impressions(rng: np.random.Generator, start: int, count: int) -> pa.Table:
        hours = (start + np.arange(count)) * 240 // rows  # ten days
        columns = {
            "id": pc.cast(pa.array(rng.integers(10**18, 2**63 - 1, count)), pa.string()),
            "click": (rng.random(count) < 0.17).astype(np.int8),
            "hour": 14102100 + hours // 24 * 100 + hours % 24,
        }
        for name, values in words.items():
            # most traffic comes without a device id
            skew = 30 if name == "device_id" else 3
            columns[name] = values.take(pa.array((rng.random(count) ** skew * len(values)).astype(np.int32)))
        return pa.table(columns)

    _write(folder / "train.csv", rows, impressions)


def _views(rng: np.random.Generator, start: int, count: int) -> pa.Table:
    del start
    user = (rng.random(count) ** 1.5 * USERS).astype(np.int32)
    video = (rng.random(count) ** 3 * VIDEOS).astype(np.int32)
    length = 3000 + (_trait(video, 1) * 57000).astype(np.int64)
    liking = 1.2 * (_trait(user, 2) + _trait(video, 3)) - 1.7 + 0.6 * rng.standard_normal(count)
    played = (length * np.exp(liking)).astype(np.int64)
    milliseconds = 1593878400_000 + (rng.random(count) * 86400e3 * 62).astype(np.int64)
    local = pa.array(milliseconds + 8 * 3600_000).cast(pa.timestamp("ms"))
    return pa.table(
        {
            "user_id": user,
            "video_id": video,
            "play_duration": played,
            "video_duration": length,
            "time": pc.strftime(local, format="%Y-%m-%d %H:%M:%S"),
            "date": pc.strftime(local, format="%Y%m%d"),
            "timestamp": milliseconds / 1000,
            "watch_ratio": played / length,
        }
    )


def _trait(ids: NDArray[np.int32], number: int) -> NDArray[np.float64]:
    """A number from 0 to 1 that is fixed for each id."""
    return np.asarray(mix(ids.astype(np.uint64) + np.uint64(number << 32)) / 2.0**64)


def _words(name: str, size: int) -> pa.Array:
    """Distinct values like those of the column: eight hexadecimal digits, or small numbers for C1 to C21."""
    if not name.startswith(("site", "app", "device_i", "device_m")):
        return pc.cast(pa.array(np.arange(size) + 1000), pa.string())
    keys = mix(np.arange(size, dtype=np.uint64) + np.uint64(sum(name.encode()) << 32))
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)
    shifts = np.arange(60, 28, -4, dtype=np.uint64)
    text = digits[((keys[:, None] >> shifts) & np.uint64(15)).astype(np.intp)]
    return pa.array(text.view("S8").ravel().astype("U8"))


def _write(path: Path, rows: int, draw: Draw) -> None:
    plain = pa.csv.WriteOptions(include_header=False, quoting_style="none")
    with open(path, "wb") as file:
        for start in range(0, rows, ROWS_PER_BLOCK):
            rng = np.random.default_rng([0, start])
            table = draw(rng, start, min(ROWS_PER_BLOCK, rows - start))
            if not start:
                file.write((",".join(table.column_names) + "\n").encode())
            pa.csv.write_csv(table, file, plain)


def _quoted(path: Path, table: pa.Table) -> None:
    """Write a small table with quotes where they are needed, and none in the header."""
    with open(path, "wb") as file:
        file.write((",".join(table.column_names) + "\n").encode())
        pa.csv.write_csv(table, file, pa.csv.WriteOptions(include_header=False))
