"""The finals of a search and its budget: the best mean over the seeds, the expected best of n draws."""

from contextlib import nullcontext
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.common.errors import Diverged, PipelineError
from pipeline.train.runs import Resources, RunHeader, capped
from pipeline.tune import finals
from pipeline.tune.budget import budget, expected_best
from pipeline.tune.finals import Finalist
from pipeline.tune.finished import Finished

RESOURCES = Resources(Path("nowhere"), "cpu", 1, 100)
TRIALS = [Finished(number, "COMPLETE", 0.7, {"number": number}, []) for number in (4, 2, 0)]


def play(monkeypatch: pytest.MonkeyPatch, values: dict[tuple[int, int], float | None]) -> list[Finalist]:
    """The finals of trials 4, 2 and 0 on two seeds; None for a training that diverges."""

    def train_once(_header: Any, _splits: Any, arguments: Any, seed: int, **_: Any) -> Any:
        value = values[arguments["model"]["number"], seed]
        if value is None:
            raise Diverged("nan")
        curve = [{"epoch": 1, "valid_auc": value}, {"epoch": 2, "valid_auc": 0.1}]
        return SimpleNamespace(state=SimpleNamespace(curve=curve, best=0))

    monkeypatch.setattr(finals, "train_once", train_once)
    header = RunHeader("tune", "toy", "fm", "fm", {}, "input", "rows")
    splits: Any = None
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
    won = finals.winner(found, "auc")
    assert (won.trial, won.mean) == (2, pytest.approx(0.765))
    assert finals.winner(found, "logloss").trial == 0
    assert won.to_json() == {
        "trial": 2,
        "seeds": [1, 2],
        "values": [0.77, 0.76],
        "epochs": [2, 2],
        "mean": won.mean,
    }


def test_of_equal_means_the_earlier_trial_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {(number, seed): 0.75 for number in (4, 2, 0) for seed in (1, 2)}
    assert finals.winner(play(monkeypatch, values), "auc").trial == 0


def test_a_finalist_that_diverges_on_a_seed_cannot_win(monkeypatch: pytest.MonkeyPatch) -> None:
    values: dict[tuple[int, int], float | None] = {(4, 1): 0.9, (4, 2): None, (2, 1): 0.7, (2, 2): 0.7}
    found = play(monkeypatch, {**values, (0, 1): 0.6, (0, 2): 0.6})
    assert (found[0].mean, found[0].values, found[0].seeds) == (None, [0.9], [1, 2])
    assert finals.winner(found, "auc").trial == 2
    with pytest.raises(PipelineError, match="every finalist of the search diverged"):
        finals.winner(found[:1], "auc")


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
