"""The metrics by their names: what people call them, whether more is better, the best of a training."""

from collections.abc import Sequence
from typing import Literal

Metric = Literal["auc", "logloss"]  # that a search and a training can go by
NAMES = {"auc": "AUC", "logloss": "logloss", "gauc": "gAUC", "normalised_entropy": "NE", "ece": "ECE"}


def sign(metric: str) -> int:
    """Return 1 if more of a metric is better, -1 if less is.

    >>> {metric: sign(metric) for metric in NAMES}
    {'auc': 1, 'logloss': -1, 'gauc': 1, 'normalised_entropy': -1, 'ece': -1}
    """
    return 1 if metric in ("auc", "gauc") else -1


def best_row(curve: Sequence[dict[str, float]], metric: str) -> dict[str, float] | None:
    """Return the best evaluation of a training by a metric of validation rows, the first of equals.

    >>> best_row([{"epoch": 1, "valid_logloss": 0.5}, {"epoch": 2, "valid_logloss": 0.6}], "logloss")
    {'epoch': 1, 'valid_logloss': 0.5}
    """
    return max(curve, key=lambda row: sign(metric) * row[f"valid_{metric}"], default=None)


def reached(value: float | None, curve: Sequence[dict[str, float]], metric: str) -> float | None:
    """Return the value of a complete trial; of another one the best that it had reached when it ended.

    >>> reached(0.7, [], "auc"), reached(None, [{"valid_auc": 0.6}, {"valid_auc": 0.5}], "auc")
    (0.7, 0.6)
    """
    best = best_row(curve, metric) if value is None else None
    return value if best is None else best[f"valid_{metric}"]
