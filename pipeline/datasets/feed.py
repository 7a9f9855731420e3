"""A generated feed log with the shape of real ones, whose true click probabilities are known.

What public logs have and `synthetic` lacks: clicks are rare; most users and items are seen a few times, many
items for the first time late in the log; what is popular drifts; a weak policy chose what was shown, so
exposure and affinity go together; a click needs a look at the position first; and the last click of a user
raises the chance of the next one in its category, which only models that read histories can see.

A request shows `SLATE` items to one user, at positions 1, 2, ... The policy scores `CANDIDATES` items drawn
by the popularity of the day, with a noisy idea of what the user likes, and shows the best. Under the
examination hypothesis of Craswell et al., "An Experimental Comparison of Click Position-Bias Models",
WSDM 2008,

    P(click) = EXAMINED ** (position - 1) * sigmoid(
        INTERCEPT + a_user + b_item + <taste_user, traits_item> + age x category + device x part of the day
        + city x device x category + category on this day + freshness
        + MEMORY where the category is that of the user's last click)

All draws come from `common/draws.py`; the same `rows` and `seed` give the same bytes.

Files: clicks.csv (the log, by time) and truth.csv (P(click) of every row, not a field).
"""

from collections.abc import Iterator

import numpy as np

from pipeline.common.draws import Floats, Levels, normal, normalised, pick, stream, uniform, zipf
from pipeline.common.permutation import permutation
from pipeline.datasets import generated
from pipeline.datasets.generated import DAYS
from pipeline.preprocess.cleaning import FILLED
from pipeline.schema import Column

COLUMNS = (
    Column("user", "category", "user", role="user"),
    Column("age", "category", "user"),
    Column("city", "category", "user"),
    Column("item", "category", "item", role="item"),
    Column("category", "category", "item"),
    Column("author", "category", "item"),
    Column("fresh", "number", "item"),
    Column("hour", "category", "context", dated=True),
    Column("weekday", "category", "context", dated=True),
    Column("device", "category", "context"),
    Column("position", "category", "context"),
)
HEADER = ["time", "user", "age", "city", "item", "category", "author", "fresh", "device", "position", "click"]

USERS, ITEMS, AUTHORS = 20_000, 5_000, 600
AGES = ["<18", "18-24", "25-34", "35-44", "45-54", "55+", ""]  # the last one is missing
CITIES = [f"city{number:02d}" for number in range(30)]
CATEGORIES = [f"topic{number:02d}" for number in range(20)]
DEVICES = ["phone", "tablet", "desktop"]
SLATE, CANDIDATES = 6, 24
EXAMINED = 0.6  # the chance that who has looked at a position looks at the next
INTERCEPT = -2.4
MEMORY = 0.8
# standard deviations of logits over users, items and levels
USER, ITEM, TASTE, PAIR, TRIPLE, WALK = 0.5, 0.5, 0.5, 0.3, 0.2, 0.12
TRAITS = 8  # dimensions of tastes
FRESH = 0.5  # logits that an item of this hour is above an old one
LIFE = 6.0  # days in which exposure and freshness of an item fall by a factor of e
OLD = 0.4  # the share of items that are there from the start
DRAWS = 3 + 2 * CANDIDATES + SLATE  # uniform numbers per request
REQUESTS_PER_BLOCK = 1 << 13
RULES = {
    "user": FILLED,
    "item": FILLED,
    "fresh": (r"[0-9]+(\.[0-9]+)?", "a number"),
    "position": ("[1-9]", "a position"),
}


