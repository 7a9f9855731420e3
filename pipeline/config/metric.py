"""The metrics by their names: what people call them, and whether more of one is better."""

from typing import Literal

Metric = Literal["auc", "logloss"]  # that a search and a training can go by
NAMES = {"auc": "AUC", "logloss": "logloss", "gauc": "gAUC", "normalised_entropy": "NE", "ece": "ECE"}


def sign(metric: str) -> int:
    """Return 1 if more of a metric is better, -1 if less is.

    >>> {metric: sign(metric) for metric in NAMES}
    {'auc': 1, 'logloss': -1, 'gauc': 1, 'normalised_entropy': -1, 'ece': -1}
    """
    return 1 if metric in ("auc", "gauc") else -1
