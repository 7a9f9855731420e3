"""Metrics against scikit-learn and against loops from their definitions."""

import math
from fractions import Fraction
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score

from pipeline import metrics

# Few distinct scores, so that ties are common.
scored = st.lists(st.tuples(st.integers(0, 1), st.integers(1, 9)), min_size=2, max_size=60)


def both_classes(rows: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    label, score = np.array([*rows, (0, 5), (1, 5)]).T
    return label, score / 10


@given(scored)
def test_auc_is_that_of_scikit_learn_ties_included(rows: list[tuple[int, int]]) -> None:
    label, score = both_classes(rows)
    assert metrics.auc(label, score) == pytest.approx(roc_auc_score(label, score), abs=1e-12)


@given(scored)
def test_auc_counts_pairs(rows: list[tuple[int, int]]) -> None:
    label, score = both_classes(rows)
    wins = [float(p > n) + 0.5 * float(p == n) for p in score[label == 1] for n in score[label == 0]]
    assert metrics.auc(label, score) == pytest.approx(np.mean(wins), abs=1e-12)
    assert metrics.auc(label, -score) == pytest.approx(1 - np.mean(wins), abs=1e-12)


@given(scored)
def test_auc_is_the_ratio_of_two_counts_to_the_last_bit(rows: list[tuple[int, int]]) -> None:
    label, score = both_classes(rows)
    high, low = score[label == 1], score[label == 0]
    twice_wins = int((high[:, None] > low).sum()) + int((high[:, None] >= low).sum())
    assert metrics.auc(label, score) == float(Fraction(twice_wins, 2 * len(high) * len(low)))


def test_auc_of_infinite_scores_and_of_both_zeros() -> None:
    label = np.array([0, 1, 0, 1, 1])
    assert metrics.auc(label, np.array([-np.inf, -0.0, 0.0, np.inf, np.inf])) == (1 + 0.5 + 4) / 6
    assert metrics.auc(label, np.full(5, np.inf)) == 0.5


@pytest.mark.parametrize("where", [0, 1, 2, 3])
def test_scores_that_are_no_numbers_have_no_auc(where: int) -> None:
    label, score = np.array([0, 1, 0, 1]), np.array([0.1, 0.9, 0.4, 0.3])
    score[where] = np.nan
    assert math.isnan(metrics.auc(label, score))


def test_auc_of_many_rows_in_every_type() -> None:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 50_000)
    score = (0.5 * label + rng.normal(size=50_000)).astype(np.float32)
    expected = roc_auc_score(label, score)
    for kind in (np.uint8, bool, np.float32, np.int64):
        assert metrics.auc(label.astype(kind), score) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_has_no_auc_and_no_entropy(label: int) -> None:
    one, probability = np.full(4, label), np.array([0.1, 0.2, 0.3, 0.4])
    assert math.isnan(metrics.auc(one, probability))
    assert math.isnan(metrics.normalised_entropy(one, probability))
    assert math.isnan(metrics.group_auc(one, probability, np.zeros(4)))


@given(scored)
def test_logloss_is_that_of_scikit_learn(rows: list[tuple[int, int]]) -> None:
    label, probability = both_classes(rows)
    assert metrics.logloss(label, probability) == pytest.approx(log_loss(label, probability), rel=1e-12)


def test_logloss_of_a_certain_mistake_is_finite() -> None:
    label, certain = np.array([1, 0], dtype=np.uint8), np.array([0, 1], dtype=np.float32)
    assert metrics.logloss(label, certain) == pytest.approx(-math.log(metrics.EPSILON))
    assert metrics.logloss(label, 1 - certain) == pytest.approx(0, abs=1e-6)


@given(scored)
def test_normalised_entropy_of_the_base_rate_is_one(rows: list[tuple[int, int]]) -> None:
    label, _ = both_classes(rows)
    assert metrics.normalised_entropy(label, np.full(len(label), label.mean())) == pytest.approx(1)


def test_normalised_entropy_of_a_perfect_prediction_is_zero() -> None:
    label = np.array([0, 1, 1])
    assert metrics.normalised_entropy(label, label.astype(float)) == pytest.approx(0, abs=1e-6)


@given(scored, st.randoms(use_true_random=False))
def test_group_auc_weighs_the_groups_by_their_rows(rows: list[tuple[int, int]], random: Random) -> None:
    label, score = both_classes(rows)
    group = np.array([random.randrange(5) for _ in label])
    total = weight = 0.0
    for g in set(group.tolist()):
        inside = group == g
        if len(set(label[inside].tolist())) == 2:
            total += inside.sum() * roc_auc_score(label[inside], score[inside])
            weight += inside.sum()
    result = metrics.group_auc(label, score, group)
    assert math.isnan(result) if weight == 0 else result == pytest.approx(total / weight, abs=1e-12)


