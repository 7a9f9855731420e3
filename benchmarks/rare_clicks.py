"""Rare clicks: does every model beat the textbook's logistic regression?

    python -m benchmarks.rare_clicks [--rows 40000] [--rates .1 .01] [--models lr fm] [--logs 3] [--first 1]

Generated logs with six fields of unequal tails (a Zipf law each), effects of values, and interactions that an
additive model cannot see; the intercept is set for the click rate. The rows are split 72 : 8 : 20; ids that
occur once in the train rows are unseen, as everywhere. Each model is trained with the settings that
params.yaml gives to a dataset without settings of its own and, with `--trials`, with those of a search of so
many trials. Beside it: scikit-learn's logistic regression on the same ids, one-hot, with the best of four C
by validation AUC.

A search has two rows: its best trial, and what it returns, which is the default unless the trial's gain is
larger than `tune.margin` of its standard errors.

Printed for each rate: test AUC of each log and their mean, normalised entropy (below 1: better than a
constant), mean prediction over base rate, best and last epoch.
"""

import argparse
import itertools
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression
from torch import nn

from pipeline import metrics
from pipeline.config import yaml_file
from pipeline.config.params import Params
from pipeline.config.settings import Config
from pipeline.data.batches import Split
from pipeline.models import build
from pipeline.schema import Field, Schema
from pipeline.train.checkpoint import State
from pipeline.train.course import LogFn
from pipeline.train.device import reproducible
from pipeline.train.loop import fit
from pipeline.train.predict import predict
from pipeline.tune import finals, search
from pipeline.tune.evidence import ValidationRows
from pipeline.tune.finals import Finalist
from pipeline.tune.finished import Finished
from pipeline.tune.points import Point

Array = NDArray[Any]
Model = tuple[nn.Module, State]
MODELS = ["lr", "fm", "deepfm", "flsest", "fiinet"]
RATES = [0.3, 0.1, 0.03, 0.01, 0.003]
# field -> (number of values, below 1 per row; exponent of its Zipf law; std of its effects in logits)
FIELDS = {
    "user": (0.05, 0.8, 0.4),
    "item": (0.01, 1.1, 0.7),
    "site": (200, 1.0, 0.4),
    "campaign": (30, 0.7, 0.4),
    "hour": (24, 0.0, 0.2),
    "device": (4, 0.7, 0.2),
}
CROSSES = {("site", "campaign"): 0.5, ("device", "item"): 0.4, ("hour", "device"): 0.2}
RANK = 3  # of user x campaign, a product of vectors
FACTORS_STD = 0.5
COLUMNS = {"auc": 4, "ne": 3, "ratio": 2}  # and their digits


class Log(NamedTuple):
    """Train, valid and test rows of a log, and the true click probabilities of its test rows."""

    train: Split
    valid: Split
    test: Split
    truth: Array


def generate(rows: int, rate: float, seed: int) -> Log:
    """Draw a log of so many rows with so many clicks a row."""
    rng = np.random.default_rng([seed, rows])
    sizes = {name: round(size * rows) if size < 1 else int(size) for name, (size, _, _) in FIELDS.items()}
    values, logit = {}, np.zeros(rows)
    for name, (_, exponent, std) in FIELDS.items():
        weight = np.arange(1, sizes[name] + 1.0) ** -exponent
        values[name] = rng.choice(sizes[name], rows, p=weight / weight.sum())
        logit += std * rng.standard_normal(sizes[name])[values[name]]
    for (a, b), std in CROSSES.items():
        effect = rng.standard_normal((sizes[a], sizes[b]))
        logit += std * effect[values[a], values[b]]
    u, c = rng.standard_normal((sizes["user"], RANK)), rng.standard_normal((sizes["campaign"], RANK))
    logit += FACTORS_STD * (u[values["user"]] * c[values["campaign"]]).sum(1) / RANK**0.5
    probability = 1 / (1 + np.exp(-logit - _intercept(logit, rate)))
    label = (rng.random(rows) < probability).astype(np.float32)
    return encode(values, label, probability)


def _intercept(logit: Array, rate: float) -> float:
    low, high = -30.0, 30.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if np.mean(1 / (1 + np.exp(-logit - middle))) < rate else (low, middle)
    return low


def encode(values: dict[str, Array], label: Array, probability: Array) -> Log:
    """Split the rows, in the order they come, and number the values that occur twice in train rows."""
    rows = len(label)
    ends = [0, round(0.72 * rows), round(0.8 * rows), rows]
    fields, columns, offset = [], [], 1
    for name, column in values.items():
        counts = np.bincount(column[: ends[1]], minlength=column.max() + 1)
        known = np.flatnonzero(counts >= 2)
        number = np.zeros(len(counts), dtype=np.int32)
        number[known] = np.arange(1, len(known) + 1)
        fields.append(Field(name, len(known) + 1))
        columns.append(number[column] + offset)
        offset += len(known) + 1
    schema = Schema(tuple(fields))
    ids, labels = torch.from_numpy(np.stack(columns, 1).astype(np.int32)), torch.from_numpy(label)
    parts = [
        Split(schema, ids[start:end].contiguous(), labels[start:end])
        for start, end in itertools.pairwise(ends)
    ]
    return Log(*parts, probability[ends[2] :])


