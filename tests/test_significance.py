import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from pipeline.metrics import auc
from pipeline.statistics.significance import (
    clusters,
    compare,
    corrected_resampled_t,
    error_by_counts,
    error_of_difference,
    error_of_mean,
    estimate,
    holm,
)

Rng = np.random.Generator

# ---- one seed: the sampling of the test rows ----


def placed(label: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The components of AUC by the loops of DeLong et al."""

    def kernel(x: float, y: float) -> float:
        return 1.0 if x > y else 0.5 if x == y else 0.0

    one, zero = np.flatnonzero(label == 1), np.flatnonzero(label == 0)
    tens = [np.mean([kernel(score[i], score[j]) for j in zero]) for i in one]
    ones = [np.mean([kernel(score[i], score[j]) for i in one]) for j in zero]
    return np.array(tens), np.array(ones)


def naive_delong(label: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Difference of two AUCs and its variance."""
    (ta, oa), (tb, ob) = placed(label, a), placed(label, b)
    S = np.cov(ta, tb) / len(ta) + np.cov(oa, ob) / len(oa)
    return ta.mean() - tb.mean(), S[0, 0] + S[1, 1] - 2 * S[0, 1]


def naive_obuchowski(label: np.ndarray, group: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """Variance of the difference of two AUCs by the sums of the paper."""
    parts = [placed(label, score) for score in (a, b)]
    theta = [tens.mean() for tens, _ in parts]
    M, N = len(parts[0][0]), len(parts[0][1])
    users = sorted(set(group))
    tens, ones = ({user: [] for user in users} for _ in range(2))
    for user in users:
        X, Y = group[label == 1] == user, group[label == 0] == user
        for r in range(2):
            tens[user].append(parts[r][0][X].sum() - X.sum() * theta[r])
            ones[user].append(parts[r][1][Y].sum() - Y.sum() * theta[r])
    with_x, with_y = len(set(group[label == 1])), len(set(group[label == 0]))
    S = np.zeros((2, 2))
    for r in range(2):
        for s in range(2):
            s10 = with_x / ((with_x - 1) * M) * sum(tens[u][r] * tens[u][s] for u in users)
            s01 = with_y / ((with_y - 1) * N) * sum(ones[u][r] * ones[u][s] for u in users)
            s11 = [
                len(users) / (len(users) - 1) * sum(tens[u][i] * ones[u][j] for u in users)
                for i, j in ((r, s), (s, r))
            ]
            S[r, s] = s10 / M + s01 / N + sum(s11) / (M * N)
    return S[0, 0] + S[1, 1] - 2 * S[0, 1]


def half(test: dict[str, float]) -> float:
    return (test["high"] - test["low"]) / 2


@pytest.mark.parametrize("levels", [4, 10_000])
def test_without_groups_it_is_delongs_test_with_and_without_ties(levels: int) -> None:
    rng = np.random.default_rng(0)
    label = rng.integers(2, size=70)
    a, b = (rng.integers(levels, size=70) + levels * 0.4 * label for _ in range(2))
    difference, variance = naive_delong(label, a, b)
    ours = compare(estimate(label, [a]), estimate(label, [b]))
    freedom = min(label.sum(), (1 - label).sum()) - 1
    assert ours["difference"] == pytest.approx(difference)
    assert ours["difference"] == pytest.approx(roc_auc_score(label, a) - roc_auc_score(label, b))
    assert half(ours) == pytest.approx(stats.t.ppf(0.975, freedom) * variance**0.5)
    assert ours["p"] == pytest.approx(2 * stats.t.sf(abs(difference) / variance**0.5, freedom))


@pytest.mark.parametrize("levels", [4, 10_000])
def test_with_groups_it_is_obuchowskis_variance(levels: int) -> None:
    rng = np.random.default_rng(1)
    label, group = rng.integers(2, size=80), np.arange(80) % 12
    group[label == 0] = np.minimum(group[label == 0], 9)  # some users click always
    a, b = (rng.integers(levels, size=80) + levels * 0.1 * group + levels * 0.4 * label for _ in range(2))
    of_a, of_b = estimate(label, [a], group), estimate(label, [b], group)
    assert of_a.clusters == (12, 10, 12)
    variance = naive_obuchowski(label, group, a, b)
    assert half(compare(of_a, of_b)) == pytest.approx(stats.t.ppf(0.975, 9) * variance**0.5)
    single = naive_obuchowski(label, group, a, np.zeros(80))  # a constant has no variance
    assert of_a.row_error == pytest.approx(single**0.5)
    low, high = of_a.interval()
    assert (low + high) / 2 == pytest.approx(roc_auc_score(label, a))
    assert (high - low) / 2 == pytest.approx(stats.t.ppf(0.975, 9) * single**0.5)


def test_groups_of_one_row_change_nothing() -> None:
    rng = np.random.default_rng(2)
    label, score = rng.integers(2, size=60), rng.normal(size=60)
    plain, clustered = estimate(label, [score]), estimate(label, [score], rng.permutation(60) + 100)
    assert clustered.row_error == pytest.approx(plain.row_error, rel=1e-12)


def test_errors_are_clustered_only_where_rows_of_both_classes_have_two_groups() -> None:
    label = np.array([0, 0, 1, 1])
    assert clusters(label, None) is None
    assert clusters(label, np.array([1, 2, 2, 3])) == 3
    assert clusters(label, np.array([1, 2, 3, 3])) is None
    assert clusters(label, np.array([1, 1, 2, 3])) is None


@pytest.mark.slow
def test_the_interval_agrees_with_a_paired_bootstrap_of_users() -> None:
    rng = np.random.default_rng(3)
    users = [np.arange(8 * i, 8 * i + 8) for i in range(150)]
    group = np.repeat(np.arange(150), 8)
    taste = rng.normal(size=150)[group]
    label = (rng.normal(size=1200) + taste > 0).astype(int)
    a = label + taste + rng.normal(size=1200)
    b = a + rng.normal(scale=0.7, size=150)[group]
    gaps = []
    for _ in range(400):
        rows = np.concatenate([users[i] for i in rng.integers(150, size=150)])
        gaps.append(auc(label[rows], a[rows]) - auc(label[rows], b[rows]))
    ours = compare(estimate(label, [a], group), estimate(label, [b], group))
    assert half(ours) / 1.96 == pytest.approx(np.std(gaps), rel=0.15)


# ---- several seeds ----


def trained(rng: Rng, label: np.ndarray, seeds: int, noise: float = 1.0) -> list[np.ndarray]:
    return [label * 0.5 + rng.normal(scale=noise, size=len(label)) for _ in range(seeds)]


def test_seeds_add_their_variance_with_satterthwaites_degrees_of_freedom() -> None:
    rng = np.random.default_rng(4)
    label = rng.integers(2, size=200)
    a, b = trained(rng, label, 3), trained(rng, label, 4)
    of_a, of_b = estimate(label, a), estimate(label, b)
    aucs = [[roc_auc_score(label, score) for score in scores] for scores in (a, b)]
    assert [of_a.auc, of_b.auc] == pytest.approx([np.mean(values) for values in aucs])
    seeds = [np.var(values, ddof=1) / len(values) for values in aucs]
    assert [of_a.variance_of_seeds, of_b.variance_of_seeds] == pytest.approx(seeds)

    (ta, oa), (tb, ob) = (
        [np.mean(part, axis=0) for part in zip(*(placed(label, score) for score in scores), strict=True)]
        for scores in (a, b)
    )
    rows = np.var(ta - tb, ddof=1) / len(ta) + np.var(oa - ob, ddof=1) / len(oa)
    variance = rows + sum(seeds)
    fewer = min(label.sum(), (1 - label).sum()) - 1
    freedom = variance**2 / (rows**2 / fewer + seeds[0] ** 2 / 2 + seeds[1] ** 2 / 3)
    ours = compare(of_a, of_b)
    assert half(ours) == pytest.approx(stats.t.ppf(0.975, freedom) * variance**0.5)
    assert of_a.error == pytest.approx((of_a.row_error**2 + seeds[0]) ** 0.5)


def test_one_seed_has_no_variance_of_the_training() -> None:
    rng = np.random.default_rng(5)
    label = rng.integers(2, size=200)
    value = estimate(label, trained(rng, label, 1))
    assert value.variance_of_seeds is None
    assert value.error == value.row_error


def test_equal_scores_differ_by_nothing() -> None:
    rng = np.random.default_rng(6)
    label = rng.integers(2, size=50)
    value = estimate(label, trained(rng, label, 3))
    assert compare(value, value) == {"difference": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}


def test_a_perfect_score_has_no_error_and_no_nan() -> None:
    label = np.array([0, 1, 0, 1, 1])
    value = estimate(label, [label * 1.0, label * 1.0])
    assert value.interval() == (1.0, 1.0)
    assert compare(value, estimate(label, [1.0 - label]))["p"] == 0.0


# ---- many comparisons ----


def test_holms_correction_is_the_step_down_procedure() -> None:
    p = [0.001, 0.04, 0.012, 0.9, 0.012]
    significant, left = set(), sorted(range(5), key=lambda i: p[i])
    for done, i in enumerate(left):  # the paper: stop at the first that fails
        if p[i] > 0.05 / (5 - done):
            break
        significant.add(i)
    corrected = holm(p)
    assert {i for i in range(5) if corrected[i] <= 0.05} == significant == {0, 2, 4}
    assert corrected == pytest.approx([0.005, 0.08, 0.048, 0.9, 0.048])
    assert holm([]) == []
    assert holm([0.8, 0.7]) == [1.0, 1.0]


# ---- several splits ----


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


def test_the_error_by_counts_is_that_of_exponential_scores() -> None:
    """As Hanley and McNeil assume; negative scores of mean 1 and positive ones of mean 4 have AUC 4 / 5."""
    draw, clicks, others = np.random.default_rng(1), 30, 80
    aucs = [(draw.exponential(4, clicks)[:, None] > draw.exponential(1, others)).mean() for _ in range(4000)]
    assert np.mean(aucs) == pytest.approx(0.8, abs=0.005)
    assert error_by_counts(0.8, clicks, others) == pytest.approx(np.std(aucs), rel=0.04)


# ---- errors by themselves ----


def test_the_error_of_a_difference_is_delongs() -> None:
    rng = np.random.default_rng(5)
    label = rng.integers(0, 2, 60)
    a, b = rng.random(60) + label, rng.random(60) + 0.4 * label
    _, variance = naive_delong(label, a, b)
    found = error_of_difference(estimate(label, [a]), estimate(label, [b]))
    assert found == pytest.approx(variance**0.5)
    other = rng.random(60) + label
    seeds = estimate(label, [a, other]), estimate(label, [b, b])
    _, variance = naive_delong(label, a, a)
    of_seeds = np.var([auc(label, a), auc(label, other)], ddof=1) / 2
    assert error_of_difference(seeds[0], seeds[0]) == pytest.approx((variance + 2 * of_seeds) ** 0.5)


def test_the_error_of_a_mean_counts_groups_and_not_rows() -> None:
    values = np.random.default_rng(6).random(30)
    assert error_of_mean(values) == pytest.approx(stats.sem(values))
    # each value six times says no more than once
    repeated, group = np.repeat(values, 6), np.repeat(np.arange(30) * 2, 6)
    assert error_of_mean(repeated, group) == pytest.approx(error_of_mean(values))
    assert error_of_mean(repeated) < 0.5 * error_of_mean(values)
