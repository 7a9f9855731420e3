"""A generated click log whose true click probabilities are known.

It needs no network and says how much of what can be learnt a model has learnt. Users and items are
drawn from Zipf laws and carry attributes; every impression has a time and a device. The logit of a
click is an intercept plus the planted `EFFECTS`, each a table over the levels of one, two or three
fields, centred over each of its fields: a cross adds nothing that a model of lower order could see.
A missing value adds nothing, so the truth is a function of what the log shows. User and item ids
themselves add only a little.

All draws come from the raw 64-bit stream of PCG64, which NumPy guarantees never to change, through
inverse distribution functions written here; so the files are the same with every version.

Files: clicks.csv (the log) and truth.csv (the probability of every row; no field of the models).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.common.errors import PipelineError
from pipeline.common.files import sha256, write_json, writing
from pipeline.common.permutation import permutation
from pipeline.preprocess.clean_table import ClickLog
from pipeline.preprocess.cleaning import equals, keep, missing, reject, screen
from pipeline.preprocess.parse import chunk, number
from pipeline.preprocess.rejects import RejectLog
from pipeline.preprocess.text import Dialect, records
from pipeline.schema import Column

Floats = NDArray[np.float64]
Levels = NDArray[np.int64]

COLUMNS = (
    Column("user", "category", "user"),
    Column("age", "category", "user"),
    Column("gender", "category", "user"),
    Column("city", "category", "user"),
    Column("item", "category", "item"),
    Column("category", "category", "item"),
    Column("tags", "bag", "item"),
    Column("price", "number", "item"),
    Column("hour", "category", "context"),
    Column("weekday", "category", "context"),
    Column("device", "category", "context"),
)


@dataclass(frozen=True)
class Effect:
    """A planted effect: a table over the levels of its fields with a standard deviation in logits.

    `rank`: the table is a product of so many latent factors per level (0: free).
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
WEEKDAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
PRICES = [10.0, 20.0, 35.0, 60.0, 100.0]  # between two of these the price has one effect
HOUR_WEIGHTS = [3, 2, 1, 1, 1, 2, 4, 6, 8, 8, 8, 9, 10, 9, 8, 8, 9, 10, 12, 14, 15, 13, 9, 6]
NAMES = {  # the last level of a field that can be missing is the missing one
    "age": [*AGES, ""],
    "gender": [*GENDERS, ""],
    "city": [*CITIES, ""],
    "category": CATEGORIES,
    "device": [*DEVICES, ""],
}
START, DAYS = np.datetime64("2026-01-05T00:00:00", "s"), 28  # a Monday; whole weeks
MISSING = {"age": 0.04, "gender": 0.05, "city": 0.03, "price": 0.07, "device": 0.02}

HEADER = [
    "time", "user", "age", "gender", "city", "item", "category", "tags", "price", "device", "click",
]  # fmt: skip
DRAWS = 7  # uniforms a row takes, see _World.rows
BLOCK = 1 << 16  # rows made at a time


