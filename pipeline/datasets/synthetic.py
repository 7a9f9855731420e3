"""A generated click log whose true click probabilities are known.

It needs no network, and it shows how much of what can be learnt a model has learnt. Users and items are drawn
from Zipf distributions and have attributes; every impression has a time and a device. The logit of a click
is an intercept plus the planted `EFFECTS`, each a table over the levels of one, two or three fields, centred
over each of its fields: an interaction is invisible to a model of lower order. A missing value contributes
nothing, so the truth is a function of the logged fields. User and item ids themselves contribute little.

All draws come from the raw 64-bit stream of PCG64, which NumPy guarantees never to change, through inverse
distribution functions written here; so the files do not depend on any version.

Files: clicks.csv (the log) and truth.csv (the click probability of every row, not a field).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.common.errors import PipelineError
from pipeline.common.files import sha256, write_json, writing
from pipeline.common.permutation import permutation
from pipeline.common.ranges import Count, Seed
from pipeline.preprocess.clean_table import ClickLog
from pipeline.preprocess.cleaning import FILLED, equals, keep, missing, reject, screen
from pipeline.preprocess.parse import chunk, numbers
from pipeline.preprocess.rejects import RejectLog
from pipeline.preprocess.text import Dialect, records
from pipeline.preprocess.timestamps import date_part, seconds
from pipeline.schema import Column

Floats = NDArray[np.float64]
Levels = NDArray[np.int64]

COLUMNS = (
    Column("user", "category", "user", role="user"),
    Column("age", "category", "user"),
    Column("gender", "category", "user"),
    Column("city", "category", "user"),
    Column("item", "category", "item", role="item"),
    Column("category", "category", "item"),
    Column("tags", "bag", "item"),
    Column("price", "number", "item"),
    Column("hour", "category", "context", dated=True),
    Column("weekday", "category", "context", dated=True),
    Column("device", "category", "context"),
)


@dataclass(frozen=True)
class Effect:
    """A planted effect: a table of logits over the levels of its fields.

    Attributes:
        std: the standard deviation of the logits over rows.
        rank: number of latent factors per level whose product is the table; 0: its entries are independent.
    """

    fields: tuple[str, ...]
    std: float
    rank: int = 0


EFFECTS = (
    Effect(("age",), 0.45),
    Effect(("gender",), 0.20),
    Effect(("city",), 0.30),
    Effect(("category",), 0.50),
    Effect(("tags",), 0.35),
    Effect(("price",), 0.35),
    Effect(("hour",), 0.30),
    Effect(("weekday",), 0.20),
    Effect(("device",), 0.35),
    Effect(("age", "category"), 0.55, rank=2),
    Effect(("device", "hour"), 0.45),
    Effect(("city", "category"), 0.30, rank=1),
    Effect(("gender", "device", "category"), 0.65, rank=1),
    Effect(("user",), 0.07),
    Effect(("item",), 0.07),
    Effect(("user", "item"), 0.07, rank=2),
)
INTERCEPT = -1.5

USERS, ITEMS = 400, 120
AGES = ["<18", "18-24", "25-34", "35-44", "45-54", "55+"]
GENDERS = ["f", "m"]
CITIES = ["Aldea", "Brovik", "Castra", "Dunmore", "Elmsted", "Fjorda"]
CATEGORIES = ["audio", "books", "clothing", "garden", "sports", "toys"]
TAGS = ["bestseller", "bulky", "eco", "gift", "handmade", "imported", "limited", "new", "refurbished", "sale"]
DEVICES = ["phone", "desktop", "tablet"]
PRICE_BOUNDS = [10.0, 20.0, 35.0, 60.0, 100.0]  # of the levels of the price
HOUR_WEIGHTS = [3, 2, 1, 1, 1, 2, 4, 6, 8, 8, 8, 9, 10, 9, 8, 8, 9, 10, 12, 14, 15, 13, 9, 6]
NAMES = {  # of levels; the last level of a field that can be missing is the missing one
    "age": [*AGES, ""],
    "gender": [*GENDERS, ""],
    "city": [*CITIES, ""],
    "category": CATEGORIES,
    "device": [*DEVICES, ""],
}
LEVELS = {  # how many a field has; of tags and price as seen by an effect
    "user": USERS,
    "item": ITEMS,
    "tags": ITEMS,
    "price": len(PRICE_BOUNDS) + 2,
    "hour": 24,
    "weekday": 7,
    **{name: len(names) for name, names in NAMES.items()},
}
START, DAYS = np.datetime64("2026-01-05T00:00:00", "s"), 28  # a Monday; whole weeks
MISSING = {"age": 0.04, "gender": 0.05, "city": 0.03, "price": 0.07, "device": 0.02}  # shares

HEADER = [
    "time", "user", "age", "gender", "city", "item", "category", "tags", "price", "device", "click",
]  # fmt: skip
DRAWS = 7  # uniform numbers per row, see _World.rows
ROWS_PER_BLOCK = 1 << 16


def download(
    folder: Path, cache: Path, *, rows: Count = 100_000, seed: Seed = 7, mirror: str | None = None
) -> None:
    """Generate the raw files in `folder`; the same `rows` and `seed` give the same bytes.

    `cache` and `mirror` are not used.
    """
    del cache, mirror
    world = _World(seed)
    stream = np.random.PCG64(np.random.SeedSequence([seed, 1]))
    with writing(folder / "clicks.csv") as clicks, writing(folder / "truth.csv") as truth:
        clicks.write((",".join(HEADER) + "\n").encode())
        truth.write(b"probability\n")
        for start in range(0, rows, ROWS_PER_BLOCK):
            count = min(ROWS_PER_BLOCK, rows - start)
            draws = _uniform(stream, count * DRAWS).reshape(count, DRAWS)
            lines, probability = world.rows(draws, start, rows)
            clicks.write("".join(lines).encode())
            truth.write("".join(f"{p:.6f}\n" for p in probability.tolist()).encode())
    write_json(
        folder / "manifest.json",
        {
            "source": "synthetic",
            "publisher": None,
            "licence": "generated by this project",
            "generated": {"rows": rows, "seed": seed},
            "files": {
                name: {"bytes": (folder / name).stat().st_size, "sha256": sha256(folder / name)}
                for name in ("clicks.csv", "truth.csv")
            },
            "missing": [],
            "matches_publisher": None,
        },
    )


def read(folder: Path, rejects: RejectLog, *, shuffle_labels: bool = False) -> ClickLog:
    """Read the log in its order, with hour and weekday taken from the time.

    Args:
        shuffle_labels: permute the labels over the rows. Nothing can be learnt then, so an AUC above 0.5
            reveals a leak; the truth is left out.
    """
    tables = _rows(folder, rejects)
    return ClickLog(COLUMNS, _shuffled(tables) if shuffle_labels else tables)


def _rows(folder: Path, rejects: RejectLog) -> Iterator[pa.Table]:
    path = folder / "clicks.csv"
    rules = {
        "time": (r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}", "a time like 2026-01-05 14:03:59"),
        "user": FILLED,
        "item": FILLED,
        "price": (r"([0-9]+(\.[0-9]+)?)?", "a number"),
        "click": ("[01]", "0 or 1"),
    }
    probability = _truth(folder, rejects)
    for table, lines in records(path, HEADER, rejects, Dialect(), header=True, text=["time"]):
        table, lines = screen(table, lines, path.name, rejects, rules)
        time, bad = seconds(chunk(table["time"]))
        reject(table, lines, path.name, rejects, bad, "time", "is not a valid time")
        table, lines = keep(table, lines, ~bad)
        time = time.filter(pa.array(~bad))
        if len(lines) and lines[-1] - 2 >= len(probability):
            raise PipelineError(
                f"{folder / 'truth.csv'} has {len(probability)} rows, {path.name} more: delete both and run "
                "the download stage again"
            )
        yield _clean(table, time).append_column("truth", pa.array(probability[lines - 2]))


def _shuffled(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Permute the labels; this needs the whole log at once."""
    whole = pa.concat_tables(tables)
    label = whole["label"].to_numpy()[permutation(len(whole), seed=0)]
    yield whole.set_column(whole.column_names.index("label"), "label", pa.array(label)).drop_columns("truth")