def scikit_learn(log: Log) -> Array:
    """Return the click probabilities of the test rows by the textbook's logistic regression."""

    def one_hot(split: Split) -> csr_matrix:
        ids = split.ids.numpy()
        shape = (len(ids), split.schema.vocabulary_size)
        return csr_matrix((np.ones(ids.size), ids.ravel(), np.arange(0, ids.size + 1, ids.shape[1])), shape)

    best, score = -1.0, np.empty(0)
    for c in (0.01, 0.1, 1.0, 10.0):
        model = LogisticRegression(C=c, max_iter=1000).fit(one_hot(log.train), log.train.label.numpy())
        value = metrics.auc(log.valid.label.numpy(), model.predict_proba(one_hot(log.valid))[:, 1])
        if value > best:
            best, score = value, model.predict_proba(one_hot(log.test))[:, 1]
    return score


def settings(model: str) -> Config:
    """Return what params.yaml gives a model on a dataset without settings of its own."""
    _, values = yaml_file.read(Path("params.yaml"))
    entry = {**values["data"]["synthetic"], "settings": {}}
    file = Params({**values, "data": {"generated": entry}, "datasets": ["generated"]}, every_entry=False)
    return file.config("generated", model)


def trained(
    rows: Log, config: Config, options: tuple[dict[str, Any], dict[str, Any]], report: LogFn | None = None
) -> Model:
    """Train a model on the first seed; return it with the state of its training."""
    network = build(config.architecture, rows.train.schema, options[0], seed=1)
    return network, fit(network, rows.train, rows.valid, seed=1, log=report, **options[1])


def searched(log: Log, config: Config, trials: int) -> Finished:
    """Search so many trials; return the best."""

    def objective(_: int, point: Point, report: LogFn) -> float:
        _, state = trained(log, config, config.at(point), report)
        return float(state.curve[state.best][f"valid_{config.tune.metric}"])

    with tempfile.TemporaryDirectory() as folder:
        found, _ = search.search(
            "rare-clicks",
            config.space,
            config.starts,
            objective,
            config.tune.model_copy(update={"trials": trials}),
            journal=Path(folder, "journal.jsonl"),
        )
    return search.finalists(found, config.tune.metric, 1)[0]


def replaces(log: Log, config: Config, found: Mapping[int, Model]) -> bool:
    """Whether the best trial replaces the default by the rule of the finals, on one seed.

    Args:
        found: the default's training under 0, the trial's under its number.
    """
    metric = config.tune.metric
    rows = ValidationRows(metric, log.valid.label.numpy() > 0.5)
    known = {trial: rows.evidence([predict(one[0], log.valid).numpy()]) for trial, one in found.items()}
    finalists = []
    for trial, (_, state) in found.items():
        value = float(state.curve[state.best][f"valid_{metric}"])
        error = rows.error(known[trial], known[0]) if trial else None
        finalists.append(Finalist(trial, [1], [value], [state.curve[-1]["epoch"]], error))
    won = finals.winner(finalists, metric, config.tune.margin)
    print(f"  {finals.verdict(won, finalists, metric, config.tune.margin)}", flush=True)
    return won.trial != 0


def row(name: str, log: Log, score: Array) -> dict[str, Any]:
    """Measure test scores."""
    label = log.test.label.numpy()
    return {
        "name": name,
        "auc": metrics.auc(label, score),
        "ne": metrics.normalised_entropy(label, score),
        "ratio": float(score.mean() / label.mean()),
    }


def measure(log: Log, models: list[str], trials: int) -> list[dict[str, Any]]:
    """Return a row for the truth, scikit-learn and each model, three with a search.

    The model, the best of the trials, and what the search returns: one of the two.
    """
    found = [row("truth", log, log.truth), row("scikit-learn", log, scikit_learn(log))]
    for model in models:
        config = settings(model)
        default = trained(log, config, (config.model, config.train.fit))
        found.append(row_of(model, log, default))
        if trials:
            trial = searched(log, config, trials)
            best = trained(log, config, config.at(trial.point)) if trial.number else default
            found.append(row_of(f"{model} best of {trials}", log, best))
            kept = trial.number == 0 or not replaces(log, config, {0: default, trial.number: best})
            found.append(row_of(f"{model} tuned", log, default if kept else best))
    return found


def row_of(name: str, log: Log, one: Model) -> dict[str, Any]:
    """Measure a training."""
    network, state = one
    epochs = f"{state.curve[state.best]['epoch']:g}/{state.curve[-1]['epoch']:g}"
    return {**row(name, log, predict(network, log.test).double().numpy()), "epochs": epochs}


def main() -> None:
    """Print a table for each rate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--rates", type=float, nargs="+", default=RATES)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--logs", type=int, default=3)
    parser.add_argument("--first", type=int, default=1, help="seed of the first log")
    parser.add_argument("--trials", type=int, default=0)
    given = parser.parse_args()
    reproducible(1)
    for rate in given.rates:
        seeds = range(given.first, given.first + given.logs)
        logs = (generate(given.rows, rate, seed) for seed in seeds)
        tables = [measure(log, given.models, given.trials) for log in logs]
        print(f"\n{given.rows:,} rows, {rate:.1%} clicks\n")
        print("| model | mean AUC | AUC | NE | prediction / rate | epochs |\n|---|---:|---|---|---|---|")
        for rows in zip(*tables, strict=True):
            cells = [" ".join(f"{r[key]:.{digits}f}" for r in rows) for key, digits in COLUMNS.items()]
            epochs = " ".join(r.get("epochs", "") for r in rows)
            mean = np.mean([r["auc"] for r in rows])
            print(f"| {rows[0]['name']} | {mean:.4f} | {' | '.join(cells)} | {epochs} |", flush=True)


if __name__ == "__main__":
    main()
