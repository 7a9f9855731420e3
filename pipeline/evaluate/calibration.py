"""From a model's logits to probabilities that can be trusted: fitted on validation rows, nothing else.

A calibration is a small JSON object that a package of a model carries, too:

    {"method": "none"}
    {"method": "temperature", "temperature": T}                  sigmoid(logit / T)
    {"method": "platt", "slope": a, "intercept": b}              sigmoid(a * logit + b)
    {"method": "isotonic", "logit": [...], "calibrated": [...]}  a rising line through points, in logits

All are rising, so the order of rows stays as the model ranks them. `negatives_kept` beside them is the share
of the rows without a click that the log kept: `apply` undoes that last.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from pipeline import metrics
from pipeline.metrics import EPSILON, Array
from pipeline.statistics import chance

Calibration = dict[str, Any]
COLDEST, HOTTEST = 0.01, 100.0
FLATTEST = 1 / HOTTEST  # slope of Platt's line
LIMIT = float(special.logit(1 - EPSILON))  # of logits, as of probabilities in the logloss
FOLDS = 5
MOST_POINTS = 50  # of the isotonic line
MOST_ROWS = 200_000  # to fit on: a parameter fitted on n rows costs 1 / 2n nats a row
TOLERANCE = 0.1  # of the mean prediction around the base rate


@dataclass(frozen=True)
class Validation:
    """What the probabilities of one training are like on the validation rows.

    Attributes:
        calibration: see `fit`.
        normalised_entropy: above 1, the base rate itself would have been the better prediction.
        mean_prediction_ratio: mean prediction over base rate.
        noise: standard deviation of that ratio for a model whose probabilities are right.
    """

    calibration: Calibration
    normalised_entropy: float
    mean_prediction_ratio: float
    noise: float


def validate(label: Array, probability: Array) -> Validation:
    """Measure predictions of the validation rows; both (N,), with both classes."""
    p = np.asarray(probability, dtype=np.float64)
    rows = np.arange(len(p))
    if len(p) > MOST_ROWS:
        rows = np.arange(MOST_ROWS) * len(p) // MOST_ROWS  # evenly spaced
    return Validation(
        fit(np.asarray(label)[rows], logit(p[rows])),
        metrics.normalised_entropy(label, p),
        metrics.mean_prediction_ratio(label, p),
        chance.mean_prediction_ratio(float(np.sum(p * (1 - p))), float(np.sum(label))),
    )


def logit(probability: Array) -> Array:
    """Return the logits (N,) float64 of probabilities, as far from 0 and 1 as the logloss keeps them."""
    result: Array = special.logit(np.clip(np.asarray(probability, dtype=np.float64), EPSILON, 1 - EPSILON))
    return result


def apply(calibration: Calibration, logits: Array) -> Array:
    """Return the calibrated probabilities (N,) float64 of a model's logits (N,)."""
    z = np.clip(np.asarray(logits, dtype=np.float64), -LIMIT, LIMIT)
    match calibration["method"]:
        case "temperature":
            z = z / calibration["temperature"]
        case "platt":
            z = calibration["slope"] * z + calibration["intercept"]
        case "isotonic":
            x, y = np.array(calibration["logit"]), np.array(calibration["calibrated"])
            inside = np.clip(z, x[0], x[-1])
            z = np.interp(inside, x, y) + (z - inside)  # beyond its ends the line goes on with slope 1
        case method:
            assert method == "none", method
    result: Array = special.expit(z + np.log(calibration.get("negatives_kept", 1.0)))
    return result


def with_negatives_kept(calibration: Calibration, share: float) -> Calibration:
    """Add the correction for a log that kept only a share of its rows without a click.

    A probability q there is q / (q + (1 - q) / share) where all are kept. Source: He et al., "Practical
    Lessons from Predicting Clicks on Ads at Facebook", ADKDD 2014, section 6.3 (w).
    """
    return {**calibration, "negatives_kept": share} if share != 1 else calibration


def fit(label: Array, logits: Array) -> Calibration:
    """Return the best of no calibration, temperature, Platt and isotonic, fitted on rows (N,).

    The best by logloss on rows left out, in five folds of every fifth row. A method with more parameters is
    taken only if it gains more than one standard error over the one before.
    """
    y = np.asarray(label, dtype=np.float64)
    z = np.clip(np.asarray(logits, dtype=np.float64), -LIMIT, LIMIT)
    if min(y.sum(), len(y) - y.sum()) < chance.FEW:
        return {"method": "none"}
    fold = np.arange(len(y)) % FOLDS
    best, least = METHODS[0], np.empty(0)
    for method in METHODS:
        loss = np.empty(len(y))
        for k in range(FOLDS):
            out = fold == k
            loss[out] = metrics.losses(y[out], apply(method(y[~out], z[~out]), z[out]))
        gain = least - loss if len(least) else np.zeros(1)
        if not len(least) or gain.mean() > gain.std() / np.sqrt(len(y)):
            best, least = method, loss
    return best(y, z)