def test_group_auc_ignores_an_offset_a_group() -> None:
    rng = np.random.default_rng(0)
    group = rng.integers(0, 20, 2000)
    label = rng.integers(0, 2, 2000)
    score = label + rng.normal(size=2000)
    shifted = score + 100 * group
    assert metrics.group_auc(label, shifted, group) == pytest.approx(metrics.group_auc(label, score, group))
    assert metrics.auc(label, shifted) < metrics.auc(label, score) - 0.1


def test_coverage_of_group_auc_is_the_share_of_rows_it_is_about() -> None:
    label = np.array([0, 1, 1, 1, 1, 0, 0, 0, 0, 1])
    group = np.array([7, 7, 7, 3, 3, 9, 9, 9, 9, 9])
    assert metrics.group_coverage(label, group) == 0.8  # user 3 always clicks
    assert metrics.group_coverage(label, np.arange(10)) == 0


def test_mean_prediction_ratio_is_one_at_the_base_rate() -> None:
    label = np.array([0, 0, 0, 1])
    assert metrics.mean_prediction_ratio(label, np.full(4, 0.25)) == 1
    assert metrics.mean_prediction_ratio(label, np.array([0.5, 0.1, 0.1, 0.5], np.float32)) == pytest.approx(
        1.2
    )
    assert math.isnan(metrics.mean_prediction_ratio(np.zeros(4), np.full(4, 0.25)))


def test_calibration_error_of_a_calibrated_prediction_is_zero() -> None:
    """Ten rows of each probability k/10, of which k are positive."""
    probability = np.repeat(np.arange(11) / 10, 10)
    label = np.concatenate([np.arange(10) < k for k in range(11)])
    assert metrics.calibration_error(label, probability, bins=11) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("shift", [0.05, -0.05])
def test_calibration_error_of_a_shifted_prediction_is_the_shift(shift: float) -> None:
    probability = np.repeat(np.arange(1, 10) / 10, 10)
    label = np.concatenate([np.arange(10) < k for k in range(1, 10)])
    assert metrics.calibration_error(label, probability + shift, bins=9) == pytest.approx(abs(shift))


def test_calibration_error_of_many_rows() -> None:
    rng = np.random.default_rng(0)
    probability = rng.uniform(size=200_000)
    label = rng.uniform(size=200_000) < probability
    assert metrics.calibration_error(label, probability) < 0.005
    assert metrics.calibration_error(label, probability**2) > 0.1


def test_calibration_bins_hold_equally_many_rows() -> None:
    rng = np.random.default_rng(0)
    probability, label = rng.permutation(np.linspace(0, 1, 100)), rng.integers(0, 2, 100)
    order = np.argsort(probability)
    gaps = [abs((probability - label)[order[i : i + 20]].mean()) for i in range(0, 100, 20)]
    assert metrics.calibration_error(label, probability, bins=5) == pytest.approx(np.mean(gaps))


@given(scored, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_decides_nothing(rows: list[tuple[int, int]], random: Random) -> None:
    label, probability = both_classes(rows)
    order = list(range(len(label)))
    random.shuffle(order)
    group = np.arange(len(label)) % 3
    for metric in (metrics.auc, metrics.logloss, metrics.normalised_entropy, metrics.calibration_error):
        assert metric(label[order], probability[order]) == pytest.approx(metric(label, probability))
    assert metrics.group_auc(label[order], probability[order], group[order]) == pytest.approx(
        metrics.group_auc(label, probability, group), nan_ok=True
    )


def test_a_constant_prediction_is_calibrated_at_the_base_rate() -> None:
    label = np.r_[np.ones(30), np.zeros(70)]
    assert metrics.calibration_error(label, np.full(100, 0.3)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("value", "baseline", "expected"),
    [(0.8, 0.8, 0.0), (0.65, 0.6, 0.5), (0.5, 0.7, -1.0), (0.775, 0.75, 0.1)],
)
def test_relative_improvement_counts_from_the_coin(value: float, baseline: float, expected: float) -> None:
    assert metrics.relative_improvement(value, baseline) == pytest.approx(expected)


@pytest.mark.parametrize("baseline", [0.5, 0.4])
def test_there_is_no_improvement_over_less_than_a_coin(baseline: float) -> None:
    assert math.isnan(metrics.relative_improvement(0.7, baseline))
