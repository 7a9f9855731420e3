"""Metrics of predictions: pure functions on arrays.

`label` holds 0 and 1, `probability` numbers in [0, 1]; both have shape (N,). Everything is computed in
float64.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
EPSILON = 1e-7  # probabilities are kept this far from 0 and 1 in the logloss


def auc(label: Array, score: Array) -> float:
    """Area under the ROC curve: the chance that a positive row scores above a negative one.

    Exact, counted in integers; ties count one half (Mann-Whitney U; FLSEST eq. 19). NaN if there is only
    one class, or a score is NaN.
    """
    positive, score = np.asarray(label) > 0.5, np.asarray(score)
    # sorting values takes a fifth of the time of a stable argsort
    high, low = np.sort(score[positive]), np.sort(score[~positive])
    if not len(high) or not len(low) or np.isnan(high[-1]) or np.isnan(low[-1]):  # NaNs are sorted last
        return float("nan")
    below, not_above = low.searchsorted(high).sum(), low.searchsorted(high, "right").sum()
    return int(below + not_above) / (2 * len(high) * len(low))


def logloss(label: Array, probability: Array) -> float:
    """Mean binary cross-entropy in nats (FLSEST eq. 20, FiiNet eq. 9)."""
    p = np.clip(np.asarray(probability, dtype=np.float64), EPSILON, 1 - EPSILON)
    y = np.asarray(label, dtype=np.float64)
    return float(-np.mean(y * np.log(p) + (1 - y) * np.log1p(-p)))


def losses(label: Array, probability: Array) -> Array:
    """Logloss of each row, (N,)."""
    p = np.clip(np.asarray(probability, np.float64), EPSILON, 1 - EPSILON)
    result: Array = -np.log(np.where(np.asarray(label) > 0.5, p, 1 - p))
    return result


def normalised_entropy(label: Array, probability: Array) -> float:
    """Logloss over the entropy of the base rate: 1 is what a constant reaches, 0 is perfect.

    NaN if there is only one class: that entropy is 0.

    Source: He et al., "Practical Lessons from Predicting Clicks on Ads at Facebook", ADKDD 2014.
    """
    rate = float(np.mean(label))
    if not 0 < rate < 1:
        return float("nan")
    return logloss(label, probability) / logloss(label, np.full(len(label), rate))


def group_auc(label: Array, score: Array, group: Array) -> float:
    """AUC within each group (user), averaged with the group's rows as weights.

    Groups with one class are left out; NaN if no group has both, or a score is NaN. Source: Zhou et al.,
    "Deep Interest Network", KDD 2018, eq. 6 (GAUC).
    """
    score, group = np.asarray(score), np.asarray(group)
    order = np.lexsort((score, group))
    score, group, positive = score[order], group[order], np.asarray(label)[order] > 0.5
    if not len(score) or np.isnan(score).any():
        return float("nan")
    other = np.r_[True, group[1:] != group[:-1]]
    ties = np.flatnonzero(np.r_[True, score[1:] != score[:-1]] | other)  # where equal scores of a group begin
    first = np.flatnonzero(other[ties])  # of each group, among the ties
    hits = np.add.reduceat(positive, ties, dtype=np.int64)
    misses = np.diff(np.r_[ties, len(score)]) - hits
    below = np.cumsum(misses) - misses
    below -= np.repeat(below[first], np.diff(np.r_[first, len(ties)]))  # in their own group
    wins = np.add.reduceat(hits * (2 * below + misses), first)
    positives, negatives = np.add.reduceat(hits, first), np.add.reduceat(misses, first)
    both = (positives > 0) & (negatives > 0)
    rows = (positives + negatives)[both]
    aucs = wins[both] / (2 * positives * negatives)[both]
    # in order, not pairwise: the bits do not depend on how numpy adds
    return float(np.cumsum(aucs * rows)[-1]) / int(rows.sum()) if both.any() else float("nan")


def group_coverage(label: Array, group: Array) -> float:
    """Share of the rows that `group_auc` is about: those of groups with both classes."""
    number = np.unique(group, return_inverse=True)[1]
    rows, positives = np.bincount(number), np.bincount(number, np.asarray(label, dtype=np.float64))
    return float(rows[(positives > 0) & (positives < rows)].sum() / len(number))


def mean_prediction_ratio(label: Array, probability: Array) -> float:
    """Mean prediction over base rate, 1 at best: what He et al. (ADKDD 2014) call calibration.

    NaN without a positive row.
    """
    rate = float(np.mean(label))
    return float(np.mean(probability, dtype=np.float64)) / rate if rate else float("nan")


def calibration_error(label: Array, probability: Array, bins: int = 20) -> float:
    """Expected calibration error over `bins` bins with equal numbers of rows.

    The mean, weighted by rows, of |mean probability - share of positives| within a bin. Rows of
    equal probability share a bin, so their order does not matter. Source: Naeini et al.,
    "Obtaining Well Calibrated Probabilities Using Bayesian Binning", AAAI 2015.
    """
    gap = np.asarray(probability, dtype=np.float64) - np.asarray(label, dtype=np.float64)
    bin_of_row = ((_rank(probability) - 0.5) * bins / len(gap)).astype(np.int64)
    return float(np.abs(np.bincount(bin_of_row, weights=gap)).sum() / len(gap))


def relative_improvement(value: float, baseline: float) -> float:
    """RelaImpr: the relative gain in AUC over a baseline, both above the 0.5 of random scores.

    (value - 0.5) / (baseline - 0.5) - 1; NaN if the baseline is no better than random. Source:
    Shen et al., "Warm Up Cold-start Advertisements", SIGIR 2015; Zhou et al., KDD 2018, eq. 7.
    """
    return (value - 0.5) / (baseline - 0.5) - 1 if baseline > 0.5 else float("nan")


def _rank(score: Array) -> Array:
    """Return the ranks 1 to N in ascending order; rows of equal score share the mean of their ranks."""
    order = np.argsort(score)  # in any order among equals
    ranked = np.asarray(score)[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    ends = np.r_[starts[1:], len(ranked)]
    rank = np.empty(len(ranked))
    rank[order] = np.repeat((starts + 1 + ends) / 2, ends - starts)
    return rank