def download(
    folder: Path, cache: Path, *, rows: int = 100_000, seed: int = 7, mirror: str | None = None
) -> None:
    """Generate the raw files in `folder`; the same rows and seed give the same bytes.

    `cache` and `mirror` are for datasets that come from somewhere.
    """
    del cache, mirror
    world = _World(seed)
    stream = np.random.PCG64(np.random.SeedSequence([seed, 1]))
    with writing(folder / "clicks.csv") as clicks, writing(folder / "truth.csv") as truth:
        clicks.write((",".join(HEADER) + "\n").encode())
        truth.write(b"probability\n")
        for start in range(0, rows, BLOCK):
            count = min(BLOCK, rows - start)
            lines, probability = world.rows(
                _uniform(stream, count * DRAWS).reshape(count, DRAWS), start, rows
            )
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
        shuffle_labels: deal the clicks out at random over the rows. Nothing is left to learn then, so
            a model that still beats AUC 0.5 has seen what it should not; there is no truth to tell.
    """
    tables = _rows(folder, rejects)
    return ClickLog(COLUMNS, _shuffled(tables) if shuffle_labels else tables)


def _rows(folder: Path, rejects: RejectLog) -> Iterator[pa.Table]:
    path = folder / "clicks.csv"
    rules = {
        "time": (r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}", "a time like 2026-01-05 14:03:59"),
        "user": (".+", "filled in"),
        "item": (".+", "filled in"),
        "price": (r"([0-9]+(\.[0-9]+)?)?", "a number"),
        "click": ("[01]", "0 or 1"),
    }
    probability = _truth(folder, rejects)
    for table, lines in records(path, HEADER, rejects, Dialect(), header=True, text=["time"]):
        table, lines = screen(table, lines, path.name, rejects, rules)
        time = chunk(pc.strptime(table["time"], format="%Y-%m-%d %H:%M:%S", unit="s", error_is_null=True))
        bad = time.is_null().to_numpy(zero_copy_only=False)
        reject(table, lines, path.name, rejects, bad, "time", "is not a valid time")
        table, lines = keep(table, lines, ~bad)
        time = time.drop_null()
        if len(lines) and lines[-1] - 2 >= len(probability):
            raise PipelineError(
                f"{folder / 'truth.csv'} has {len(probability)} rows, {path.name} more: delete both and run "
                "the download stage again"
            )
        yield _clean(table, time).append_column("truth", pa.array(probability[lines - 2]))


def _shuffled(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Deal the labels out anew; for that the whole log is needed at once, and a generated one fits."""
    whole = pa.concat_tables(tables)
    label = whole["label"].to_numpy()[permutation(len(whole), seed=0)]
    yield whole.set_column(whole.column_names.index("label"), "label", pa.array(label)).drop_columns("truth")


def _clean(table: pa.Table, time: pa.Array) -> pa.Table:
    derived = {
        "hour": pc.cast(pc.hour(time), pa.string()),
        "weekday": pa.array(WEEKDAYS).take(pc.day_of_week(time)),
        "price": pa.array(number(chunk(table["price"]))[0]),
    }
    return pa.table(
        {
            **{
                c.name: derived[c.name] if c.name in derived else missing(chunk(table[c.name]), "")
                for c in COLUMNS
            },
            "label": equals(chunk(table["click"]), "1").astype(np.uint8),
            "group": table["user"],
            "time": pc.cast(time, pa.int64()),
        }
    )


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
    """The users, the items and the effect tables: everything that is drawn before the first row."""

    def __init__(self, seed: int) -> None:
        self._stream = np.random.PCG64(np.random.SeedSequence([seed, 0]))
        self.chance = {
            "user": _zipf(USERS, 0.8),
            "item": _zipf(ITEMS, 0.8),
            "hour": _chances(HOUR_WEIGHTS),
            "weekday": _chances([1] * 7),
            "device": np.r_[0.98 * _chances([55, 33, 12]), MISSING["device"]],
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
            **NAMES,
        }
        self.item_tags = ["|".join(np.array(TAGS)[row].tolist()) for row in self.tags]
        self.tables = {effect.fields: self._table(effect) for effect in EFFECTS}

    def rows(self, u: Floats, start: int, total: int) -> tuple[list[str], Floats]:
        """Return the lines and the click probabilities of the rows from `start` on; u (N, DRAWS)."""
        u_user, u_item, u_time, u_price, u_no_price, u_device, u_click = u.T
        user, item = _pick(self.chance["user"], u_user), _pick(self.chance["item"], u_item)
        price = np.round(self.price[item] * (0.9 + 0.2 * u_price), 2)
        price = np.where(u_no_price < MISSING["price"], np.nan, price)
        second = _seconds((start + np.arange(len(u)) + u_time) / total, self.chance["hour"])
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
        text["time"] = np.datetime_as_string(START + second.astype("timedelta64[s]")).tolist()
        text["time"] = [time.replace("T", " ") for time in text["time"]]
        text["tags"] = [self.item_tags[i] for i in item]
        text["price"] = ["" if value != value else f"{value:.2f}" for value in price.tolist()]
        text["click"] = ["1" if click else "0" for click in u_click < probability]
        return [",".join(line) + "\n" for line in zip(*(text[n] for n in HEADER), strict=True)], probability

    def _draw(self, count: int) -> Floats:
        return _uniform(self._stream, count)

    def _normal(self, *shape: int) -> Floats:
        """Nearly normal numbers: twelve uniforms added up, less six."""
        return np.asarray(self._draw(int(np.prod(shape)) * 12).reshape(*shape, 12).sum(-1) - 6.0)

    def _attribute(self, name: str, weights: list[int], count: int) -> Levels:
        level = _pick(_chances(weights), self._draw(count))
        return _gaps(name, level, self._draw(count))

    def _levels(self, name: str, fields: tuple[str, ...]) -> Floats:
        """How often each level of a field occurs, as seen by an effect of these fields."""
        if name in self.of_user:
            level, weight = self.of_user[name], self.chance["user"]
        elif name in self.of_item:
            level, weight = self.of_item[name], self.chance["item"]
        elif name == "price":
            level, weight = _price_level(self.price), self.chance["item"]
        elif name == "tags":
            level, weight = np.arange(ITEMS), self.chance["item"]
        else:
            weight = self.chance[name]
            level = np.arange(len(weight))
        size = len(PRICES) + 2 if name == "price" else len(NAMES[name]) if name in NAMES else len(weight)
        size = int(_coarse(name, np.array([size - 1]), fields)[0]) + 1
        return np.asarray(np.bincount(_coarse(name, level, fields), weight, size), np.float64)

    def _table(self, effect: Effect) -> Floats:
        """Draw a table, centre it over every field (missing levels at 0), scale it to its std."""
        weights = [self._levels(name, effect.fields) for name in effect.fields]
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
    """In crosses an hour counts by its quarter of the day."""
    return level // 6 if name == "hour" and len(fields) > 1 else level


