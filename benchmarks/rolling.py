"""Rolling days: does a warm start reach the cold training's AUC, and for how much less training?

    python -m benchmarks.rolling [--model deepfm] [--days 10] [--rows 6000] [--history 5] [--train-days 3]

A generated log: users with lasting tastes, items that appear (30 a day) and grow old, effects of categories
that drift from day to day. Train to day d, stop by day d + 1, test on day d + 2, in four ways:

    cold          all rows to day d, from nothing, with the settings that params.yaml gives to a dataset
                  without settings of its own
    warm          the same rows, from the day before's package, `epochs: 2`; the first one is cold. As `train`
                  does it, a pass has the rows that came since the package several times
    warm, window  the last `--train-days` days alone, from the day before's package, `epochs: 2`, a third of
                  the rate and of `l2_rows`
    cold, window  those days alone, from nothing: what the window does without the warm start

Printed for each day: AUC of each way, mean over seeds, with the standard deviation of the cold ones; then
means over days, the rows of all passes (rows x epochs, those spent on patience included) and the CPU seconds
of the trainings, both also over the cold ones'. The seconds are from encoded rows to trained weights (the
package that a way begins from included), without the encoding, which is the same for all, and without the
first, cold training of the warm ways, which lies before these days.
"""

import argparse
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from safetensors.torch import save

from benchmarks.rare_clicks import settings
from pipeline import metrics
from pipeline.config.settings import Config
from pipeline.data.batches import Split
from pipeline.models import build
from pipeline.schema import SPLITS, Column
from pipeline.scoring.package import Package
from pipeline.split.assign import assign
from pipeline.split.vocabulary import Vocabulary, apply, fit_vocabulary, schema
from pipeline.train import warm
from pipeline.train.cache import Trained
from pipeline.train.device import reproducible
from pipeline.train.loop import fit
from pipeline.train.predict import predict

START = 20_000 * 86_400  # seconds since 1970, a midnight
USERS, CATEGORIES, RANK = 1500, 20, 4
NEW_ITEMS, OLD_ITEMS = 30, 200
FADING_DAYS = 6.0  # time constant of an item's popularity
COLUMNS = (
    Column("user", "category", "user", role="user"),
    Column("item", "category", "item", role="item"),
    Column("category", "category", "item"),
    Column("hour", "category", "context"),
)
MIN_COUNT = 2


@dataclass(frozen=True)
class Way:
    """How a day is trained: from a package or not, on how many days (0: all), with what other settings."""

    warm: bool
    train_days: int
    settings: Mapping[str, Any] = field(default_factory=dict)


