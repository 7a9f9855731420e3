import numpy as np
import pytest
from scipy import stats

from pipeline.evaluate.significance import corrected_resampled_t


def test_without_shared_rows_the_corrected_test_is_students() -> None:
    gaps = [0.004, 0.001, 0.003, -0.001, 0.002]
    ours, plain = corrected_resampled_t(gaps, 0), stats.ttest_1samp(gaps, 0)
    interval = plain.confidence_interval(0.95)
    assert ours == pytest.approx(
        {"difference": 0.0018, "low": interval.low, "high": interval.high, "p": plain.pvalue}
    )


def test_shared_rows_widen_the_corrected_interval_by_nadeau_and_bengios_factor() -> None:
    gaps, ratio = [0.004, 0.001, 0.003, -0.001, 0.002], 20 / 72
    ours, plain = corrected_resampled_t(gaps, ratio), corrected_resampled_t(gaps, 0)
    factor = np.sqrt((1 / 5 + ratio) / (1 / 5))
    assert ours["difference"] == plain["difference"]
    assert ours["high"] - ours["difference"] == pytest.approx(factor * (plain["high"] - plain["difference"]))
    assert ours["p"] == pytest.approx(2 * stats.t.sf(plain["difference"] / stats.sem(gaps) / factor, 4))


@pytest.mark.slow
def test_only_the_corrected_test_keeps_its_level_over_random_splits() -> None:
    """Two learners that are equally good: the mean of the train rows of one column each."""
    rng = np.random.default_rng(0)
    found = np.zeros(2)
    for _ in range(300):
        rows = rng.normal(size=(100, 2))
        gaps = []
        for _ in range(10):
            order = rng.permutation(100)
            train, test = rows[order[:80]], rows[order[80:]]
            loss = (test - train.mean(0)) ** 2
            gaps.append((loss[:, 0] - loss[:, 1]).mean())
        found += [corrected_resampled_t(gaps, ratio)["p"] < 0.05 for ratio in (20 / 80, 0)]
    corrected, plain = found / 300
    assert corrected < 0.1
    assert plain > 0.2


def test_equal_models_over_all_splits_differ_by_nothing() -> None:
    assert corrected_resampled_t([0.0, 0.0], 0.25) == {"difference": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}