def none(label: Array, logits: Array) -> Calibration:  # noqa: ARG001 (the signature of all methods)
    """Return the calibration that changes nothing."""
    return {"method": "none"}


def temperature(label: Array, logits: Array) -> Calibration:
    """Return the T whose sigmoid(logit / T) has the least logloss, between 0.01 and 100.

    Above 1 the model was over-confident. The logloss is convex in 1 / T, so its slope has one zero. Source:
    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
    """
    from scipy.optimize import brentq

    def slope(inverse: float) -> float:
        return float(np.mean(logits * (special.expit(inverse * logits) - label)))

    low, high = 1 / HOTTEST, 1 / COLDEST
    if slope(low) >= 0:
        found = HOTTEST if np.any(logits) else 1.0  # all at one half: any temperature does
    else:
        found = 1 / float(brentq(slope, low, high)) if slope(high) > 0 else COLDEST
    return {"method": "temperature", "temperature": found}


def platt(label: Array, logits: Array) -> Calibration:
    """Return slope and intercept of a logistic regression on the logit (its penalty is next to none).

    Its targets are drawn in from 0 and 1, so that the optimum is finite. Where a model ranks at random or
    worse, the slope stays slightly above 0, so that no order turns round. Source: Platt, "Probabilistic
    Outputs for Support Vector Machines", 1999.
    """
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    clicks, rows = label.sum(), len(label)
    target = np.where(label > 0.5, (clicks + 1) / (clicks + 2), 1 / (rows - clicks + 2))
    with threadpool_limits(1):  # the same bits on any number of cores
        line = LogisticRegression(C=1e3, solver="newton-cholesky", tol=1e-8).fit(
            np.tile(logits, 2)[:, None],
            np.repeat([1, 0], rows),
            sample_weight=np.concatenate([target, 1 - target]),
        )
    slope, intercept = float(line.coef_[0, 0]), float(line.intercept_[0])
    if slope < FLATTEST:
        slope, intercept = FLATTEST, float(special.logit(target.mean()) - FLATTEST * logits.mean())
    return {"method": "platt", "slope": slope, "intercept": intercept}


def isotonic(label: Array, logits: Array) -> Calibration:
    """Return a rising line through the click rates of at most 50 bins of equally many rows.

    The flat parts of isotonic regression become their centres, since rows of one flat part would no longer be
    ranked; each bin's rate has one more row, of the base rate, so that none is 0 or 1. Sources: Zadrozny and
    Elkan, KDD 2002; Oron and Flournoy, "Centered Isotonic Regression", 2017.
    """
    from sklearn.isotonic import IsotonicRegression

    inner = np.quantile(logits, np.linspace(0, 1, min(MOST_POINTS, int(np.sqrt(len(logits)))) + 1)[1:-1])
    part = np.searchsorted(np.unique(inner), logits)  # equal logits share a bin
    bins, part = np.unique(part, return_inverse=True)
    rows = np.bincount(part).astype(np.float64)
    rate = (np.bincount(part, label) + label.mean()) / (rows + 1)
    level, of_bin = np.unique(
        IsotonicRegression().fit_transform(np.arange(len(bins)), rate, sample_weight=rows),
        return_inverse=True,
    )
    centre = np.bincount(of_bin, np.bincount(part, logits)) / np.bincount(of_bin, rows)
    return {"method": "isotonic", "logit": centre.tolist(), "calibrated": special.logit(level).tolist()}


METHODS: tuple[Callable[[Array, Array], Calibration], ...] = (none, temperature, platt, isotonic)


def complaint(seeds: list[Validation]) -> str | None:
    """Return what is wrong with the probabilities of one model, by the means over its seeds; None if nothing.

    The mean prediction is wrong if it is off the base rate by more than a tenth, and by more than two
    standard deviations of what few clicks do by chance.
    """
    entropy = float(np.mean([seed.normalised_entropy for seed in seeds]))
    ratio = float(np.mean([seed.mean_prediction_ratio for seed in seeds]))
    noise = float(np.mean([seed.noise for seed in seeds]))
    found = [f"NE {entropy:.3f}"] if entropy > 1 else []
    if abs(ratio - 1) > max(TOLERANCE, 2 * noise):
        found.append(f"mean prediction {ratio:.2f} times the base rate")
    return ", ".join(found) or None
