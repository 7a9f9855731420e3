"""Blends: means of logits, chosen on validation rows, as rows of the report with their cost."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from sklearn.metrics import log_loss, roc_auc_score

from pipeline.common.errors import PipelineError
from pipeline.config.params import Params
from pipeline.evaluate import blend, leaderboard, predictions, report
from pipeline.evaluate.predictions import Holdout
from pipeline.evaluate.runs import Run, better
from tests.fixtures_report import make_project
from tests.project import small_params

NAMED = ["lr", "fm"]


@pytest.fixture(scope="module", name="blended")
def _blended(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, dict[str, Path]]]:
    root = tmp_path_factory.mktemp("blend")
    project = make_project(root)
    runs, holdout = project.load(), Holdout.load(project.processed)
    models = dict.fromkeys(run.model for run in runs)
    files = {part: {m: root / f"{m}.{part}.parquet" for m in models} for part in ("test", "valid")}
    validations = {
        m: predictions.write_predictions(
            files["test"][m], [run for run in runs if run.model == m], holdout, files["valid"][m]
        )
        for m in models
    }
    arguments = ("toy", runs, holdout, files["test"], validations, 10, 1.0, NAMED, files["valid"])
    chosen = {run.model: run.variant for run in better(runs)}
    return {**report.build_report(*arguments)[0], "chosen": chosen}, files


def mean_logit(path: Path, variant: str) -> tuple[np.ndarray, np.ndarray]:
    table = pd.read_parquet(path)
    table = table[table.variant == variant]
    z = logit(table.probability.to_numpy(np.float64))
    rows = table.groupby("row", sort=True)
    return pd.Series(z, table.row).groupby(level=0).mean().to_numpy(), rows.label.first().to_numpy()


@pytest.mark.slow
def test_a_blend_is_the_mean_of_logits_over_seeds_and_then_over_models(blended: tuple) -> None:
    values, files = blended
    for found in values["blends"]:
        weights = {part["model"]: part["weight"] for part in found["members"]}
        assert all(part["variant"] == values["chosen"][part["model"]] for part in found["members"])
        for part, prefix in (("test", ""), ("valid", "valid_")):
            each = {m: mean_logit(files[part][m], values["chosen"][m]) for m in weights}
            label = next(iter(each.values()))[1]
            z = sum(n * each[m][0] for m, n in weights.items()) / sum(weights.values())
            assert found[f"{prefix}auc"] == pytest.approx(roc_auc_score(label, z))
            assert found[f"{prefix}logloss"] == pytest.approx(log_loss(label, expit(z)), abs=1e-6)
        assert found["trainings"] == 2 * len(weights)  # two seeds each
        of_runs = {r["model"]: r["weights"] for r in values["results"]}
        assert found["weights"] == sum(2 * of_runs[m] for m in weights)
    equal, greedy = values["blends"]
    assert {part["model"]: part["weight"] for part in equal["members"]} == dict.fromkeys(NAMED, 1)
    assert greedy["valid_logloss"] <= equal["valid_logloss"]


@pytest.mark.slow
def test_blends_are_rows_of_the_leaderboard(blended: tuple) -> None:
    values, _ = blended
    page = leaderboard.to_markdown(values)
    assert "## Blends" in page
    assert "| equal | 1 x lr" in page
    assert "blend,greedy,0,2," in leaderboard.to_csv(values)
    without = {key: value for key, value in values.items() if key != "blends"}
    assert "Blends" not in leaderboard.to_markdown(without)


def test_a_greedy_blend_takes_what_helps_and_stops() -> None:
    rng = np.random.default_rng(1)
    label = (rng.random(4000) < 0.5).astype(np.uint8)
    truth = 2.0 * label - 1
    good, other, noise = (truth * scale + rng.normal(size=4000) * 1.5 for scale in (1.0, 0.9, 0.0))
    counts = blend.greedy([noise, good, other], label)
    assert counts[0] == 0
    assert min(counts[1:]) > 0
    assert blend.greedy([good, noise], label) == [1, 0]


def test_what_a_row_reads_is_said() -> None:
    def reads(architecture: str, model: dict[str, Any], train: dict[str, Any]) -> str:
        return Run(Path(), {"architecture": architecture, "params": {"model": model, "train": train}}).reads

    assert reads("fm", {"neighbour_limit": 0}, {"grades": 0.0}) == "ids"
    assert reads("fm", {"neighbour_limit": 9}, {"grades": 0.5}) == "ids + neighbours + grades"
    assert reads("din", {}, {}) == "ids + time"
    assert reads("autorec", {"values": "grade"}, {}) == "ids + neighbours + grades"
    assert reads("autorec", {"values": "label"}, {}) == "ids + neighbours"


def test_a_blend_of_models_that_do_not_run_is_an_error() -> None:
    with pytest.raises(PipelineError, match=r"evaluate\.blend: .*'fmm'.*did you mean 'fm'"):
        Params(small_params(evaluate={"bins": 20, "blend": ["lr", "fmm"]}))
