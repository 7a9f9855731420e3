"""What the validation rows say of two configurations beyond their means: how sure a difference is."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline import metrics
from pipeline.config.metric import Metric
from pipeline.data import storage
from pipeline.data.batches import Split
from pipeline.metrics import Array
from pipeline.statistics import chance, significance
from pipeline.statistics.significance import Estimate, clusters, error_of_difference, error_of_mean


class Losses(NamedTuple):
    """The logloss of each row, mean over the seeds (N,), and the variance of the mean over the seeds."""

    of_row: Array
    variance_of_seeds: float


Evidence = Estimate | Losses


@dataclass(frozen=True)
class ValidationRows:
    """Rows by which configurations are compared.

    Attributes:
        metric: of the search.
        label: 0 or 1, (N,).
        group: code of each row's user, (N,); None if there is none, or if errors cannot be clustered by it.
    """

    metric: Metric
    label: Array
    group: Array | None = None

    @classmethod
    def of(cls, metric: Metric, valid: Split, processed: Path) -> "ValidationRows":
        """Return those of a folder of encoded rows."""
        label, group = valid.label.cpu().numpy() > 0.5, None
        if storage.has_column(processed, "valid", "group"):
            group = np.array(storage.open_column(processed, "valid", "group"))
        return cls(metric, label, group if clusters(label, group) is not None else None)

    def evidence(self, scores: Sequence[Array]) -> Evidence | None:
        """Return what is known of a configuration by its predictions, (N,) one a seed.

        None if a class has fewer rows than `chance.FEW`: then no error can be known, since the normal
        approximation behind it does not hold, and the luckiest trial has a small one.
        """
        if min(np.count_nonzero(self.label == value) for value in (0, 1)) < chance.FEW:
            return None
        if self.metric == "auc":
            return significance.estimate(self.label, scores, self.group)
        found = [metrics.losses(self.label, score) for score in scores]
        means = [float(loss.mean()) for loss in found]
        spread = float(np.var(means, ddof=1)) / len(means) if len(means) > 1 else 0.0
        return Losses(np.mean(found, axis=0), spread)

    def error(self, one: Evidence | None, other: Evidence | None) -> float | None:
        """Return the standard error of a difference of two, by rows and seeds; None if unknown."""
        if isinstance(one, Estimate) and isinstance(other, Estimate):
            return error_of_difference(one, other)
        if isinstance(one, Losses) and isinstance(other, Losses):
            rows = error_of_mean(one.of_row - other.of_row, self.group)
            return float(np.sqrt(rows**2 + one.variance_of_seeds + other.variance_of_seeds))
        return None
