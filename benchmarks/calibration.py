"""What calibration is worth on test rows, with its noise.

    python -m benchmarks.calibration DATASET [MODEL ...]

For every seed of every finished run below data/runs/DATASET: logloss and ECE of the test rows, raw and
calibrated on validation rows, means over seeds. The noise of the difference in logloss is its standard error
over test rows; that of the ECE is what right probabilities have by chance on so many rows.
"""

import sys
from pathlib import Path

import numpy as np

from pipeline import metrics
from pipeline.common.files import read_json
from pipeline.evaluate import calibration
from pipeline.evaluate.leaderboard import summary
from pipeline.evaluate.predictions import Holdout, probabilities
from pipeline.evaluate.runs import Run


def main() -> None:
    """Print a line for each run."""
    dataset, *models = sys.argv[1:]
    holdout = Holdout.load(Path("data/processed", dataset))
    y, valid = holdout.label, holdout.valid.label.numpy()
    rng = np.random.default_rng(0)
    print("| model | logloss | difference ± its error | ECE | of right probabilities | calibration |")
    print("|---|---:|---:|---:|---:|---|")
    for path in sorted(Path("data/runs", dataset).glob("*/*/run.json")):
        run = Run(path.parent, read_json(path))
        if models and run.model not in models:
            continue
        chosen, loss, ece = [], [], []
        for result in run.seeds:
            p, of_valid = probabilities(run, result["seed"], holdout.split, holdout.valid)
            found = calibration.fit(valid, calibration.logit(of_valid))
            after = calibration.apply(found, calibration.logit(p))
            right = metrics.calibration_error((rng.random(len(after)) < after).astype(float), after)
            chosen.append(found)
            loss.append([metrics.losses(y, p), metrics.losses(y, after)])
            ece.append([metrics.calibration_error(y, p), metrics.calibration_error(y, after), right])
        before, after = np.mean(loss, axis=0)
        gain = after - before
        error = gain.std() / np.sqrt(len(gain))
        raw, mended, right = np.mean(ece, axis=0)
        print(
            f"| {run.model} ({run.variant}) | {before.mean():.4f} → {after.mean():.4f} | {gain.mean():+.4f} "
            f"± {error:.4f} | {raw:.4f} → {mended:.4f} | {right:.4f} | {summary(chosen)} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