def _outer(vectors: list[Floats]) -> Floats:
    """Return the product table of vectors, one axis each."""
    table = vectors[0]
    for vector in vectors[1:]:
        table = table[..., None] * vector
    return table


def _uniform(stream: np.random.PCG64, count: int) -> Floats:
    """Return numbers in [0, 1) from the upper 53 bits of raw draws."""
    return np.asarray((stream.random_raw(count) >> np.uint64(11)) * 2.0**-53)


def _pick(chance: Floats, u: Floats) -> Levels:
    """Draw levels by the inverse distribution function."""
    return np.asarray(np.searchsorted(np.cumsum(chance)[:-1], u, side="right"), np.int64)


def _chances(weights: list[int]) -> Floats:
    return np.array(weights, np.float64) / sum(weights)


def _zipf(count: int, exponent: float) -> Floats:
    """Chances that fall with the rank as rank ** -exponent."""
    weight: Floats = np.floor(1e9 * np.arange(1, count + 1, dtype=np.float64) ** -exponent)
    return np.asarray(weight / weight.sum())


def _gaps(name: str, level: Levels, u: Floats) -> Levels:
    """Make levels missing at the field's rate: the level behind the last."""
    return np.where(u < MISSING.get(name, 0.0), len(NAMES[name]) - 1, level)


def _price_level(price: Floats) -> Levels:
    return np.where(np.isnan(price), len(PRICES) + 1, np.searchsorted(PRICES, price, side="right"))


def _seconds(quantile: Floats, hour_chance: Floats) -> Levels:
    """Map quantiles of all rows, ascending, to seconds since START: busy hours get more rows."""
    day, rest = np.divmod(quantile * DAYS, 1.0)
    reached = np.r_[0.0, np.cumsum(hour_chance)]
    hour = np.clip(np.searchsorted(reached, rest, side="right") - 1, 0, 23)
    part = (rest - reached[hour]) / hour_chance[hour]
    second = np.minimum((part * 3600).astype(np.int64), 3599)
    return np.asarray((day.astype(np.int64) * 24 + hour) * 3600 + second)
