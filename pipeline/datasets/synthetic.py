"""A generated click log whose true click probabilities are known: a unit test of orders of interaction.

It is built to tell models of first, second and third order apart. Its strongest single effect is of third
order, which flatters models that look for such crosses; `feed` is the generated log with the shape of real
ones. It needs no network, and it shows how much of what can be learnt a model has learnt. Users and items are
drawn from Zipf distributions and have attributes; every impression has a time and a device. The logit of a
click is an intercept plus the planted `EFFECTS`, each a table over the levels of one, two or three fields,
centred over each of its fields: an interaction is invisible to a model of lower order. A missing value
contributes nothing, so the truth is a function of the logged fields. User and item ids themselves contribute
little.

All draws come from `common/draws.py`; so the files do not depend on any version.

Files: clicks.csv (the log) and truth.csv (the click probability of every row, not a field).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce

import numpy as np

from pipeline.common.draws import Floats, Levels, normal, normalised, pick, stream, uniform, zipf
from pipeline.common.permutation import permutation
from pipeline.datasets import generated
from pipeline.preprocess.cleaning import FILLED
from pipeline.schema import Column

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
MISSING = {"age": 0.04, "gender": 0.05, "city": 0.03, "price": 0.07, "device": 0.02}  # shares

HEADER = [
    "time", "user", "age", "gender", "city", "item", "category", "tags", "price", "device", "click",
]  # fmt: skip
DRAWS = 7  # uniform numbers per row, see _World.rows
ROWS_PER_BLOCK = 1 << 16
RULES = {"user": FILLED, "item": FILLED, "price": (r"([0-9]+(\.[0-9]+)?)?", "a number")}


def _blocks(rows: int, seed: int) -> Iterator[tuple[list[str], Floats]]:
    world, source = _World(seed), stream(seed, 1)
    for start in range(0, rows, ROWS_PER_BLOCK):
        count = min(ROWS_PER_BLOCK, rows - start)
        yield world.rows(uniform(source, count * DRAWS).reshape(count, DRAWS), start, rows)


class _World:
    """The users, the items and the tables of the effects: everything that is drawn before the first row."""

    def __init__(self, seed: int) -> None:
        self._stream = stream(seed, 0)
        self.chance = {
            "user": zipf(USERS, 0.8),
            "item": zipf(ITEMS, 0.8),
            "hour": normalised(generated.HOUR_WEIGHTS),
            "weekday": normalised([1] * 7),
            "device": np.r_[0.98 * normalised([55, 33, 12]), MISSING["device"]],
        }
        self.of_user = {
            "age": self._attribute("age", [5, 16, 26, 22, 17, 14], USERS),
            "gender": self._attribute("gender", [1, 1], USERS),
            "city": self._attribute("city", [25, 21, 18, 15, 12, 9], USERS),
        }
        self.of_item = {"category": self._attribute("category", [1] * len(CATEGORIES), ITEMS)}
        share = 0.1 + 0.3 * self._draw(len(TAGS))
        self.tags = self._draw(ITEMS * len(TAGS)).reshape(ITEMS, -1) < share
        self.price = np.round(30.0 * 2.0 ** normal(self._stream, ITEMS), 2)
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
        user, item = pick(self.chance["user"], u_user), pick(self.chance["item"], u_item)
        price = np.round(self.price[item] * (0.9 + 0.2 * u_price), 2)
        price = np.where(u_no_price < MISSING["price"], np.nan, price)
        second = generated.second((start + np.arange(len(u)) + u_time) / total, self.chance["hour"])
        level = {
            "user": user,
            **{name: values[user] for name, values in self.of_user.items()},
            "item": item,
            **{name: values[item] for name, values in self.of_item.items()},
            "tags": item,
            "price": _price_level(price),
            "hour": second // 3600 % 24,
            "weekday": second // 86400 % 7,
            "device": pick(self.chance["device"], u_device),
        }
        logit = np.full(len(u), INTERCEPT)
        for fields, table in self.tables.items():
            logit += table[tuple(_coarse(name, level[name], fields) for name in fields)]
        probability = np.round(1.0 / (1.0 + np.exp(-logit)), 6)
        text = {name: [self.names[name][i] for i in level[name]] for name in level if name in self.names}
        text["time"] = generated.times(second)
        text["price"] = ["" if value != value else f"{value:.2f}" for value in price.tolist()]
        text["click"] = ["1" if click else "0" for click in u_click < probability]
        return [",".join(line) + "\n" for line in zip(*(text[n] for n in HEADER), strict=True)], probability

    def _draw(self, count: int) -> Floats:
        return uniform(self._stream, count)

    def _attribute(self, name: str, weights: list[int], count: int) -> Levels:
        """Draw the level of an attribute for every user or item, with the field's share of missing ones."""
        level = pick(normalised(weights), self._draw(count))
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
            table: Floats = self.tags @ normal(self._stream, len(TAGS))
        elif effect.rank:
            factors = [normal(self._stream, effect.rank, len(weight)) for weight in weights]
            table = np.sum([_outer([factor[r] for factor in factors]) for r in range(effect.rank)], axis=0)
        else:
            table = normal(self._stream, *map(len, weights))
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


def _price_level(price: Floats) -> Levels:
    level = np.searchsorted(PRICE_BOUNDS, price, side="right")
    return np.where(np.isnan(price), len(PRICE_BOUNDS) + 1, level)


download, read = generated.source("synthetic", HEADER, COLUMNS, RULES, _blocks, rows=100_000)
