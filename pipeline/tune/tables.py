"""What a search leaves behind: best.json, trials.csv, and the history in run.json."""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.common.files import write_text
from pipeline.tune.search import Finished, Point

Block = dict[str, Any]


def best(winner: Finished, metric: str, tuned: Block) -> Block:
    """Return the content of best.json: the winning trial and its arguments."""
    return {"trial": winner.number, f"valid_{metric}": winner.value, **tuned}


def write_csv(path: Path, trials: Sequence[Finished]) -> None:
    """Write one line per trial: number, state, value and its point in the space."""
    rows = [{"number": t.number, "state": t.state, "value": t.value, **t.point} for t in trials]
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def history(
    study: str,
    metric: str,
    winner: Finished,
    trials: Sequence[Finished],
    importances: dict[str, dict[str, float]],
    arguments: Callable[[Point], Block],
) -> Block:
    """Return the `search` of run.json: every trial with its arguments, and the importance of each axis.

    Args:
        arguments: {"model": ..., "train": ...} at a point of the space.
    """
    rows = [{**asdict(trial), "params": arguments(trial.point)} for trial in trials]
    return {
        "study": study,
        "metric": metric,
        "best": winner.number,
        "trials": rows,
        "importances": importances,
    }