def _clean(table: pa.Table, time: pa.Int64Array) -> pa.Table:
    derived = {
        "hour": date_part(time, "hour").dictionary_decode(),
        "weekday": date_part(time, "weekday").dictionary_decode(),
        "price": pa.array(numbers(chunk(table["price"]))[0]),
    }
    names = [column.name for column in COLUMNS]
    fields = {n: derived[n] if n in derived else missing(chunk(table[n]), "") for n in names}
    label = equals(chunk(table["click"]), "1").astype(np.uint8)
    return pa.table({**fields, "label": label, "group": table["user"], "time": time})


def _truth(folder: Path, rejects: RejectLog) -> Floats:
    path = folder / "truth.csv"
    rule = {"probability": (r"[01]\.[0-9]+", "a probability")}
    parts = [np.empty(0)]
    names = ["probability"]
    for table, lines in records(path, names, rejects, Dialect(), header=True, text=names, side_table=True):
        good, _ = screen(table, lines, path.name, rejects, rule)
        parts.append(pc.cast(good["probability"], pa.float64()).to_numpy())
    if rejects.files[path.name].rejected:
        raise PipelineError(f"{rejects.first[-1]}; delete {path} and run the download stage again")
    return np.concatenate(parts)


class _World:
    """The users, the items and the tables of the effects: everything that is drawn before the first row."""

    def __init__(self, seed: int) -> None:
        self._stream = np.random.PCG64(np.random.SeedSequence([seed, 0]))
        self.chance = {
            "user": _zipf(USERS, 0.8),
            "item": _zipf(ITEMS, 0.8),
            "hour": _normalised(HOUR_WEIGHTS),
            "weekday": _normalised([1] * 7),
            "device": np.r_[0.98 * _normalised([55, 33, 12]), MISSING["device"]],
        }
        self.of_user = {
            "age": self._attribute("age", [5, 16, 26, 22, 17, 14], USERS),
            "gender": self._attribute("gender", [1, 1], USERS),
            "city": self._attribute("city", [25, 21, 18, 15, 12, 9], USERS),
        }
        self.of_item = {"category": self._attribute("category", [1] * len(CATEGORIES), ITEMS)}
        share = 0.1 + 0.3 * self._draw(len(TAGS))
        self.tags = self._draw(ITEMS * len(TAGS)).reshape(ITEMS, -1) < share
        self.price = np.round(30.0 * 2.0 ** self._normal(ITEMS), 2)
        self.names = {
            "user": [f"u{number:05d}" for number in permutation(USERS, seed).tolist()],
            "item": [f"i{number:04d}" for number in permutation(ITEMS, seed + 1).tolist()],
            "tags": ["|".join(np.array(TAGS)[row].tolist()) for row in self.tags],
            **NAMES,
        }
        self.tables = {effect.fields: self._table(effect) for effect in EFFECTS}

    def rows(self, u: Floats, start: int, total: int) -> tuple[list[str], Floats]:
        """Return the lines and the click probabilities of the rows from `start` on, of `total`.

        Args:
            u: uniform numbers, (N, DRAWS).
        """
        u_user, u_item, u_time, u_price, u_no_price, u_device, u_click = u.T
        user, item = _pick(self.chance["user"], u_user), _pick(self.chance["item"], u_item)
        price = np.round(self.price[item] * (0.9 + 0.2 * u_price), 2)
        price = np.where(u_no_price < MISSING["price"], np.nan, price)
        second = _second((start + np.arange(len(u)) + u_time) / total, self.chance["hour"])
        level = {
            "user": user,
            **{name: values[user] for name, values in self.of_user.items()},
            "item": item,
            **{name: values[item] for name, values in self.of_item.items()},
            "tags": item,
            "price": _price_level(price),
            "hour": second // 3600 % 24,
            "weekday": second // 86400 % 7,
            "device": _pick(self.chance["device"], u_device),
        }
        logit = np.full(len(u), INTERCEPT)
        for fields, table in self.tables.items():
            logit += table[tuple(_coarse(name, level[name], fields) for name in fields)]
        probability = np.round(1.0 / (1.0 + np.exp(-logit)), 6)
        text = {name: [self.names[name][i] for i in level[name]] for name in level if name in self.names}
        times = np.datetime_as_string(START + second.astype("timedelta64[s]"))
        text["time"] = [time.replace("T", " ") for time in times.tolist()]
        text["price"] = ["" if value != value else f"{value:.2f}" for value in price.tolist()]
        text["click"] = ["1" if click else "0" for click in u_click < probability]
        return [",".join(line) + "\n" for line in zip(*(text[n] for n in HEADER), strict=True)], probability

    def _draw(self, count: int) -> Floats:
        return _uniform(self._stream, count)

    def _normal(self, *shape: int) -> Floats:
        """Approximately normal numbers: the sum of twelve uniform ones minus six."""
        return np.asarray(self._draw(int(np.prod(shape)) * 12).reshape(*shape, 12).sum(-1) - 6.0)

    def _attribute(self, name: str, weights: list[int], count: int) -> Levels:
        """Draw the level of an attribute for every user or item, with the field's share of missing ones."""
        level = _pick(_normalised(weights), self._draw(count))
        return np.where(self._draw(count) < MISSING.get(name, 0.0), LEVELS[name] - 1, level)

    def _share(self, name: str, fields: tuple[str, ...]) -> Floats:
        """Return the share of rows that each level of a field has, as seen by an effect of `fields`."""
        level, weight = self._drawn(name)
        size = int(_coarse(name, np.array(LEVELS[name] - 1), fields)) + 1
        return np.asarray(np.bincount(_coarse(name, level, fields), weight, size), np.float64)

    def _drawn(self, name: str) -> tuple[Levels, Floats]:
        """Return the levels that a field takes and how likely each is drawn."""
        if name in self.of_user:
            return self.of_user[name], self.chance["user"]
        if name in self.of_item:
            return self.of_item[name], self.chance["item"]
        if name == "price":
            return _price_level(self.price), self.chance["item"]
        return np.arange(LEVELS[name]), self.chance["item" if name == "tags" else name]

    def _table(self, effect: Effect) -> Floats:
        """Draw a table, centre it over every field (missing levels at 0) and scale it to its std."""
        weights = [self._share(name, effect.fields) for name in effect.fields]
        if effect.fields == ("tags",):
            table: Floats = self.tags @ self._normal(len(TAGS))
        elif effect.rank:
            factors = [self._normal(effect.rank, len(weight)) for weight in weights]
            table = np.sum([_outer([factor[r] for factor in factors]) for r in range(effect.rank)], axis=0)
        else:
            table = self._normal(*map(len, weights))
        for axis, (name, weight) in enumerate(zip(effect.fields, weights, strict=True)):
            known = np.ones(len(weight))
            if name in MISSING:
                known[-1] = 0.0
            mean = np.tensordot(weight * known / (weight @ known), table, (0, axis))
            shape = [-1 if other == axis else 1 for other in range(table.ndim)]
            table = (table - np.expand_dims(mean, axis)) * known.reshape(shape)
        spread = np.sqrt((_outer(weights) * table**2).sum())
        return np.asarray(np.round(table * (effect.std / spread), 3))


