"""What lazy tables cost in accuracy: the same trainings with tables updated densely and row by row.

    python -m benchmarks.lazy_tables --datasets book-crossing --models fm deepfm

The datasets are in data/processed (`python -m stages.download`, `preprocess`, `split` with `--dataset`). The
defaults of params.yaml, on each of its seeds; AUC and logloss of validation and test rows, their means, and
lazy minus dense. Nothing is chosen here.
"""

from argparse import ArgumentParser
from pathlib import Path

import numpy as np
from tqdm import tqdm

from pipeline.common.errors import exit_with_message
from pipeline.config import params
from pipeline.data.batches import Split
from pipeline.models import build
from pipeline.train.device import reproducible
from pipeline.train.loop import fit
from pipeline.train.predict import evaluate

FIGURES = ("valid auc", "valid logloss", "test auc", "test logloss", "epochs")
LEAST = {"dense": 2**62, "lazy": 1}  # lazy_rows


def main() -> None:
    """Print the table."""
    parser = ArgumentParser(prog="python -m benchmarks.lazy_tables", description=__doc__)
    parser.add_argument("--datasets", nargs="+", default=["book-crossing"])
    parser.add_argument("--models", nargs="+", default=["fm", "deepfm"])
    arguments = parser.parse_args()
    settings = params.load()
    print("| dataset | model | tables |", " | ".join(FIGURES), "|\n|---|---|---|" + "---:|" * len(FIGURES))
    for dataset in arguments.datasets:
        for name in arguments.models:
            config = settings.config(dataset, name)
            reproducible(config.train.threads)
            splits = {
                part: Split.load(
                    Path("data/processed", dataset), part, "cpu", rows_in_memory=config.train.rows_in_memory
                )
                for part in ("train", "valid", "test")
            }
            means = {}
            for tables, least in LEAST.items():
                rows = []
                for seed in tqdm(config.train.seeds, desc=f"{name} {tables}", leave=False):
                    model = build(config.architecture, splits["train"].schema, config.model, seed=seed)
                    state = fit(
                        model, splits["train"], splits["valid"], seed=seed,
                        **{**config.train.fit, "lazy_rows": least},
                    )  # fmt: skip
                    valid, test = (evaluate(model, splits[part]) for part in ("valid", "test"))
                    scores = [of[key] for of in (valid, test) for key in ("auc", "logloss")]
                    rows.append([*scores, state.curve[-1]["epoch"]])
                means[tables] = np.mean(rows, axis=0)
                print(f"| {dataset} | {name} | {tables} |", _cells(means[tables]), flush=True)
            print(
                f"| {dataset} | {name} | lazy - dense |", _cells(means["lazy"] - means["dense"]), flush=True
            )


def _cells(values: np.ndarray) -> str:
    return " | ".join(f"{value:.4f}" for value in values) + " |"


if __name__ == "__main__":
    exit_with_message(main)
