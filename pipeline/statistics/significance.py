"""How far a difference in test AUC may be chance: of the test rows, of the training, of the split.

An AUC has two kinds of error that one evaluation can see. Other test rows would give another AUC; rows of one
user are alike, so users are drawn, not rows. And another seed would give another model. Both are in every
interval here. What no interval here covers: that items are shared between users, other hyper-parameters, and
another log.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from pipeline.metrics import Array
from pipeline.statistics.ranking import Ranking

LEVEL = 0.05
Test = dict[str, float]  # difference, low and high of its 95 % interval, two-sided p


@dataclass(frozen=True)
class Estimate:
    """The mean AUC of some trainings on the same test rows, with the parts of its error.

    Attributes:
        auc: mean over the seeds.
        positive, negative: what the positive and the negative rows of each cluster add to the error, (G,); a
            row is its own cluster where rows have no group.
        clusters: how many have positive rows, how many negative ones, and how many there are.
        variance_of_seeds: of the mean, s^2 / n; None with one seed.
        seeds: how many.
    """

    auc: float
    positive: Array
    negative: Array
    clusters: tuple[int, int, int]
    variance_of_seeds: float | None
    seeds: int

    @property
    def row_error(self) -> float:
        """Standard error by the test rows alone."""
        return math.sqrt(_variance(self.positive, self.negative, self.clusters))

    @property
    def error(self) -> float:
        """Standard error by test rows and seeds (by the rows alone with one seed)."""
        return math.hypot(self.row_error, math.sqrt(self.variance_of_seeds or 0))

    def interval(self) -> tuple[float, float]:
        """Return the ends of the 95 % interval of the AUC."""
        test = _welch(self.auc, [(self.row_error**2, _freedom(self)), _seeds(self)])
        return test["low"], test["high"]


def estimate(label: Array, scores: Sequence[Array], group: Array | None = None) -> Estimate:
    """Return the mean AUC of several scores (N,) of the same rows, with its error: see `estimate_ranked`."""
    return estimate_ranked((Ranking.of(label, score) for score in scores), group)


def estimate_ranked(seeds: Iterable[Ranking], group: Array | None = None) -> Estimate:
    """Return the mean AUC of several rankings of the same rows, with its error.

    The components of AUC are the placements of DeLong et al. ("Comparing the Areas under Two or More
    Correlated ROC Curves", Biometrics 44, 1988, eq. 3-4): for each positive row the share of negative rows
    that score below it, for each negative row the share of positive rows above it, a tie counting one half.
    Rows of a group are summed, since only groups are independent (Obuchowski, "Nonparametric Analysis of
    Clustered ROC Curve Data", Biometrics 53, 1997); without groups this is DeLong's estimate, to the digit.

    Args:
        seeds: one a seed, of at least two rows of each label.
        group: code of each row's group, (N,) integers from 0, not all of which need occur; at least two
            groups with positive rows and two with negative ones (see `clusters`).
    """
    aucs: list[float] = []
    total: Array = np.zeros(())
    for seed in seeds:
        placed, positive = seed.placements(), seed.positive
        total = total + placed
        aucs.append(float(placed[positive].mean()))
    auc, mean = float(np.mean(aucs)), total / len(aucs)
    above, below = mean[positive] - auc, mean[~positive] - auc
    number = np.arange(len(positive)) if group is None else group
    size = int(number.max()) + 1
    counts = [np.bincount(number[which], minlength=size) for which in (positive, ~positive)]
    return Estimate(
        auc,
        np.bincount(number[positive], above, size) / len(above),
        np.bincount(number[~positive], below, size) / len(below),
        (int((counts[0] > 0).sum()), int((counts[1] > 0).sum()), int((counts[0] + counts[1] > 0).sum())),
        float(np.var(aucs, ddof=1)) / len(aucs) if len(aucs) > 1 else None,
        len(aucs),
    )


def clusters(label: Array, group: Array | None) -> int | None:
    """Return the number of groups, or None where errors cannot be clustered by them.

    That is: there are none, or all positive or all negative rows are of one group.
    """
    if group is None:
        return None
    counts = [np.bincount(group[label == value], minlength=int(group.max()) + 1) for value in (0, 1)]
    kinds = [np.count_nonzero(count) for count in counts]
    return int(np.count_nonzero(counts[0] + counts[1])) if min(kinds) > 1 else None


def compare(first: Estimate, second: Estimate) -> Test:
    """Compare two mean AUCs on the same test rows: difference, 95 % interval and two-sided p.

    The variance is that of the paired placements plus s^2 / n of either side, since each training is a draw
    of its own: what the same seed draws in another model is unrelated. t with Satterthwaite's degrees of
    freedom. Equal scores (a search that kept the default) differ by nothing: p is 1 and the interval is a
    point.
    """
    assert first.clusters == second.clusters, "not the same rows"
    difference, rows = first.auc - second.auc, _paired_variance(first, second)
    if difference == rows == 0:
        return {"difference": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}
    return _welch(difference, [(rows, _freedom(first)), _seeds(first), _seeds(second)])


def error_of_difference(first: Estimate, second: Estimate) -> float:
    """Return the standard error of a difference of two mean AUCs on the same rows: see `compare`."""
    seeds = _seeds(first)[0] + _seeds(second)[0]
    return math.sqrt(_paired_variance(first, second) + seeds)


def error_of_mean(values: Array, group: Array | None = None) -> float:
    """Return the standard error of the mean of values (N,) of rows.

    Args:
        group: code of each row's group, (N,) integers from 0: groups are independent, and not their rows.
    """
    apart = np.asarray(values, dtype=np.float64) - np.mean(values)
    if group is not None:
        apart = np.bincount(group, apart)[np.unique(group)]
    return math.sqrt(len(apart) / (len(apart) - 1) * float(apart @ apart)) / len(values)


def holm(p: Sequence[float]) -> list[float]:
    """Return p values that are corrected for their number (Holm 1979).

    Calling those below 5 % significant errs anywhere among them in at most 5 % of all cases, however they
    depend on each other. Source: Holm, "A Simple Sequentially Rejective Multiple Test Procedure",
    Scandinavian Journal of Statistics 6, 1979.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p, kind="stable")
    steps = np.asarray(p)[order] * np.arange(len(p), 0, -1)
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return [float(value) for value in corrected]


def error_by_counts(auc: float, clicks: int, others: int) -> float:
    """Return the standard error of an AUC that only the numbers of rows are known of.

    Source: Hanley and McNeil, "The Meaning and Use of the Area under a ROC Curve", Radiology 143, 1982; its
    Q1 and Q2 are those of exponentially distributed scores.
    """
    first, second = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    spread = (clicks - 1) * (first - auc**2) + (others - 1) * (second - auc**2)
    return math.sqrt((auc * (1 - auc) + spread) / (clicks * others))


def corrected_resampled_t(differences: Sequence[float], test_train_ratio: float) -> Test:
    """Compare two models over several random splits of one dataset: mean difference, 95 % interval and p.

    Splits share rows, so their differences are not independent, and a plain t-test finds far too much. The
    correction takes the ratio of test to train rows for their correlation: the variance of the mean of J
    differences is (1 / J + ratio) times that of a difference; t with J - 1 degrees of freedom. Source: Nadeau
    and Bengio, "Inference for the Generalization Error", Machine Learning 52, 2003.

    Args:
        differences: first minus second model, one a split, at least two.
        test_train_ratio: test rows over train rows, such as 20 / 72.
    """
    assert len(differences) > 1, "one split has no variance"
    values = np.asarray(differences, dtype=np.float64)
    variance = (1 / len(values) + test_train_ratio) * float(values.var(ddof=1))
    return _t_test(float(values.mean()), math.sqrt(variance), len(values) - 1)


def _welch(difference: float, parts: Sequence[tuple[float, int]]) -> Test:
    """Test with a variance that is a sum of independent ones, each with its degrees of freedom."""
    variance = sum(part for part, _ in parts)
    spread = sum(part**2 / freedom for part, freedom in parts)
    return _t_test(difference, math.sqrt(variance), variance**2 / spread if spread else 1)


def _t_test(difference: float, error: float, freedom: float) -> Test:
    """Difference, 95 % interval and two-sided p by Student's t."""
    if not error:
        return {"difference": difference, "low": difference, "high": difference, "p": float(difference == 0)}
    reach = float(special.stdtrit(freedom, 1 - LEVEL / 2)) * error
    p = 2 * float(special.stdtr(freedom, -abs(difference) / error))
    return {"difference": difference, "low": difference - reach, "high": difference + reach, "p": p}


def _paired_variance(first: Estimate, second: Estimate) -> float:
    """The variance of a difference by the rows, from paired placements."""
    return _variance(first.positive - second.positive, first.negative - second.negative, first.clusters)


def _variance(positive: Array, negative: Array, clusters: tuple[int, int, int]) -> float:
    """Obuchowski's S10 / M + S01 / N + 2 S11 / (M N), from sums over the clusters."""
    small = [count / (count - 1) for count in clusters]
    return float(
        small[0] * positive @ positive + small[1] * negative @ negative + small[2] * 2 * (positive @ negative)
    )


def _freedom(value: Estimate) -> int:
    """Degrees of freedom of the variance by rows: clusters of the rarer kind, less one."""
    return min(value.clusters) - 1


def _seeds(value: Estimate) -> tuple[float, int]:
    """The variance of the mean over seeds and its degrees of freedom; no variance with one seed."""
    return value.variance_of_seeds or 0.0, max(value.seeds - 1, 1)
