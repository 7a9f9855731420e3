"""What a search leaves behind: best.json, trials.csv, and the history in run.json."""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.common.files import write_text
from pipeline.config.metric import Metric
from pipeline.tune.finals import Finalist, against_default
from pipeline.tune.finished import Finished
from pipeline.tune.points import Point

Block = dict[str, Any]


def best(winner: Finalist, metric: str, tuned: Block) -> Block:
    """Return the content of best.json: the winning trial, its mean over the seeds and its arguments."""
    return {"trial": winner.trial, f"valid_{metric}": winner.mean, **tuned}


def write_csv(path: Path, trials: Sequence[Finished], finalists: Sequence[Finalist]) -> None:
    """Write one line per trial: number, state, value, mean over the seeds of a finalist, its point."""
    means = {finalist.trial: finalist.mean for finalist in finalists}
    rows = [
        {"number": t.number, "state": t.state, "value": t.value, "mean": means.get(t.number), **t.point}
        for t in trials
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def history(
    study: str,
    metric: Metric,
    winner: Finalist,
    trials: Sequence[Finished],
    finalists: Sequence[Finalist],
    importances: dict[str, dict[str, float]],
    budget: Block,
    arguments: Callable[[Point], Block],
) -> Block:
    """Return the `search` of run.json: every trial with its arguments, the finals, what it cost.

    Args:
        importances: of each axis, by method.
        arguments: {"model": ..., "train": ...} at a point of the space.
    """
    rows = [{**asdict(trial), "params": arguments(trial.point)} for trial in trials]
    return {
        "study": study,
        "metric": metric,
        "best": winner.trial,
        "trials": rows,
        "finalists": [finalist.to_json() for finalist in finalists],
        "against_default": against_default(winner, finalists, metric),
        "budget": budget,
        "importances": importances,
    }
