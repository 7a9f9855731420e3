"""Runs and reports as MLflow's params, metrics and tags."""

import base64
import json
import zlib
from typing import Any

import pytest

from pipeline.evaluate.results import leader
from pipeline.tracking import record
from pipeline.tracking.page import of_version
from pipeline.tracking.views import views
from tests.fixtures_report import both, made_up_report, made_up_runs


def run(variant: str = "tuned") -> dict[str, Any]:
    def row(auc: float, epoch: int) -> dict[str, float]:
        return {"step": 10 * epoch, "epoch": epoch, "valid_auc": auc, "valid_logloss": 1 - auc}

    seeds = [
        {"seed": seed, "best": row(auc, seed), "curve": [row(0.5, 1), row(auc, seed)]}
        for seed, auc in ((1, 0.6), (2, 0.8), (3, 0.8))
    ]
    trials = [
        {"number": 0, "state": "COMPLETE", "value": 0.6, "params": {}, "curve": [row(0.6, 1), row(0.5, 2)]},
        {"number": 1, "state": "PRUNED", "value": None, "params": {}, "curve": []},
        {"number": 2, "state": "COMPLETE", "value": 0.7, "params": {}, "curve": [row(0.7, 1)]},
        {"number": 3, "state": "COMPLETE", "value": 0.5, "params": {}, "curve": [row(0.5, 1)]},
    ]
    return {
        "model": "fm",
        "dataset": "toy",
        "variant": variant,
        "params": {"model": {"embedding_size": 4}, "train": {"lr": 0.1}, "seeds": [1, 2, 3]},
        "tune": {"trials": 4, "space": {"train.lr": {"low": 0.1}}},
        "seeds": seeds,
        "search": {"metric": "auc", "best": 2, "trials": trials},
    }


def test_params_are_flat_and_leave_the_space_out() -> None:
    assert record.params(run()) == {
        "model": "fm",
        "variant": "tuned",
        "model.embedding_size": "4",
        "train.lr": "0.1",
        "seeds": "[1, 2, 3]",
        "tune.trials": "4",
    }


def test_only_streamed_or_parallel_trainings_are_tagged_as_such() -> None:
    usual = record.tags({**run(), "stage": "tune"})
    assert not {"pipeline.rows_in_memory", "pipeline.processes"} & usual.keys()
    special = record.tags({**run(), "stage": "tune", "rows_in_memory": 10**7, "processes": 2})
    assert special == {**usual, "pipeline.rows_in_memory": "10000000", "pipeline.processes": "2"}


def test_children_are_seeds_and_trials_with_their_best_row() -> None:
    parts = {name: (state, best.get("valid_auc")) for name, _, state, _, best in record.children(run())}
    assert parts == {
        "seed-1": ("COMPLETE", 0.6),
        "seed-2": ("COMPLETE", 0.8),
        "seed-3": ("COMPLETE", 0.8),
        "trial-000": ("COMPLETE", 0.6),
        "trial-001": ("PRUNED", None),
        "trial-002": ("COMPLETE", 0.7),
        "trial-003": ("COMPLETE", 0.5),
    }


def test_a_trial_is_shown_with_the_weights_it_kept_which_need_not_be_its_best() -> None:
    """Logloss may decide which weights are kept, while the search compares AUC."""
    changed = run()
    changed["search"]["trials"][0] |= {"value": 0.5}  # its curve has 0.6, then 0.5
    (first,) = [best for name, *_, best in record.children(changed) if name == "trial-000"]
    assert first["valid_auc"] == 0.5


@pytest.mark.parametrize(
    ("metric", "expected"), [("auc", [0.6, 0.6, 0.7, 0.7]), ("logloss", [0.6, 0.6, 0.6, 0.5])]
)
def test_progress_is_the_best_so_far(metric: str, expected: list[float]) -> None:
    assert record.progress({**run()["search"], "metric": metric}) == dict(enumerate(expected))


