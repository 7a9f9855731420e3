"""Does importance find what was planted in the synthetic log, and what does it cost?

    python -m benchmarks.importance [--seeds 1 2 3] [model ...]      reads data/{interim,processed}/synthetic

Each model is trained with its defaults for that dataset. Field and pair importance are then measured on
the test rows, of the model and, by the same shuffles, of the true logit: the sum of the planted effects.
"""

import time
from argparse import ArgumentParser
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from scipy import stats
from torch import Tensor, nn

from pipeline import metrics
from pipeline.config import params
from pipeline.data import storage
from pipeline.data.batches import Split
from pipeline.datasets import synthetic
from pipeline.explain import importance, pairs
from pipeline.explain.mixing import logits_of
from pipeline.models import build
from pipeline.preprocess.clean_table import CleanTable
from pipeline.schema import Field, Schema
from pipeline.train.device import reproducible
from pipeline.train.loop import fit

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
LEVELS = Schema(tuple(Field(column.name, synthetic.LEVELS[column.name]) for column in synthetic.COLUMNS))
SEED = 7  # of the log
ZERO = 1e-6  # an interaction below it is rounding


class Truth(nn.Module):
    """The true logit of a row, whose ids are the levels of its fields: (B, F) -> (B,)."""

    def __init__(self, seed: int = SEED) -> None:
        super().__init__()
        self.tables = synthetic._World(seed).tables

    def forward(self, ids: Int[Tensor, "B F"]) -> Float[Tensor, " B"]:
        """Add up the planted effects."""
        offsets = zip(LEVELS.fields, LEVELS.offsets, strict=True)
        level = {field.name: ids[:, i].numpy() - first for i, (field, first) in enumerate(offsets)}
        logit = np.full(len(ids), synthetic.INTERCEPT)
        for fields, table in self.tables.items():
            logit += table[tuple(synthetic._coarse(name, level[name], fields) for name in fields)]
        return torch.from_numpy(logit)


def levels(root: Path, seed: int = SEED) -> Split:
    """Return the test rows by the levels of their fields, as `Truth` reads them."""
    processed, table = root / "data/processed/synthetic", CleanTable(root / "data/interim/synthetic")
    row = np.array(storage.open_column(processed, "test", "row"))
    world, ids = synthetic._World(seed), []
    number = {name: dict(zip(names, range(len(names)), strict=True)) for name, names in world.names.items()}
    number |= {"hour": {str(i): i for i in range(24)}, "weekday": {day: i for i, day in enumerate(DAYS)}}
    for field, first in zip(LEVELS.fields, LEVELS.offsets, strict=True):
        parts = table.column_blocks(field.name)
        values = np.concatenate([part.to_numpy(zero_copy_only=False) for part in parts])
        if field.name == "price":
            level = synthetic._price_level(values[row].astype(float))
        else:
            level = np.array([number[field.name]["" if value is None else value] for value in values[row]])
        ids.append(first + level)
    label = torch.tensor(storage.open_column(processed, "test", "label")).float()
    return Split(LEVELS, torch.from_numpy(np.stack(ids, 1)), label)


def agreement(found: pd.DataFrame, true: pd.DataFrame) -> float:
    """Return the rank correlation (Spearman) of fields, or of those pairs that the truth crosses."""
    keys, value = (["field"], "auc_lost") if "field" in true else (["first", "second"], "interaction")
    real = true if "field" in true else true[true[value] > ZERO]
    both = real.merge(found, on=keys, suffixes=("_true", ""))
    return float(stats.spearmanr(both[value], both[f"{value}_true"]).statistic)


def planted_first(found: pd.DataFrame, true: pd.DataFrame) -> int:
    """Return how many of the six strongest true pairs are the first six of a model."""
    six = [{tuple(pair) for pair in table[["first", "second"]].head(6).to_numpy()} for table in (found, true)]
    return len(six[0] & six[1])


def main() -> None:
    """Train, measure, print a table."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=["lr", "fm", "deepfm", "fiinet"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--root", type=Path, default=Path())
    arguments = parser.parse_args()
    processed = arguments.root / "data/processed/synthetic"
    train, valid, test = (Split.load(processed, part) for part in ("train", "valid", "test"))
    rows, truth = levels(arguments.root), Truth()
    fields, crosses = importance(truth, rows), pairs(truth, rows)
    print(f"{fields.round(4)}\n\n{crosses[crosses['interaction'] > ZERO].round(3)}\n")
    print("| model | seed | AUC | fields | pairs | first six | one pass, CPU s | fields | pairs |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for name, seed in product(arguments.models, arguments.seeds):
        config = params.load().config("synthetic", name)
        reproducible(config.train.threads)
        model = build(name, train.schema, config.model, seed=seed)
        fit(model, train, valid, seed=seed, **config.train.fit)
        times = [time.process_time()]
        logit = logits_of(model, test)
        times.append(time.process_time())
        found = importance(model, test)
        times.append(time.process_time())
        crossed = pairs(model, test)
        seconds = np.diff([*times, time.process_time()])
        figures = [f"{metrics.auc(test.label.numpy(), logit):.4f}", f"{agreement(found, fields):.3f}"]
        figures += [f"{agreement(crossed, crosses):.3f}", str(planted_first(crossed, crosses))]
        figures += [
            f"{seconds[0]:.3f}",
            *(f"{each:.1f} ({each / seconds[0]:.0f} passes)" for each in seconds[1:]),
        ]
        print(f"| {name} | {seed} | {' | '.join(figures)} |", flush=True)


if __name__ == "__main__":
    main()
