"""The finals of a search and its budget: who replaces the default, the expected best of n draws."""

from contextlib import nullcontext
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pipeline import metrics
from pipeline.common.errors import Diverged, PipelineError
from pipeline.metrics import Array
from pipeline.statistics.significance import error_of_difference, estimate
from pipeline.train.runs import Resources, RunHeader, capped
from pipeline.tune import finals
from pipeline.tune.budget import budget, expected_best
from pipeline.tune.evidence import ValidationRows
from pipeline.tune.finals import Finalist
from pipeline.tune.finished import Finished

RESOURCES = Resources(Path("nowhere"), "cpu", 1, 100)
TRIALS = [Finished(number, "COMPLETE", 0.7, {"number": number}, []) for number in (4, 2, 0)]
LABEL = np.arange(100) % 4 == 0


def score(number: int, seed: int) -> Array:
    """What a trial of a seed predicts."""
    return np.random.default_rng([number, seed]).random(len(LABEL)) / 2 + LABEL / 4


def play(monkeypatch: pytest.MonkeyPatch, values: dict[tuple[int, int], float | None]) -> list[Finalist]:
    """The finals of trials 4, 2 and 0 on two seeds; None for a training that diverges."""

    def train_once(_header: Any, _splits: Any, arguments: Any, seed: int, **_: Any) -> Any:
        value = values[arguments["model"]["number"], seed]
        if value is None:
            raise Diverged("nan")
        curve = [{"epoch": 1, "valid_auc": value}, {"epoch": 2, "valid_auc": 0.1}]
        return SimpleNamespace(state=SimpleNamespace(curve=curve, best=0))

    def predicted(_header: Any, options: Any, seed: int, *_: Any) -> Array:
        return score(options["number"], seed)

    monkeypatch.setattr(finals, "train_once", train_once)
    monkeypatch.setattr(finals, "predicted", predicted)
    monkeypatch.setattr(ValidationRows, "of", lambda metric, *_: ValidationRows(metric, LABEL))
    header = RunHeader("tune", "toy", "fm", "fm", {}, "input", "rows")
    splits: Any = None, None
    monkeypatch.setattr(Resources, "prefetch", lambda *_: nullcontext(lambda _seed: None))

    def at(point: dict[str, Any]) -> dict[str, Any]:
        return {"model": point, "train": {"epochs": 1}}

    return finals.play(TRIALS, "auc", at, header, splits, [1, 2], RESOURCES)


def test_the_best_mean_of_all_seeds_wins_and_not_the_best_first_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {(4, 1): 0.79, (4, 2): 0.71, (2, 1): 0.77, (2, 2): 0.76, (0, 1): 0.75, (0, 2): 0.74}
    found = play(monkeypatch, values)
    assert [(each.trial, each.values, each.epochs) for each in found] == [
        (4, [0.79, 0.71], [2, 2]),
        (2, [0.77, 0.76], [2, 2]),
        (0, [0.75, 0.74], [2, 2]),
    ]
    won = finals.winner(found, "auc", 0)
    assert (won.trial, won.mean) == (2, pytest.approx(0.765))
    assert finals.winner(found, "logloss", 0).trial == 0
    assert won.to_json() == {
        "trial": 2,
        "seeds": [1, 2],
        "values": [0.77, 0.76],
        "epochs": [2, 2],
        "error": won.error,
        "mean": won.mean,
    }


def test_of_equal_means_the_earlier_trial_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {(number, seed): 0.75 for number in (4, 2, 0) for seed in (1, 2)}
    assert finals.winner(play(monkeypatch, values), "auc", 0).trial == 0


def test_a_finalist_that_diverges_on_a_seed_cannot_win(monkeypatch: pytest.MonkeyPatch) -> None:
    values: dict[tuple[int, int], float | None] = {(4, 1): 0.9, (4, 2): None, (2, 1): 0.7, (2, 2): 0.7}
    found = play(monkeypatch, {**values, (0, 1): 0.6, (0, 2): 0.6})
    assert (found[0].mean, found[0].values, found[0].seeds) == (None, [0.9], [1, 2])
    assert finals.winner(found, "auc", 0).trial == 2
    with pytest.raises(PipelineError, match="every finalist of the search diverged"):
        finals.winner(found[:1], "auc", 0)