def _coarse(name: str, level: Levels, fields: tuple[str, ...]) -> Levels:
    """In an interaction the levels of the hour are the quarters of the day."""
    return level // 6 if name == "hour" and len(fields) > 1 else level


def _outer(vectors: list[Floats]) -> Floats:
    """Return the outer product of vectors."""
    return reduce(np.multiply.outer, vectors)


def _uniform(stream: np.random.PCG64, count: int) -> Floats:
    """Return uniform numbers in [0, 1) from the upper 53 bits of raw draws."""
    return np.asarray((stream.random_raw(count) >> np.uint64(11)) * 2.0**-53)


def _pick(chance: Floats, u: Floats) -> Levels:
    """Return levels with the given probabilities by the inverse distribution function."""
    return np.asarray(np.searchsorted(np.cumsum(chance)[:-1], u, side="right"), np.int64)


def _normalised(weights: list[int]) -> Floats:
    return np.array(weights, np.float64) / sum(weights)


def _zipf(count: int, exponent: float) -> Floats:
    """Return probabilities proportional to rank ** -exponent."""
    weight: Floats = np.floor(1e9 * np.arange(1, count + 1, dtype=np.float64) ** -exponent)
    return np.asarray(weight / weight.sum())


def _price_level(price: Floats) -> Levels:
    level = np.searchsorted(PRICE_BOUNDS, price, side="right")
    return np.where(np.isnan(price), len(PRICE_BOUNDS) + 1, level)


def _second(quantile: Floats, hour_chance: Floats) -> Levels:
    """Map ascending quantiles in [0, 1) to seconds since START; hours get rows by their probability."""
    day, rest = np.divmod(quantile * DAYS, 1.0)
    reached = np.r_[0.0, np.cumsum(hour_chance)]
    hour = np.clip(np.searchsorted(reached, rest, side="right") - 1, 0, 23)
    part = (rest - reached[hour]) / hour_chance[hour]
    second = np.minimum((part * 3600).astype(np.int64), 3599)
    return np.asarray((day.astype(np.int64) * 24 + hour) * 3600 + second)