def generate(days: int, rows: int, seed: int) -> pa.Table:
    """Draw a log of so many days with so many rows each."""
    rng = np.random.default_rng([seed, days, rows])
    items = OLD_ITEMS + NEW_ITEMS * days
    born = np.r_[-rng.exponential(FADING_DAYS, OLD_ITEMS), np.repeat(np.arange(days), NEW_ITEMS)]
    category = rng.integers(CATEGORIES, size=items)
    quality, bias = 0.7 * rng.standard_normal(items), 0.7 * rng.standard_normal(USERS)
    p, q = rng.standard_normal((USERS, RANK)), rng.standard_normal((items, RANK))
    drift = 0.6 * rng.standard_normal(CATEGORIES)
    activity = np.arange(1, USERS + 1.0) ** -0.6
    tables = []
    for day in range(days):
        drift = 0.9 * drift + 0.25 * rng.standard_normal(CATEGORIES)
        popular = np.where(born <= day, np.exp(-(day - born) / FADING_DAYS), 0)
        user = rng.choice(USERS, rows, p=activity / activity.sum())
        item = rng.choice(items, rows, p=popular / popular.sum())
        second = np.sort(rng.integers(86_400, size=rows))
        logit = (
            -1.2 + bias[user] + quality[item] + drift[category[item]] + (p[user] * q[item]).sum(1) / RANK**0.5
        )
        texts = {"user": user, "item": item, "category": category[item], "hour": second // 3600}
        label = (rng.random(rows) < 1 / (1 + np.exp(-logit))).astype(np.uint8)
        columns = {name: pa.array(values.astype(str)) for name, values in texts.items()}
        tables.append(pa.table({**columns, "time": START + day * 86_400 + second, "label": label}))
    return pa.concat_tables(tables).combine_chunks()


def encoded(
    table: pa.Table, day: int, train_days: int, earlier: Vocabulary | None
) -> tuple[Vocabulary, Mapping[str, Split]]:
    """Split for a day; return the vocabulary and the three splits."""
    part = assign(table, "log", method="days", day=day, train_days=train_days)
    train = table.filter(pa.array(part == 0))
    vocabulary = fit_vocabulary(
        lambda name: train[name].chunks, COLUMNS, min_count=MIN_COUNT, earlier=earlier
    )
    splits = {}
    for number, name in enumerate(SPLITS):
        own = table.filter(pa.array(part == number))
        ids, label = apply(vocabulary, own), own["label"].to_numpy().astype(np.float32)
        time = torch.tensor(own["time"].to_numpy())
        splits[name] = Split(schema(vocabulary), torch.from_numpy(ids), torch.from_numpy(label), time)
    return vocabulary, splits


def train(
    table: pa.Table, day: int, way: Way, config: Config, seed: int, package: Path
) -> tuple[float, float, float]:
    """Train for a day, replace the package by the result.

    Returns:
        Its test AUC, the rows of all passes, CPU seconds of the training.
    """
    start = package if way.warm and package.exists() else None
    earlier = Package.read(start).vocabulary if start else None
    vocabulary, splits = encoded(table, day, way.train_days, earlier)
    begin = time.process_time()
    rows = splits["train"]
    network = build(config.architecture, rows.schema, config.model, seed=seed)
    if start:
        warm.begin(network, start)
        rows = warm.rehearsed(rows, start)
    settings = {**config.train.fit, **way.settings}
    state = fit(network, rows, splits["valid"], seed=seed, **settings)
    weights = save(Trained.of(network, state).tensors)
    seconds = time.process_time() - begin
    assert splits["train"].time is not None
    until = {"until": int(splits["train"].time.max())}
    Package(config.architecture, config.model, vocabulary, {}, {}, weights, until).write(package)
    score = predict(network, splits["test"]).double().numpy()
    return metrics.auc(splits["test"].label.numpy(), score), state.curve[-1]["epoch"] * len(rows), seconds


def measure(
    table: pa.Table, days: int, history: int, ways: Mapping[str, Way], config: Config, seeds: list[int]
) -> NDArray[np.float64]:
    """Return test AUC, rows of all passes and CPU seconds: (3, ways, days, seeds)."""
    measured = np.zeros((3, len(ways), days, len(seeds)))
    with tempfile.TemporaryDirectory() as folder:
        for w, (name, way) in enumerate(ways.items()):
            for s, seed in enumerate(seeds):
                package = Path(folder, f"{w}-{seed}")
                if way.warm:
                    train(table, history, Way(warm=False, train_days=0), config, seed, package)
                for day in range(days):
                    measured[:, w, day, s] = train(table, history + 1 + day, way, config, seed, package)
                print(f"# {name}, seed {seed}: {measured[0, w, :, s].mean():.4f}", flush=True)
    return measured


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="deepfm")
    parser.add_argument("--days", type=int, default=10)
    parser.add_argument("--rows", type=int, default=6000, help="of a day")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--history", type=int, default=5, help="days that the first package is trained on")
    parser.add_argument("--train-days", type=int, default=3)
    given = parser.parse_args()
    reproducible(1)
    window, config = given.train_days, settings(given.model)
    usual = config.train.fit
    brief = {"epochs": 2, "lr": usual["lr"] / 3, "l2_rows": usual["l2_rows"] // 3}
    ways = {
        "cold": Way(warm=False, train_days=0),
        "warm": Way(warm=True, train_days=0, settings={"epochs": 2}),
        "warm, window": Way(warm=True, train_days=window, settings=brief),
        "cold, window": Way(warm=False, train_days=window),
    }
    table = generate(given.history + given.days + 2, given.rows, seed=1)
    auc, rows, seconds = measure(table, given.days, given.history, ways, config, given.seeds)
    print(f"\n{given.model}, {given.rows:,} rows a day, window of {window} days, seeds {given.seeds}\n")
    print(f"| test day | {' | '.join(ways)} |\n|---|{'---:|' * len(ways)}")
    several = len(given.seeds) > 1
    for day in range(given.days):
        cells = [f"{each[day].mean():.4f}" for each in auc]
        cells[0] += f" ± {auc[0, day].std(ddof=1):.4f}" if several else ""
        print(f"| {given.history + day + 3} | {' | '.join(cells)} |")
    print(f"| mean AUC | {' | '.join(f'{each.mean():.4f}' for each in auc)} |")
    if several:
        spread = [each.mean(0).std(ddof=1) for each in auc]
        print(f"| its deviation over seeds | {' | '.join(f'{each:.4f}' for each in spread)} |")
    print(f"| rows x epochs | {' | '.join(f'{each.sum(0).mean():,.0f}' for each in rows)} |")
    print(f"| of the cold ones | {' | '.join(f'{each.sum() / rows[0].sum():.3f}' for each in rows)} |")
    print(f"| CPU seconds of training | {' | '.join(f'{each.sum(0).mean():.1f}' for each in seconds)} |")
    print(f"| of the cold ones | {' | '.join(f'{each.sum() / seconds[0].sum():.3f}' for each in seconds)} |")


if __name__ == "__main__":
    main()
