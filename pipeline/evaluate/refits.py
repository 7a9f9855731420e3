"""Rows of the report for what was trained again on train and validation rows, after every choice.

They never compete: no row is left by which they could be chosen. Each is compared with its own run, whose
validation rows also gave the calibration.
"""

from collections.abc import Sequence

import numpy as np

from pipeline.common.text import with_interval
from pipeline.evaluate import seeds
from pipeline.evaluate.results import ordered
from pipeline.evaluate.runs import Block, Run
from pipeline.statistics.significance import Estimate, compare
from pipeline.train.refit import REFIT


def summarise(run: Run, figures: Sequence[dict[str, float]], error: Estimate, before: Estimate) -> Block:
    """Return an entry of `refits` in report.json.

    Args:
        run: of the refit.
        figures: its metrics, seed by seed.
        error: of its AUC.
        before: of that of the run without it.
    """
    return {
        "model": run.model,
        "variant": run.variant,
        "key": run.info["key"],
        "reads": run.reads,
        "weights": run.info["weights"],
        "trainings": 2 * run.info.get("trainings", 1),
        "epochs": float(np.mean([again["curve"][-1]["epoch"] for again in run.info[REFIT]])),
        **seeds.summarise(run, figures, error),
        "against_run": compare(error, before),
    }


def table(refits: Sequence[Block]) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of the leaderboard's table, best first."""
    rows = []
    for refit in ordered(refits):
        mean, std = refit["mean"], refit["std"] or {}
        figures = (
            f"{mean[key]:.4f} ± {std[key]:.4f}" if std else f"{mean[key]:.4f}" for key in ("auc", "logloss")
        )
        gap = with_interval(refit["against_run"])
        rows.append(
            [refit["model"], refit["variant"], refit["reads"], *figures, gap, f"{refit['epochs']:.1f}"]
        )
    return ["model", "variant", "reads", "AUC", "logloss", "minus the run itself", "epochs"], rows


def explanation() -> str:
    """Explain the table."""
    return (
        "Every run again on train **and validation** rows, after all choices: each seed for as many epochs, "
        "at the same learning rates, as in the training that was chosen (`train.refit`). No validation row "
        "is left to choose by, so these rows never compete for the champion, and figures of models that were "
        "trained on fewer rows are not to be compared with them. Differences from the same run without "
        "validation rows with 95 % intervals, not corrected."
    )
