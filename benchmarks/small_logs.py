"""What a small log loses by binning its numbers: scikit-learn's LR on raw numbers, on bins and on steps.

    python -m benchmarks.small_logs

Four numbers, two of them heavy-tailed, and three categories; the logit is linear in the numbers, or in the
logarithms of the heavy-tailed ones. All see the same one-hot categories of our vocabulary. C is the best of
four by validation logloss; AUC and logloss are those of the test split, means over generated logs.
"""

from argparse import ArgumentParser
from collections import defaultdict
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from pipeline import metrics
from pipeline.preprocess.parse import chunk
from pipeline.schema import EMPTY, Column
from pipeline.split.assign import TEST, TRAIN, VALID, assign
from pipeline.split.vocabulary import apply, fit_vocabulary, schema

Array = NDArray[Any]
LEVELS = (4, 12, 40)
WEIGHTS = (1.0, -0.8, 0.6, 0.4)
NUMBERS = [f"number {i}" for i in range(len(WEIGHTS))]
CATEGORIES = [f"category {i}" for i in range(len(LEVELS))]
COLUMNS = [
    *(Column(name, "number", "item") for name in NUMBERS),
    *(Column(name, "category", "user") for name in CATEGORIES),
]
ENCODINGS: dict[str, dict[str, Any]] = {
    "5 bins": {"bins": 5},
    "10 bins": {"bins": 10},
    "20 bins": {},
    "20 steps": {"numbers": "steps"},
}


def log(rows: int, seed: int, *, logarithms: bool) -> tuple[pa.Table, Array]:
    """Return the fields and the label of a log, and its numbers (rows, 4)."""
    draw = np.random.default_rng(seed)
    heavy = draw.lognormal(size=rows), draw.gamma(2, 20, rows)
    numbers = np.c_[draw.normal(size=rows), heavy[0], draw.uniform(0, 100, rows).round(), heavy[1].round(2)]
    levels = [draw.zipf(1.5, rows) % count for count in LEVELS]
    effects = [draw.normal(0, 0.4, count)[level] for count, level in zip(LEVELS, levels, strict=True)]
    terms = numbers.copy()
    if logarithms:
        terms[:, [1, 3]] = np.log(numbers[:, [1, 3]] + 1e-2)
    score = (terms - terms.mean(0)) / terms.std(0) @ np.array(WEIGHTS) + np.sum(effects, 0)
    label = draw.random(rows) < 1 / (1 + np.exp(np.median(score) + 0.5 - score))
    values: dict[str, Any] = dict(zip(NUMBERS, numbers.T, strict=True))
    values |= {name: level.astype(str) for name, level in zip(CATEGORIES, levels, strict=True)}
    return pa.table({**values, "label": label.astype(np.uint8)}), numbers


def scores(inputs: Array, label: Array, part: Array) -> tuple[float, float]:
    """Return test AUC and logloss."""
    found = []
    for c in (0.01, 0.1, 1.0, 10.0):
        model = LogisticRegression(C=c, max_iter=2000).fit(inputs[part == TRAIN], label[part == TRAIN])
        valid, test = (model.predict_proba(inputs[part == p])[:, 1] for p in (VALID, TEST))
        y = label[part == TEST]
        found.append(
            (metrics.logloss(label[part == VALID], valid), metrics.auc(y, test), metrics.logloss(y, test))
        )
    _, auc, logloss = min(found)
    return auc, logloss


def compare(rows: int, seed: int, *, logarithms: bool) -> dict[str, tuple[float, float]]:
    """Return the scores of one log by encoding."""
    table, numbers = log(rows, seed, logarithms=logarithms)
    label = table["label"].to_numpy()
    part = assign(table, seed=seed)
    train = table.filter(pa.array(part == TRAIN))
    result = {}
    for name, options in ENCODINGS.items():
        vocabulary = fit_vocabulary(lambda field: [chunk(train[field])], COLUMNS, min_count=2, **options)
        ids, size = apply(vocabulary, table), schema(vocabulary).vocabulary_size
        one_hot = np.zeros((rows, size))
        one_hot[np.arange(rows)[:, None], ids] = 1
        one_hot[:, EMPTY] = 0
        result[name] = scores(one_hot, label, part)
    first = schema(vocabulary).offsets[len(NUMBERS)]
    scaled = (numbers - numbers[part == TRAIN].mean(0)) / numbers[part == TRAIN].std(0)
    return {"raw numbers": scores(np.c_[scaled, one_hot[:, first:]], label, part), **result}


def main() -> None:
    """Print a table."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--logs", type=int, default=12, help="generated logs a row of the table")
    logs = parser.parse_args().logs
    print("| logit linear in | rows |", " | ".join(["raw numbers", *ENCODINGS]), "|")
    print("|---|---:|" + "---:|" * (1 + len(ENCODINGS)))
    for logarithms in (False, True):
        for rows in (650, 1500, 5000):
            found = defaultdict(list)
            for seed in range(logs):
                for name, pair in compare(rows, seed, logarithms=logarithms).items():
                    found[name].append(pair)
            cells = ["{:.4f} / {:.4f}".format(*np.mean(pairs, 0)) for pairs in found.values()]
            print(
                f"| {'logarithms' if logarithms else 'numbers'} | {rows:,} |",
                " | ".join(cells),
                "|",
                flush=True,
            )


if __name__ == "__main__":
    main()
