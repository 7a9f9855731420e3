"""Rows ranked by one score: sorted once for everything in a report that counts ranks.

Whatever has a counterpart in `pipeline.metrics` has its bits, in a fraction of the time on millions of rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline import metrics
from pipeline.metrics import Array


@dataclass(frozen=True)
class Ranking:
    """The distinct scores of rows, ascending, and what each row has.

    Attributes:
        positive: whether each row's label is 1, (N,) bool.
        tie: the number of each row's score among the distinct ones, (N,) int64.
        score: the distinct scores, (T,).
        starts: how many rows score less than each of them, (T,) int64.
        hits, misses: how many positive and negative rows have each of them, (T,) int64.
    """

    positive: Array
    tie: Array
    score: Array
    starts: Array
    hits: Array
    misses: Array

    @classmethod
    def of(cls, label: Array, score: Array) -> "Ranking":
        """Rank rows by scores (N,) that are numbers; labels are 0 and 1, (N,)."""
        positive = np.asarray(label) > 0.5
        order, ranked = _sort(np.asarray(score))
        other = np.r_[True, ranked[1:] != ranked[:-1]]
        tie, starts = np.empty(len(order), np.int64), np.flatnonzero(other)
        tie[order] = np.cumsum(other) - 1
        hits = np.add.reduceat(positive[order], starts, dtype=np.int64)
        return cls(positive, tie, ranked[starts], starts, hits, np.diff(np.r_[starts, len(order)]) - hits)

    def auc(self) -> float:
        """Area under the ROC curve: `metrics.auc`."""
        below = np.cumsum(self.misses) - self.misses
        wins = int((self.hits * (2 * below + self.misses)).sum())
        return wins / (2 * int(self.hits.sum()) * int(self.misses.sum()))

    def group_auc(self, group: Array) -> float:
        """AUC within each group (N,), codes below 2^31, averaged by rows: `metrics.group_auc`."""
        keys = group.astype(np.int64) << 32
        keys |= self._tie_and_class()
        keys.sort()  # by group, then score: nothing is left to sort there
        return metrics.group_auc(keys & 1, keys >> 1, keys >> 32)

    def calibration_error(self, probability: Array, bins: int) -> float:
        """Expected calibration error of probabilities (N,) that rise with the score, some maybe equal now.

        That is `metrics.calibration_error`.
        """
        value = np.empty(len(self.score))
        value[self.tie] = probability
        value = np.maximum.accumulate(value)  # whatever the last bits of a rising function do
        first = np.flatnonzero(np.r_[True, value[1:] != value[:-1]])
        ends = np.r_[self.starts[first], len(self.tie)]
        rank = (ends[:-1] + 1 + ends[1:]) / 2  # of equal ones the mean of their ranks
        of_value = ((rank - 0.5) * bins / len(self.tie)).astype(np.int64)
        bin_of_row = np.repeat(of_value, np.diff(np.r_[first, len(value)]))[self.tie]
        gap = np.asarray(probability, np.float64) - self.positive
        return float(np.abs(np.bincount(bin_of_row, weights=gap)).sum() / len(gap))

    def placements(self) -> Array:
        """Return for each row the share of rows of the other class that it is on the right side of.

        Of a positive row those that score below it, of a negative one those above it, equal ones counting
        one half: (N,) float64.
        """
        above = (np.cumsum(self.misses) - self.misses / 2) / self.misses.sum()
        below = 1 - (np.cumsum(self.hits) - self.hits / 2) / self.hits.sum()
        placed: Array = np.stack([below, above], axis=1).ravel()[self._tie_and_class()]
        return placed

    def roc(self, grid: Array) -> Array:
        """Return the true positive rate at each false positive rate of `grid`; ties give a sloped line."""
        hits, false_alarms = np.cumsum(self.hits[::-1]), np.cumsum(self.misses[::-1])
        return np.interp(grid, np.r_[0, false_alarms / false_alarms[-1]], np.r_[0, hits / hits[-1]])

    def _tie_and_class(self) -> Array:
        keys = self.tie << 1
        keys |= self.positive
        return keys


def reliability(seeds: Sequence[Ranking], bins: int) -> tuple[Array, Array]:
    """Return mean score and share of positives in each of `bins` bins of equally many rows, of all seeds.

    Equal scores are in the order of seeds, then of rows.
    """
    pooled = np.concatenate([np.repeat(seed.score, seed.hits + seed.misses) for seed in seeds])
    pooled.sort()
    parts = np.array_split(pooled, min(bins, len(pooled)))
    ends = np.cumsum([len(part) for part in parts])
    clicks = np.zeros(len(parts), np.int64)
    for i, end in enumerate(ends[:-1]):
        limit = pooled[end]
        equal = end - np.searchsorted(pooled, limit)  # so many rows that score as the next one are within
        for seed in seeds:
            tie = int(np.searchsorted(seed.score, limit))
            clicks[i] += seed.hits[:tie].sum()
            if equal and tie < len(seed.score) and seed.score[tie] == limit:
                rows = np.flatnonzero(seed.tie == tie)[:equal]
                clicks[i] += seed.positive[rows].sum()
                equal -= len(rows)
    clicks[-1] = sum(seed.hits.sum() for seed in seeds)
    means = [part.astype(np.float64).mean() for part in parts]
    return np.array(means), np.diff(clicks, prepend=0) / [len(part) for part in parts]


def _sort(score: Array) -> tuple[Array, Array]:
    """Return the rows by ascending score, and their scores."""
    if score.dtype == np.float32 and not np.signbit(score).any():
        # the bits of such numbers rise with them, and values are sorted in half the time of positions
        keys = score.view(np.uint32).astype(np.int64) << 32
        keys |= np.arange(len(score))
        keys.sort()
        return keys & (2**32 - 1), (keys >> 32).astype(np.uint32).view(np.float32)
    order = np.argsort(score)
    return order, score[order]