def test_a_finalist_has_the_error_of_its_difference_to_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    found = play(monkeypatch, {(number, seed): 0.75 for number in (4, 2, 0) for seed in (1, 2)})
    known = {number: estimate(LABEL, [score(number, seed) for seed in (1, 2)]) for number in (4, 2, 0)}
    errors = [None if number == 0 else error_of_difference(known[number], known[0]) for number in (4, 2, 0)]
    assert [each.error for each in found] == errors
    assert all(error is None or error > 0.01 for error in errors)


@pytest.mark.parametrize("metric", ["auc", "logloss"])
def test_with_hardly_a_click_no_error_is_known_and_the_default_stays(metric: Any) -> None:
    """The luckiest trial ranks all of nine clicks first, and DeLong's error is next to nothing."""
    for clicks, known in ((9, False), (19, False), (20, True)):
        label = np.arange(400) < clicks
        rows = ValidationRows(metric, label)
        default, lucky = np.where(label, 0.5, np.linspace(0, 0.7, 400)), np.where(label, 0.9, 0.1)
        error = rows.error(rows.evidence([lucky]), rows.evidence([default]))
        assert (error is not None) is known
        trials = [Finalist(0, [1], [0.7], [1]), Finalist(3, [1], [0.99], [1], error)]
        if metric == "auc":
            assert finals.winner(trials, metric, 1).trial == (3 if known else 0)


def test_where_the_default_diverged_no_error_is_known_and_the_best_wins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values: dict[tuple[int, int], float | None] = {(4, 1): 0.7, (4, 2): 0.7, (2, 1): 0.8, (2, 2): 0.7}
    found = play(monkeypatch, {**values, (0, 1): None})
    assert [each.error for each in found] == [None, None, None]
    assert finals.winner(found, "auc", 1).trial == 2
    assert finals.against_default(found[1], found, "auc") is None


DEFAULT, SMALL, LARGE = (
    Finalist(0, [1], [0.70], [1]),
    Finalist(3, [1], [0.71], [1], 0.02),
    Finalist(5, [1], [0.709], [1], 0.002),
)


def test_the_default_is_kept_unless_the_gain_is_larger_than_its_error() -> None:
    assert finals.winner([SMALL, DEFAULT], "auc", 1) is DEFAULT
    assert finals.winner([SMALL, DEFAULT], "auc", 0.4) is SMALL
    assert finals.winner([SMALL, DEFAULT], "auc", 0) is SMALL
    assert finals.winner([SMALL, LARGE, DEFAULT], "auc", 1) is LARGE, "the best of those that may"
    assert finals.winner([SMALL, LARGE, DEFAULT], "auc", 5) is DEFAULT
    assert finals.winner([SMALL, LARGE, DEFAULT], "logloss", 0) is DEFAULT, "there less is better"
    other = Finalist(5, [1], [0.69], [1], 0.002)
    assert finals.winner([DEFAULT, other], "logloss", 1) is other
    unknown = Finalist(3, [1], [0.99], [1])
    assert finals.winner([unknown, DEFAULT], "auc", 1) is DEFAULT
    of_small, of_large = (
        {"trial": each.trial, "difference": pytest.approx(difference), "error": each.error}
        for each, difference in ((SMALL, 0.01), (LARGE, 0.009))
    )
    everyone = [SMALL, LARGE, DEFAULT]
    assert finals.against_default(LARGE, everyone, "auc") == of_large
    assert finals.against_default(DEFAULT, everyone, "auc") == of_small, "the best of the others"
    assert finals.against_default(DEFAULT, [DEFAULT], "auc") is None


