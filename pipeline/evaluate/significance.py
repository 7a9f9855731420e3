"""Sampling error of the test rows: standard errors of AUC, and the paired test of DeLong et al."""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from scipy import special

from pipeline.metrics import Array

Placements = tuple[Array, Array]  # of the P positives and of the N negatives


def placements(label: Array, scores: Sequence[Array]) -> Placements:
    """Return the structural components of AUC: (P,) for the positives and (N,) for the negatives.

    For each positive row the share of negative rows that score below it, for each negative row the share
    of positive rows above it, a tie counting one half; both have AUC as their mean. Several scores (one
    per seed) give the components of the mean of their AUCs. Source: DeLong et al., "Comparing the Areas
    under Two or More Correlated ROC Curves", Biometrics 44, 1988, eq. 3-4.
    """
    positive = np.asarray(label) > 0.5
    above, below = np.zeros(positive.sum()), np.zeros((~positive).sum())
    for score in scores:
        x, y = score[positive], score[~positive]
        above += _count_below(np.sort(y), x) / len(y)
        below += 1 - _count_below(np.sort(x), y) / len(x)
    return above / len(scores), below / len(scores)


def standard_error(components: Placements) -> float:
    """Standard error of AUC as the mean of its structural components."""
    return math.sqrt(sum(float(part.var(ddof=1)) / len(part) for part in components))


def delong(first: Placements, second: Placements) -> dict[str, float]:
    """Compare two AUCs on the same test rows: difference, 95 % interval and two-sided p.

    The paired test of DeLong et al. 1988. It covers the sampling of the test rows, taken as independent,
    and not the variation of the training over seeds.
    """
    gap = first[0] - second[0], first[1] - second[1]
    difference, error = float(gap[0].mean()), standard_error(gap)
    reach = NormalDist().inv_cdf(0.975) * error
    p = math.erfc(abs(difference) / error / math.sqrt(2)) if error else float(difference == 0)
    return {"difference": difference, "low": difference - reach, "high": difference + reach, "p": p}


def corrected_resampled_t(differences: Sequence[float], test_train_ratio: float) -> dict[str, float]:
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
    error = math.sqrt((1 / len(values) + test_train_ratio) * float(values.var(ddof=1)))
    return _t_test(float(values.mean()), error, len(values) - 1)


def _t_test(difference: float, error: float, freedom: float) -> dict[str, float]:
    """Difference, 95 % interval and two-sided p by Student's t."""
    if not error:
        return {"difference": difference, "low": difference, "high": difference, "p": float(difference == 0)}
    reach = float(special.stdtrit(freedom, 0.975)) * error
    p = 2 * float(special.stdtr(freedom, -abs(difference) / error))
    return {"difference": difference, "low": difference - reach, "high": difference + reach, "p": p}


def _count_below(ordered: Array, values: Array) -> Array:
    """How many of `ordered` are below each value; equal ones count one half."""
    return (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")) / 2
