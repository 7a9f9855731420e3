"""How far off a model looks by chance alone, though its probabilities are right."""

import math
from typing import NamedTuple

import numpy as np

from pipeline.metrics import Array

FEW = 20  # rows of a class: fewer tell nothing of probabilities, and give no AUC, nor error of one, to trust
SURPRISING = 3.0  # standard deviations above the mean: many models are looked at, and rows are alike


class Chance(NamedTuple):
    """Mean and standard deviation of a calibration error."""

    mean: float
    std: float

    @property
    def most(self) -> float:
        """What chance hardly exceeds."""
        return self.mean + SURPRISING * self.std


def calibration_error(predicted: Array, rows: int) -> Chance:
    """Return what the ECE of a model is whose probabilities are right, all rows independent.

    The click rate of a bin of n rows is off by a normal deviate of variance p (1 - p) / n; the absolute value
    of a standard one has mean sqrt(2 / pi) and variance 1 - 2 / pi.

    Args:
        predicted: mean probability of each bin (B,), of equally many rows.
        rows: in all bins together.
    """
    variance = predicted * (1 - predicted) * len(predicted) / rows
    mean = np.sqrt(2 / np.pi) * np.mean(np.sqrt(variance))
    return Chance(float(mean), float(np.sqrt((1 - 2 / np.pi) * variance.sum()) / len(predicted)))


def mean_prediction_ratio(variance: float, clicks: float) -> float:
    """Return the standard deviation of mean prediction over base rate, of a model that is right.

    Args:
        variance: of the number of clicks: the sum of p (1 - p) over the rows.
        clicks: their number.
    """
    return math.sqrt(variance) / clicks