def _blocks(rows: int, seed: int) -> Iterator[tuple[list[str], Floats]]:
    feed, source, requests = _Feed(seed), stream(seed, 1), -(-rows // SLATE)
    for start in range(0, requests, REQUESTS_PER_BLOCK):
        count = min(REQUESTS_PER_BLOCK, requests - start)
        lines, probability = feed.show(uniform(source, count * DRAWS).reshape(count, DRAWS), start, requests)
        left = rows - start * SLATE
        yield lines[:left], probability[:left]


class _Feed:
    """The users, the items, what they like and are like, and each user's last click so far."""

    def __init__(self, seed: int) -> None:
        source = stream(seed, 0)
        self.user_chance, self.hour_chance = zipf(USERS, 0.9), normalised(generated.HOUR_WEIGHTS)
        self.age = np.where(
            uniform(source, USERS) < 0.15,
            len(AGES) - 1,
            pick(normalised([6, 20, 27, 21, 15, 11]), uniform(source, USERS)),
        )
        self.city = pick(zipf(len(CITIES), 1.0), uniform(source, USERS))
        self.device = pick(normalised([70, 8, 22]), uniform(source, USERS))
        self.category = pick(zipf(len(CATEGORIES), 0.6), uniform(source, ITEMS))
        self.author = pick(zipf(AUTHORS, 0.7), uniform(source, ITEMS))
        age = uniform(source, ITEMS)
        self.born = np.where(age < OLD, -20.0 * age / OLD, DAYS * (age - OLD) / (1 - OLD))  # in days
        self.popularity = zipf(ITEMS, 1.1)

        self.of_user = USER * normal(source, USERS)
        self.of_item = ITEM * (normal(source, ITEMS) + normal(source, AUTHORS)[self.author]) / np.sqrt(2.0)
        self.tastes = normal(source, USERS, TRAITS)
        topics = normal(source, len(CATEGORIES), TRAITS)
        self.traits = (topics[self.category] + normal(source, ITEMS, TRAITS)) / np.sqrt(2.0)
        self.traits *= TASTE / np.sqrt(TRAITS)
        self.age_category = PAIR * normal(source, len(AGES), len(CATEGORIES))
        self.device_part = PAIR * normal(source, len(DEVICES), 4)
        self.triple = TRIPLE * normal(source, len(CITIES), len(DEVICES), len(CATEGORIES))
        self.walk = WALK * np.cumsum(normal(source, DAYS, len(CATEGORIES)), axis=0)
        self.last = np.full(USERS, -1)  # category of the last click
        self.names = {
            "user": [f"u{number:05d}" for number in permutation(USERS, seed).tolist()],
            "item": [f"i{number:04d}" for number in permutation(ITEMS, seed + 1).tolist()],
            "author": [f"a{number:03d}" for number in permutation(AUTHORS, seed + 2).tolist()],
            "age": AGES,
            "city": CITIES,
            "category": CATEGORIES,
            "device": DEVICES,
        }

    def show(self, u: Floats, start: int, total: int) -> tuple[list[str], Floats]:
        """Return the lines and click probabilities of the requests from `start` on, of `total`.

        Args:
            u: uniform numbers, (requests, DRAWS).
        """
        user = pick(self.user_chance, u[:, 0])
        second = generated.second((start + np.arange(len(u)) + u[:, 1]) / total, self.hour_chance)
        # now and then a user has another device at hand
        device = np.where(u[:, 2] < 0.2, (u[:, 2] * 15).astype(np.int64) % len(DEVICES), self.device[user])
        items = self._policy(user, second, *np.split(u[:, 3 : 3 + 2 * CANDIDATES], 2, axis=1))
        fresh = np.maximum(second[:, None] / 86400 - self.born[items], 0.0)  # days since it came
        logit = self._logit(user, items, second, device, fresh)
        click, probability = self._clicks(user, items, logit, u[:, -SLATE:])

        level = {
            "user": np.repeat(user, SLATE),
            "age": np.repeat(self.age[user], SLATE),
            "city": np.repeat(self.city[user], SLATE),
            "item": items.ravel(),
            "category": self.category[items].ravel(),
            "author": self.author[items].ravel(),
            "device": np.repeat(device, SLATE),
        }
        text = {name: [self.names[name][i] for i in values.tolist()] for name, values in level.items()}
        text["time"] = generated.times(np.repeat(second, SLATE))
        text["fresh"] = [f"{days:.2f}" for days in fresh.ravel().tolist()]
        text["position"] = [str(position) for position in range(1, SLATE + 1)] * len(u)
        text["click"] = ["1" if one else "0" for one in click.ravel().tolist()]
        lines = [",".join(line) + "\n" for line in zip(*(text[name] for name in HEADER), strict=True)]
        return lines, probability.ravel()

    def _policy(self, user: Levels, second: Levels, u_item: Floats, u_noise: Floats) -> Levels:
        """Return what is shown, (requests, SLATE), best first by the policy's own score."""
        day, items = second // 86400, np.empty(u_item.shape, np.int64)
        for today in np.unique(day):
            there = np.maximum(today + 1 - self.born, 0.0)
            weight = self.popularity * np.where(there > 0, np.exp(-there / LIFE), 0.0)
            items[day == today] = pick(weight / weight.sum(), u_item[day == today])
        known = np.einsum("rt,rct->rc", self.tastes[user], self.traits[items]) + self.of_item[items]
        score = 0.7 * known - np.log(-np.log(u_noise.clip(1e-12, 1 - 1e-12)))
        order = np.argsort(items, axis=1, kind="stable")
        again = np.diff(np.take_along_axis(items, order, 1), axis=1, prepend=-1) == 0
        np.put_along_axis(score, order, np.where(again, -np.inf, np.take_along_axis(score, order, 1)), 1)
        shown = np.argsort(-score, axis=1, kind="stable")[:, :SLATE]
        return np.take_along_axis(items, shown, 1)

    def _logit(self, user: Levels, items: Levels, second: Levels, device: Levels, fresh: Floats) -> Floats:
        """Return the logit of a click on an item that is looked at, without the memory: (requests, SLATE)."""
        category, one = self.category[items], np.s_[:, None]
        return np.asarray(
            INTERCEPT
            + self.of_user[user][one]
            + self.of_item[items]
            + np.einsum("rt,rst->rs", self.tastes[user], self.traits[items])
            + self.age_category[self.age[user][one], category]
            + self.device_part[device, second // 3600 % 24 // 6][one]
            + self.triple[self.city[user][one], device[one], category]
            + self.walk[(second // 86400)[one], category]
            + FRESH * np.exp(-fresh / LIFE)
        )

    def _clicks(self, user: Levels, items: Levels, logit: Floats, u: Floats) -> tuple[Levels, Floats]:
        """Let each request be looked at in its turn: what a user clicks changes what the user clicks next."""
        examined = EXAMINED ** np.arange(SLATE)
        category, probability = self.category[items], np.empty(logit.shape)
        for row, who in enumerate(user.tolist()):
            warm = logit[row] + MEMORY * (category[row] == self.last[who])
            probability[row] = np.round(examined / (1.0 + np.exp(-warm)), 6)
            clicked = np.flatnonzero(u[row] < probability[row])
            if len(clicked):
                self.last[who] = category[row, clicked[-1]]
        return (u < probability).astype(np.int64), probability


download, read = generated.source("feed", HEADER, COLUMNS, RULES, _blocks, rows=200_000)
