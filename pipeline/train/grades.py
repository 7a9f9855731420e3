"""Grades behind the label: stars, a rating, a watch ratio in bins; each threshold is a label of its own.

The logit of a model stays that of the label; that of "the grade is at least g" is the logit plus a learnt cut
c_g, the label's own being fixed at 0. So one score is taught by all thresholds, as in ordinal regression
(Cao, Mirjalili and Raschka, "Rank consistent ordinal regression", 2020, https://arxiv.org/abs/1901.07884).
The cuts belong to the training, not to the model, which is saved and called as ever. Only train rows have
grades: validation and test are about the label alone.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.common.errors import PipelineError
from pipeline.data.batches import Batch, Split


class Thresholds(nn.Module):
    """The thresholds of the grade besides the label's, each with its cut.

    Args:
        train: rows with grades, of which every click has a higher one than every other row.
        share: of all thresholds but the label's in the loss, in equal parts.

    Raises:
        PipelineError: the rows have no grades, or no threshold but the label's.
    """

    def __init__(self, train: Split, share: float) -> None:
        super().__init__()
        if train.grade is None:
            raise PipelineError(
                "train.grades: these rows have no grades behind their labels; set it to 0, or give the "
                "dataset some (`label: {column: ..., above: ..., grades: [...]}` in a log of your own)"
            )
        label, counts = train.label > 0, train.grade.to(torch.long).bincount()
        own = int(train.grade[label].min()) if bool(label.any()) else len(counts)
        present = counts.nonzero().flatten().tolist()
        self.levels = [level for level in present[1:] if level != own]
        if not self.levels or not 0 < int(label.sum()) < len(label):
            raise PipelineError(
                f"train.grades: the grades of the train rows ({', '.join(map(str, present))}) have no "
                "threshold but the label's; set it to 0"
            )
        self.share = share
        above = [int(counts[level:].sum()) for level in (own, *self.levels)]
        odds = torch.tensor([n / (len(label) - n) for n in above], dtype=torch.float64).log()
        self.cuts = nn.Parameter((odds[1:] - odds[0]).float().to(train.device))

    def labels(self, batch: Batch) -> Iterator[tuple[Float[Tensor, ""], Float[Tensor, " B"]]]:
        """Yield the cut of each threshold, and which rows are at or above it."""
        assert batch.grade is not None
        for cut, level in zip(self.cuts, self.levels, strict=True):
            yield cut, (batch.grade >= level).to(batch.label.dtype)
