"""Time and peak memory of the test report, on generated predictions of any number of rows and models.

    python -m benchmarks.evaluate --rows 10000000 --models 42 --seeds 3
    python -m benchmarks.evaluate --rows 1000000 --models 3 --users 0     # no groups

Predictions are drawn, not made by models; they go through the same Parquet files and the same code as in the
stage. Each model has two variants. Prints the seconds of a processor, without those of drawing, and the
highest resident memory after each part; memory does not depend on the number of models, time grows with rows
times models.
"""

import resource
import tempfile
import time
from argparse import ArgumentParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
from scipy import special

from pipeline.evaluate import predictions, report
from pipeline.evaluate.predictions import Holdout
from pipeline.evaluate.runs import STAGES, Run
from pipeline.metrics import Array

RATE = 0.2


class Drawn:
    """Labels of a split, and probabilities that are right but for noise.

    Attributes:
        label: (N,) uint8, always the same.
        seconds: of the processor that went into drawing, of all splits.
    """

    seconds = 0.0

    def __init__(self, rows: int) -> None:
        truth = np.random.default_rng(rows)
        self._logit = truth.normal(np.log(RATE / (1 - RATE)), 1, rows).astype(np.float32)
        self.label = (truth.random(rows, np.float32) < 1 / (1 + np.exp(-self._logit))).astype(np.uint8)

    def probability(self, seed: int, noise: float) -> Array:
        """Return probabilities (N,) float32."""
        start = time.process_time()
        logit = np.random.default_rng(seed).standard_normal(len(self.label), np.float32)
        logit *= noise
        logit += self._logit
        result: Array = special.expit(logit)
        Drawn.seconds += time.process_time() - start
        return result


def made_up(model: int, variant: str, seeds: int) -> Run:
    """Return a run whose validation AUC falls with the number of its model."""
    best = {"valid_auc": 0.8 - 0.001 * model - 0.0005 * (variant == "default"), "valid_logloss": 0.4}
    results = [{"seed": seed, "best": best, "curve": []} for seed in range(1, seeds + 1)]
    info = {"model": f"model{model}", "variant": variant, "key": variant, "weights": 1, "seeds": results}
    info |= {"architecture": "lr", "params": {"model": {}, "train": {}}}
    return Run(Path("nowhere"), {**info, "dataset": "made-up"})


def main() -> None:
    """Parse the command line, build one report and print what it took."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the test split")
    parser.add_argument("--models", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--users", type=int, default=None, help="groups (default: a tenth of the rows; 0: none)"
    )
    arguments = parser.parse_args()
    rows, users = arguments.rows, arguments.rows // 10 if arguments.users is None else arguments.users

    def done(what: str) -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        seconds = time.process_time() - Drawn.seconds
        print(f"{what}: {seconds:.0f} s of a processor, peak {peak:,.0f} MiB", flush=True)

    test, validation = Drawn(rows), Drawn(rows // 2)
    group = np.random.default_rng(1).integers(0, users, rows).astype(np.int32) if users else None
    split: Any = SimpleNamespace(name="test")
    valid: Any = SimpleNamespace(name="valid", label=torch.from_numpy(validation.label))
    holdout = Holdout(split, valid, test.label, np.arange(rows), group, None)
    runs = [
        made_up(model, variant, arguments.seeds) for model in range(arguments.models) for variant in STAGES
    ]

    def probabilities(run: Run, seed: int, *_: Any) -> list[Array]:
        model = int(run.model.removeprefix("model"))
        key = 1000 * model + 2 * seed + (run.variant == "tuned")
        return [each.probability(key, 0.5 + 0.01 * model) for each in (test, validation)]

    done("labels")
    with (
        tempfile.TemporaryDirectory() as name,
        mock.patch.object(predictions, "probabilities", probabilities),
    ):
        files = {run.model: Path(name, f"{run.model}.parquet") for run in runs}
        validations = {
            model: predictions.write_predictions(path, [run for run in runs if run.model == model], holdout)
            for model, path in files.items()
        }
        done("predictions drawn and written, calibrations fitted")
        built, _ = report.build_report("made-up", runs, holdout, files, validations, 20)
        done(f"report of {len(built['results'])} results")


if __name__ == "__main__":
    main()