def test_the_verdict_says_why_a_better_trial_did_not_win() -> None:
    def said(finalist: Finalist, metric: Any = "auc", margin: float = 1) -> str:
        winner = finals.winner([finalist, DEFAULT], metric, margin)
        return finals.verdict(winner, [finalist, DEFAULT], metric, margin)

    kept = "winner: the default (trial-000), mean valid AUC 0.7000 over 1 seed"
    small = "trial-003 is better by 0.0100 ± 0.0200, which is too little for tune.margin: 1.5"
    assert said(SMALL, margin=1.5) == f"{kept}; {small}"
    unknown = "trial-003 is better by 0.2900, whose error cannot be known with fewer than 20 validation rows"
    assert said(Finalist(3, [1], [0.99], [1])) == f"{kept}; {unknown} of a class"
    assert said(Finalist(3, [1], [0.6], [1], 0.01)) == kept
    lower = "winner: trial-003, mean valid logloss 0.6000 over 1 seed, -0.1000 ± 0.0100 against the default"
    assert said(Finalist(3, [1], [0.6], [1], 0.01), "logloss") == lower


def test_with_few_clicks_the_rule_errs_less_than_the_best_of_eight() -> None:
    """All trials rank worse than the default; 24 clicks cannot see it."""
    rng = np.random.default_rng(1)
    label = np.arange(800) % 33 == 0
    rows, lost = ValidationRows("auc", label), {0: 0, 1: 0}
    for _ in range(100):
        truth = label * 1.0 + rng.standard_normal(len(label))
        noise = [0.3] + [0.8] * 8
        scores = [truth + size * rng.standard_normal(len(label)) for size in noise]
        aucs = [metrics.auc(label, each) for each in scores]
        best = int(np.argmax(aucs[1:])) + 1
        error = rows.error(rows.evidence([scores[best]]), rows.evidence([scores[0]]))
        finalists = [Finalist(0, [1], [aucs[0]], [1]), Finalist(best, [1], [aucs[best]], [1], error)]
        for margin in lost:
            lost[margin] += finals.winner(finalists, "auc", margin).trial != 0
    assert lost[0] > 50
    assert lost[1] < lost[0] / 3


@pytest.mark.parametrize("maximise", [True, False])
def test_the_expected_best_is_the_mean_over_all_samples(maximise: bool) -> None:
    values = [0.71, 0.78, 0.74, 0.74, 0.6]
    pick = max if maximise else min
    for n, found in enumerate(expected_best(values, maximise=maximise), 1):
        samples = [pick(sample) for sample in product(values, repeat=n)]
        assert found == pytest.approx(sum(samples) / len(samples), abs=1e-12), n


def test_a_trial_without_a_value_is_as_bad_as_the_worst() -> None:
    assert expected_best([0.7, None, 0.6], maximise=True) == expected_best([0.7, 0.6, 0.6], maximise=True)
    assert expected_best([0.5, None], maximise=False) == [0.5, 0.5]
    assert expected_best([None], maximise=True) == []


def test_the_budget_counts_trials_their_ends_and_the_rows_they_saw() -> None:
    def trial(number: int, state: str, *values: float) -> Finished:
        curve = [{"epoch": i / 2, "valid_auc": value} for i, value in enumerate(values, 1)]
        return Finished(number, state, max(values) if state == "COMPLETE" else None, {}, curve)

    trials = [
        trial(0, "PRUNED"),
        trial(1, "COMPLETE", 0.6, 0.7, 0.65),
        trial(2, "PRUNED", 0.8),
        trial(3, "COMPLETE", 0.72, 0.71),
    ]
    found = budget(trials, [Finalist(3, [1, 2], [0.7, 0.7], [2.0, 3.0])], "auc", 1000)
    assert found == {
        "trials": 4,
        "completed": 2,
        "best": [None, 0.7, 0.7, 0.72],
        "expected": expected_best([None, 0.7, 0.8, 0.72], maximise=True),
        "rows": [0, 1500, 2000, 3000],
        "final_rows": 5000,
    }


@pytest.mark.parametrize(
    ("evaluations", "best", "expected"),
    [(10, 9, True), (10, 8, True), (10, 7, False), (9, 8, False), (9, 6, False)],
)
def test_a_training_is_capped_if_its_epochs_ended_it_and_not_its_patience(
    evaluations: int, best: int, expected: bool
) -> None:
    curve = [{"epoch": float(epoch)} for epoch in range(1, evaluations + 1)]
    assert capped(curve, best, {"epochs": 10, "patience": 2}) is expected
