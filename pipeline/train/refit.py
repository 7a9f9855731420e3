"""Train + validation: a finished training repeated on the rows of both, once everything is chosen.

Each seed repeats its own training: as many passes over the rows as the weights it kept had seen, at the same
learning rates. Passes and not steps, so that a row counts as often as in the training that was chosen; with
more rows there are more steps. Both are done, and there is no rule which is better (Goodfellow, Bengio and
Courville, "Deep Learning", 2016, section 7.8). No row is left to choose by: nothing is.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from pipeline.common.errors import PipelineError
from pipeline.data import storage
from pipeline.data.batches import Split

REFIT = "refit"  # in run.json, and the start of names: a training on train and validation rows


class Refit(NamedTuple):
    """What is repeated.

    Attributes:
        rows: to train on.
        curve: the evaluations of the first training, up to that of the weights it kept.
    """

    rows: Split
    curve: Sequence[dict[str, float]]

    def over(self, epoch: float, evaluations: int) -> bool:
        """Whether a training has come as far.

        Args:
            epoch: passes so far, counted in whole batches: evaluations lie at about the same places.
            evaluations: of an epoch.
        """
        return epoch > self.curve[-1]["epoch"] - 0.5 / evaluations

    def lr(self, epoch: float, evaluations: int) -> float:
        """Return the learning rate with which it goes on, or ends."""
        later = (row["lr"] for row in self.curve if row["epoch"] - 0.5 / evaluations > epoch)
        return next(later, self.curve[-1]["lr"])


def both(processed: Path, train: Split, valid: Split) -> Split:
    """Return the train and the validation rows as one split, with the grades of both.

    Args:
        processed: the folder they were loaded from; only here are grades of validation rows read.

    Raises:
        PipelineError: a split is streamed.
    """
    if train.streamed or valid.streamed:
        raise PipelineError(
            "train.refit joins train and validation rows in memory, and there are more than rows_in_memory: "
            "raise that, or set `refit: false`"
        )
    parts = [train.whole(), valid.whole()]
    if train.grade is not None:
        known = torch.tensor(storage.open_column(processed, "valid", "grade"), device=train.device)
        parts[1] = parts[1]._replace(grade=known)
    columns = (None if a is None or b is None else torch.cat([a, b]) for a, b in zip(*parts, strict=True))
    ids, label, time, grade = columns
    assert ids is not None and label is not None
    return Split(train.schema, ids, label, time, grade)
