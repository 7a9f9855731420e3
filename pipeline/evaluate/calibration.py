"""Probabilities on validation rows: one temperature that mends them, and whether to trust them at all."""

from dataclasses import dataclass

import numpy as np
from scipy import special

from pipeline import metrics
from pipeline.metrics import EPSILON, Array

COLDEST, HOTTEST = 0.01, 100.0
TOLERANCE = 0.1  # of the mean prediction around the base rate


@dataclass(frozen=True)
class Validation:
    """What the probabilities of one training are like on the validation rows.

    Attributes:
        temperature: see `fit_temperature`.
        normalised_entropy: above 1, the base rate itself would have been the better prediction.
        mean_prediction_ratio: mean prediction over base rate.
        noise: standard deviation of that ratio for a model whose probabilities are right.
    """

    temperature: float
    normalised_entropy: float
    mean_prediction_ratio: float
    noise: float


def validate(label: Array, probability: Array) -> Validation:
    """Measure predictions of the validation rows; both (N,), with both classes."""
    p = np.asarray(probability, dtype=np.float64)
    return Validation(
        fit_temperature(label, p),
        metrics.normalised_entropy(label, p),
        metrics.mean_prediction_ratio(label, p),
        float(np.sqrt(np.sum(p * (1 - p))) / np.sum(label)),
    )


def fit_temperature(label: Array, probability: Array) -> float:
    """Return the T whose sigmoid(logit / T) has the least logloss, between 0.01 and 100.

    Above 1 the model was over-confident. The order of rows, and so every AUC, stays. The logloss is convex in
    1 / T, so its slope has one zero. Source: Guo et al., "On Calibration of Modern Neural Networks", ICML
    2017.
    """
    from scipy.optimize import brentq

    z, y = _logit(probability), np.asarray(label, dtype=np.float64)

    def slope(inverse: float) -> float:
        return float(np.mean(z * (special.expit(inverse * z) - y)))

    low, high = 1 / HOTTEST, 1 / COLDEST
    if slope(low) >= 0:
        return HOTTEST if z.any() else 1.0  # all at one half: any temperature does
    return 1 / float(brentq(slope, low, high)) if slope(high) > 0 else COLDEST


def tempered(probability: Array, temperature: float) -> Array:
    """Return the probabilities (N,) at a temperature, in float64."""
    result: Array = special.expit(_logit(probability) / temperature)
    return result


def _logit(probability: Array) -> Array:
    result: Array = special.logit(np.clip(np.asarray(probability, dtype=np.float64), EPSILON, 1 - EPSILON))
    return result


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
