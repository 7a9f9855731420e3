import numpy as np
import pytest
from scipy import special

from pipeline import metrics
from pipeline.evaluate.calibration import complaint, fit_temperature, tempered, validate


def clicks(temperature: float, rows: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and probabilities whose logits are `temperature` times too large."""
    rng = np.random.default_rng(0)
    logit = rng.normal(-1, 1.5, size=rows)
    label = (rng.random(rows) < special.expit(logit)).astype(np.uint8)
    return label, special.expit(logit * temperature)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_wrong_confidence(temperature: float) -> None:
    label, probability = clicks(temperature)
    assert fit_temperature(label, probability) == pytest.approx(temperature, rel=0.1)


def test_no_other_temperature_has_less_logloss_on_the_rows_it_was_fitted_on() -> None:
    label, probability = clicks(2.5, 500)
    best = fit_temperature(label, probability)
    least = metrics.logloss(label, tempered(probability, best))
    for other in [*np.geomspace(0.1, 10, 60), best * 1.01, best * 0.99, 1.0]:
        assert metrics.logloss(label, tempered(probability, other)) >= least


def test_a_temperature_keeps_the_order_and_one_keeps_the_probabilities() -> None:
    _, probability = clicks(1.0, 200)
    assert (np.argsort(tempered(probability, 7.0)) == np.argsort(probability)).all()
    np.testing.assert_allclose(tempered(probability, 1.0), probability, rtol=1e-9)


@pytest.mark.parametrize(
    ("label", "probability", "expected"),
    [
        ([0, 1, 0, 1], [0.1, 0.8, 0.3, 0.9], 0.01),  # all right: the colder the better
        ([0, 1, 0, 1], [0.9, 0.2, 0.7, 0.1], 100.0),  # all wrong
        ([0, 1, 0, 0], [0.5, 0.5, 0.5, 0.5], 1.0),
        ([0, 1, 0, 1], [0.0, 1.0, 1.0, 1.0], None),
    ],
)
def test_awkward_rows_give_a_finite_temperature(
    label: list[int], probability: list[float], expected: float | None
) -> None:
    found = fit_temperature(np.array(label), np.array(probability, np.float32))
    assert found == pytest.approx(expected) if expected else 0.01 <= found <= 100
    assert np.isfinite(tempered(np.array(probability), found)).all()


def test_probabilities_that_are_right_raise_no_complaint() -> None:
    label, probability = clicks(1.0)
    assert complaint([validate(label, probability)]) is None


def test_worse_than_the_base_rate_and_a_mean_off_it_are_named() -> None:
    label, probability = clicks(1.0)
    off = validate(label, special.expit(special.logit(probability) + 0.4))
    assert complaint([off]) == f"mean prediction {off.mean_prediction_ratio:.2f} times the base rate"
    assert 1.1 < off.mean_prediction_ratio < 1.3
    worse = validate(label, 1 - probability)
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
