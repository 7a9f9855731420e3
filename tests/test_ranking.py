"""Ranks are counted once per prediction: the same bits as the metrics, and scikit-learn's curves."""

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from pipeline import metrics
from pipeline.evaluate import calibration
from pipeline.statistics.ranking import Ranking, reliability

CALIBRATIONS = [
    {"method": "none"},
    {"method": "platt", "slope": 0.3, "intercept": -1.1},
    {"method": "isotonic", "logit": [-2.0, 0.1, 3.0], "calibrated": [-1.0, -0.9999, 2.0]},
]


def drawn(
    kind: str, levels: int | None, rows: int = 3000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return labels, scores with ties (or without) and groups, some of which have one class."""
    rng = np.random.default_rng(seed)
    score = rng.random(rows)
    label = (rng.random(rows) < score).astype(np.uint8)
    if levels:
        score = np.round(score * levels) / levels
    return label, score.astype(kind), rng.integers(5, 5 + rows // 4, rows).astype(np.int32)


@pytest.mark.parametrize("kind", ["float32", "float64"])
@pytest.mark.parametrize("levels", [None, 1, 7, 500])
def test_what_is_counted_in_ranks_has_the_bits_of_the_metrics(kind: str, levels: int | None) -> None:
    label, score, group = drawn(kind, levels)
    ranking = Ranking.of(label, score)
    assert ranking.auc() == metrics.auc(label, score)
    assert ranking.group_auc(group) == metrics.group_auc(label, score, group)
    for fitted in CALIBRATIONS:
        calibrated = calibration.apply(fitted, calibration.logit(score))
        assert ranking.calibration_error(calibrated, 20) == metrics.calibration_error(label, calibrated, 20)
    np.testing.assert_array_equal(np.unique(score), ranking.score)
    np.testing.assert_array_equal(ranking.score[ranking.tie], score)


def test_scores_below_zero_and_both_zeros_are_ranked() -> None:
    label, score = np.array([0, 1, 0, 1, 1]), np.array([-3, -0.0, 0.0, -1, 2], np.float32)
    ranking = Ranking.of(label, score)
    assert ranking.auc() == metrics.auc(label, score)
    assert ranking.tie.tolist() == [0, 2, 2, 1, 3]


def test_a_group_without_both_classes_has_no_auc() -> None:
    ranking = Ranking.of(np.array([0, 1]), np.array([0.1, 0.2]))
    assert np.isnan(ranking.group_auc(np.array([0, 1])))


def test_the_roc_curve_is_the_interpolated_one() -> None:
    rng = np.random.default_rng(4)
    label, score = rng.integers(2, size=300), rng.integers(20, size=300) / 20
    fpr, tpr, _ = roc_curve(label, score, drop_intermediate=False)
    grid = np.linspace(0, 1, 50)
    np.testing.assert_allclose(Ranking.of(label, score).roc(grid), np.interp(grid, fpr, tpr))


def test_bins_of_the_reliability_curve_hold_equally_many_rows() -> None:
    probability = np.linspace(0, 1, 40, dtype=np.float32)[::-1]
    label = (probability > 0.5).astype(np.uint8)
    predicted, observed = reliability([Ranking.of(label, probability)], 4)
    np.testing.assert_allclose(predicted, [4.5 / 39, 14.5 / 39, 24.5 / 39, 34.5 / 39], rtol=1e-6)
    assert observed.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("levels", [None, 3, 40])
@pytest.mark.parametrize("rows", [5, 1000])
def test_equal_scores_are_binned_in_the_order_of_seeds_then_rows(levels: int | None, rows: int) -> None:
    label, first, _ = drawn("float32", levels, rows)
    second = first[::-1].copy()
    pooled = np.concatenate([first, second])
    order = np.argsort(pooled, kind="stable")
    parts = np.array_split(order, min(20, len(order)))
    predicted, observed = reliability([Ranking.of(label, first), Ranking.of(label, second)], 20)
    np.testing.assert_array_equal(predicted, [pooled[part].astype(np.float64).mean() for part in parts])
    np.testing.assert_array_equal(observed, [np.tile(label, 2)[part].mean() for part in parts])
