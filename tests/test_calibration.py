import warnings

import numpy as np
import pytest
from scipy import special
from sklearn.linear_model import LogisticRegression

from pipeline import metrics
from pipeline.evaluate import calibration
from pipeline.evaluate.calibration import apply, complaint, fit, validate
from pipeline.statistics import chance


def clicks(rows: int = 4000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels and the logits that they were drawn with."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(-1, 1.5, size=rows)
    return (rng.random(rows) < special.expit(logit)).astype(np.uint8), logit


# what is wrong with the logits, and the method that is made for it
WRONG = {
    "none": lambda z: z,
    "temperature": lambda z: 2.5 * z,
    "platt": lambda z: 1.5 * z + 0.8,
    "isotonic": lambda z: np.where(z > -1, 5 * z + 5, 0.4 * z),
}


@pytest.mark.parametrize("method", WRONG)
def test_the_method_made_for_it_is_chosen_and_undoes_it(method: str) -> None:
    label, truth = clicks(8000)
    other, unseen = clicks(20000, seed=1)
    found = fit(label, WRONG[method](truth))
    assert found["method"] == method
    loss = metrics.logloss(other, apply(found, WRONG[method](unseen)))
    assert loss == pytest.approx(metrics.logloss(other, special.expit(unseen)), abs=0.002)


def test_temperature_and_line_are_those_of_a_logistic_regression() -> None:
    label, logits = clicks()
    twice = 2 * logits + 1
    line = LogisticRegression(C=1e9, tol=1e-10, max_iter=1000).fit(twice[:, None], label)
    found = calibration.platt(label.astype(float), twice)
    assert found["slope"] == pytest.approx(line.coef_[0, 0], abs=3e-3)  # of targets drawn in
    assert found["intercept"] == pytest.approx(line.intercept_[0], abs=5e-3)
    through_zero = LogisticRegression(C=1e9, tol=1e-10, fit_intercept=False).fit(logits[:, None], label)
    found = calibration.temperature(label.astype(float), logits)
    assert 1 / found["temperature"] == pytest.approx(through_zero.coef_[0, 0], rel=1e-4)


def test_the_isotonic_line_goes_through_the_click_rates_of_the_bins() -> None:
    """Two levels of logits, 2,500 rows each, with clicks at 10 % and 60 %."""
    logits, label = np.repeat([-2.0, 3.0], 2500), np.tile(np.repeat([1, 0, 1, 0], [250, 2250, 1500, 1000]), 1)
    found = calibration.isotonic(label.astype(float), logits)
    assert found["logit"] == pytest.approx([-2, 3])
    np.testing.assert_allclose(special.expit(found["calibrated"]), [0.1, 0.6], atol=2e-4)
    middle = special.logit(0.1) / 2 + special.logit(0.6) / 2
    assert special.logit(apply(found, np.array([0.5])))[0] == pytest.approx(middle, abs=1e-3)


@pytest.mark.parametrize("method", calibration.METHODS, ids=lambda method: method.__name__)
def test_the_order_of_rows_stays(method) -> None:
    label, logits = clicks(2000)
    ranked = np.sort(logits * 3 + 1)[::2]
    for y in (label, 1 - label):  # a model that ranks, and one that ranks the wrong way round
        found = method(y.astype(float), logits * 3 + 1)
        assert (np.diff(apply(found, ranked[np.abs(ranked) < 16])) > 0).all()


def test_none_keeps_the_probabilities() -> None:
    p = np.array([0.0, 1e-6, 0.2, 0.5, 1.0])
    np.testing.assert_allclose(apply({"method": "none"}, calibration.logit(p)), p, atol=2e-7)


def test_thinned_out_negatives_are_put_back() -> None:
    """Of 1,000 rows 50 are clicks; with a tenth of the others kept, a model predicts 50 of 145."""
    thinned = calibration.with_negatives_kept({"method": "none"}, 0.1)
    assert apply(thinned, special.logit(np.array([50 / 145])))[0] == pytest.approx(50 / 1000)
    q, w = 0.3, 0.25
    cooled = {"method": "temperature", "temperature": 2.0, "negatives_kept": w}
    assert apply(cooled, np.array([2 * special.logit(q)]))[0] == pytest.approx(q / (q + (1 - q) / w))
    assert calibration.with_negatives_kept({"method": "none"}, 1.0) == {"method": "none"}


@pytest.mark.parametrize(
    "logits",
    [np.zeros(400), np.full(400, 7.0), np.repeat([-40.0, 40.0], 200), np.linspace(-900, 900, 400)],
    ids=["halves", "constant", "separated", "huge"],
)
@pytest.mark.parametrize("clicks", [0, 1, 25, 200, 399, 400])
def test_awkward_rows_give_finite_probabilities(logits: np.ndarray, clicks: int) -> None:
    label = np.repeat([0, 1], [400 - clicks, clicks])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = fit(label, logits)
    p = apply(found, logits)
    assert np.isfinite(p).all()
    assert metrics.logloss(label, p) <= metrics.logloss(label, special.expit(logits)) + 1e-6
    if min(clicks, 400 - clicks) < chance.FEW:
        assert found == {"method": "none"}


@pytest.mark.slow
def test_right_probabilities_are_not_made_worse_by_chance() -> None:
    """Of 40 samples of 500 rows, what is fitted costs mostly nothing on others, and never much."""
    other, unseen = clicks(20000, seed=99)
    raw = metrics.logloss(other, special.expit(unseen))
    costs = []
    for seed in range(40):
        label, logits = clicks(500, seed=seed)
        costs.append(metrics.logloss(other, apply(fit(label, logits), unseen)) - raw)
    assert np.median(costs) == 0
    assert max(costs) < 0.02


def test_probabilities_that_are_right_raise_no_complaint() -> None:
    label, logits = clicks()
    assert complaint([validate(label, special.expit(logits))]) is None


def test_worse_than_the_base_rate_and_a_mean_off_it_are_named() -> None:
    label, logits = clicks()
    off = validate(label, special.expit(logits + 0.4))
    assert complaint([off]) == f"mean prediction {off.mean_prediction_ratio:.2f} times the base rate"
    assert 1.1 < off.mean_prediction_ratio < 1.3
    worse = validate(label, special.expit(-logits))
    assert complaint([worse]).startswith(f"NE {worse.normalised_entropy:.3f}, mean prediction ")
    assert worse.normalised_entropy > 1


def test_few_clicks_may_be_off_by_chance() -> None:
    """Four of 1,000 where six were expected; ten times as many of ten times as many rows are no chance."""
    for times, said in ((1, False), (10, True)):
        label = np.repeat([1, 0], [4 * times, 996 * times])
        rng = np.random.default_rng(1)
        probability = np.full(len(label), 0.006) + rng.normal(scale=1e-5, size=len(label)) + label * 1e-3
        found = complaint([validate(label, probability)])
        assert bool(found and "mean prediction 1.5" in found) == said


def test_many_rows_are_calibrated_on_some_of_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    label, p = clicks(20_000)
    z = 2 * calibration.logit(p)  # over-confident
    late = np.arange(len(p)) >= 10_000  # the later half is right as it is
    p = calibration.apply({"method": "none"}, np.where(late, z / 2, z))
    whole = calibration.validate(label, p)
    monkeypatch.setattr(calibration, "MOST_ROWS", 4000)
    some = calibration.validate(label, p)
    fitted = [each.calibration for each in (whole, some)]
    assert fitted[0] != fitted[1]
    loss = [metrics.logloss(label, calibration.apply(each, calibration.logit(p))) for each in fitted]
    assert loss[1] - loss[0] < 3 / 4000
    assert (some.normalised_entropy, some.noise) == (whole.normalised_entropy, whole.noise)
