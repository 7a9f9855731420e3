"""One trial of a search: a training on the first seed that the pruner may stop."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.train.loop import LogFn
from pipeline.train.runs import Block, RunHeader, Splits, train_once


def train_trial(
    header: RunHeader,
    splits: Splits,
    arguments: Block,
    seed: int,
    *,
    logs: Sequence[LogFn],
    checkpoint: Path,
    progress: str,
) -> dict[str, float]:
    """Train one trial and report every evaluation to all `logs`; checkpoints of other trials are removed.

    Returns:
        the evaluation whose weights the training kept.
    """
    for old in checkpoint.parent.glob("trial-*.pt"):
        if not old.name.startswith(f"{checkpoint.name}-"):
            old.unlink()

    def log(row: dict[str, float], step: int) -> None:
        for each in logs:
            each(row, step)

    state = train_once(
        header, splits, arguments, seed, log=log, checkpoint=checkpoint, progress=progress
    ).state
    return state.curve[state.best]