def test_spread_is_mean_and_sample_deviation() -> None:
    rows = [{"best_valid_auc": 0.6, "best_epoch": 1.0}, {"best_valid_auc": 0.8, "best_epoch": 2.0}]
    assert record.mean_and_std(rows) == pytest.approx(
        {"best_valid_auc": 0.7, "best_epoch": 1.5, "best_valid_auc_std": 0.02**0.5}
    )
    assert record.mean_and_std(rows[:1]) == rows[0]


def test_the_description_lists_seeds_and_search() -> None:
    shown = run()
    text = record.description(shown)
    assert "trial-002 of 4 trials, 3 of them to their end" in text
    assert "| 2&emsp; | 2&emsp; | 0.8000&emsp; | 0.2000&emsp; |" in text
    assert "finalist" not in text
    assert "`epochs`" not in text
    shown["seeds"][0]["capped"] = True
    shown["search"]["finalists"] = [
        {"trial": 2, "mean": 0.7, "error": 0.0123},
        {"trial": 3, "mean": None},
        {"trial": 0, "mean": 0.69},
    ]
    text = record.description(shown)
    assert "Trainings that `epochs` ended and not their patience: 1." in text
    assert "| trial 2&emsp; | 0.7000&emsp; | +0.0100 ± 0.0123&emsp; |" in text
    assert "| trial 3&emsp; | diverged&emsp; | &emsp; |" in text
    assert "| trial 0 (default)&emsp; | 0.6900&emsp; | &emsp; |" in text


@pytest.mark.parametrize(("metric", "figure"), [("auc", "AUC 0.7820"), ("logloss", "logloss 0.5180")])
def test_the_champion_is_told_with_the_figure_by_which_it_was_chosen(metric: str, figure: str) -> None:
    report = made_up_report(made_up_runs(both(lr=0.7, fm=0.78)))
    report["champion"]["metric"] = metric
    said = f"Best on validation data: **fm (tuned)**, valid {figure}, test AUC 0.7820"
    assert record.headline(report) == said
    version = of_version(report, leader(report), {"seed": "3"}, "")
    assert f"Valid {figure} (mean), by which models are compared." in version


def test_the_description_of_an_experiment_has_the_order_of_the_leaderboard() -> None:
    report = made_up_report(made_up_runs(both(lr=0.7, fm=0.78, deepfm=0.78)))
    report["results"].reverse()
    names = [line[2:].split("&")[0] for line in record.note(report).splitlines()[4:]]
    assert names == ["deepfm", "fm", "deepfm", "fm", "lr", "lr"]


def test_a_search_has_metrics_as_a_whole_and_by_trial() -> None:
    search = run()["search"]
    assert record.search_summary(search) == {"search_trials": 4, "search_completed": 3}
    best = {0: 0.6, 1: 0.6, 2: 0.7, 3: 0.7}
    assert record.search_steps(search) == {"search/best_auc": best}
    search["budget"] = {"expected": [0.5, 0.6], "rows": [10, 20]}
    search["finalists"] = [{"trial": 2, "mean": 0.7}, {"trial": 0, "mean": None}]
    assert record.search_steps(search) == {
        "search/best_auc": best,
        "search/expected_auc": {0: 0.5, 1: 0.6},
        "search/rows": {0: 10, 1: 20},
        "search/final_auc": {2: 0.7},
    }


def test_the_saved_view_unpacks_as_the_page_does_it() -> None:
    found = views("of.this", ["train.lr"])
    assert [tag.rpartition(".")[2] for tag in found] == ["leaderboard", "curves", "size", "trials"]
    view = json.loads(found["mlflow.sharedViewState.leaderboard"])
    kind, packed = view["state"].split(";")
    state = json.loads(zlib.decompress(base64.b64decode(packed)))
    assert state["searchFilter"] == "tags.`of.this` = 'true'"
    assert (view["name"], kind, state["orderByKey"]) == ("Leaderboard", "deflate", "metrics.`test/auc`")
    assert len(views("of.this", [])) == 3
