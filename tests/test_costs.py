"""What models cost: the time of a training from its steps, models worth their price, the command."""

import importlib
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from rows import SCHEMAS, random_split
from safetensors.torch import save_file

from pipeline import __main__ as commands
from pipeline.common.errors import PipelineError
from pipeline.common.files import seal
from pipeline.costs import measure, picture, report
from pipeline.costs.report import Row
from pipeline.data.batches import Split
from pipeline.evaluate import plot_style
from pipeline.evaluate.runs import Run
from pipeline.models import build
from tests import project

SCHEMA = SCHEMAS["no-bags"]


class Clock:
    """Seconds that pass in steps, evaluations and preparations alone, each with its own price."""

    step, row, once = 0.5, 0.001, 7.0

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now, fit, predict = 0.0, measure.fit, measure.predict

        def timed_fit(*args: Any, log: Any, **settings: Any) -> None:
            self.now += self.once
            last = 0

            def logged(row: dict[str, float], step: int) -> None:
                nonlocal last
                self.now += self.step * (step - last)
                last = step
                log(row, step)

            fit(*args, log=logged, **settings)

        def timed_predict(model: Any, split: Split) -> torch.Tensor:
            self.now += self.row * len(split)
            return predict(model, split)

        patch.setattr(measure, "clock", lambda _: self.now)
        patch.setattr(measure, "fit", timed_fit)
        patch.setattr(measure, "predict", timed_predict)


def finished(folder: Path, rows: int, steps: list[int], evaluations: int, **more: Any) -> Run:
    """A run of LR whose trainings ended after so many steps and evaluations."""
    model = build("lr", SCHEMA, {}, seed=1)
    seeds = []
    for seed, last in enumerate(steps, 1):
        save_file(model.state_dict(), folder / f"seed-{seed}.safetensors")
        curve = [{"step": last * (i + 1) // evaluations} for i in range(evaluations)]
        best = {"valid_auc": 0.7, "valid_logloss": 0.5}
        seeds.append({"seed": seed, "best": best, "curve": curve})
    seal(folder)
    info = {"dataset": "log", "model": "lr", "variant": "default", "architecture": "lr", "seeds": seeds}
    return Run(folder, info | {"params": {"model": {}, "train": {"batch_size": rows // 100}}} | more)


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.parametrize("rows", [2_000, 60_000])  # three epochs, and a part of one
def test_a_training_costs_its_steps_its_evaluations_and_what_comes_before(
    rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, valid = random_split(SCHEMA, rows), random_split(SCHEMA, 500)
    run = finished(tmp_path, rows, [300, 500], 4)
    Clock(monkeypatch)
    (cost,) = measure.measure([run], train, valid, random_split(SCHEMA, 3_000), rounds=2)
    assert cost.scoring == pytest.approx(1 / Clock.row)
    assert cost.training == pytest.approx(400 * Clock.step + 4 * 500 * Clock.row + Clock.once)


@pytest.mark.slow
def test_a_model_that_trains_another_first_costs_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = finished(tmp_path, 2_000, [300], 4, trainings=2)
    Clock(monkeypatch)
    (cost,) = measure.measure([run], *(random_split(SCHEMA, rows) for rows in (2_000, 500, 500)), rounds=1)
    assert cost.training == pytest.approx(2 * 300 * Clock.step + 4 * 500 * Clock.row)


def test_validation_rows_of_one_class_are_refused(tmp_path: Path) -> None:
    rows = random_split(SCHEMA, 100)
    unclicked = Split(SCHEMA, rows.ids, torch.zeros(100))
    with pytest.raises(PipelineError, match="are all of one class"):
        measure.measure([finished(tmp_path, 100, [1], 1)], rows, unclicked, rows)


ROWS = [
    Row("best", "tuned", 0.8, 30.0, 5.0, 900),
    Row("dear", "tuned", 0.79, 40.0, 1.0, 2_000),
    Row("same", "default", 0.75, 10.0, 9.0, 100),
    Row("lr", "default", 0.75, 2.0, 0.5, 100),
]


def test_the_front_has_every_model_that_none_beats_for_its_price() -> None:
    names = {price: [row.model for row in report.front(ROWS, price)] for price in report.PRICES}
    assert names["training"] == ["lr", "best"]
    assert names["scoring"] == ["lr", "dear", "best"]
    assert names["parameters"] == ["same", "best"], "of equal ones the first"


def test_the_table_shows_prices_and_multiples(tmp_path: Path) -> None:
    text = report.to_markdown(ROWS, "log", 3, "a machine")
    assert "| best | tuned | 0.8000 | **30 (15)** | **5 (10)** | **900 (9)** |" in text
    assert "| dear | tuned | 0.7900 | 40 (20) | **1 (2)** | 2,000 (20) |" in text
    plot_style.save(picture.prices(ROWS, "log"), tmp_path / "costs.png")
    assert (tmp_path / "costs.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.thorough
@pytest.mark.slow
def test_the_command_measures_the_models_of_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = project.own_params()["data"]
    data["synthetic"]["download"]["rows"] = 1500
    data["synthetic"]["settings"] = {
        "train": {"epochs": 1, "seeds": [1], "threads": 1},
        "tune": {"trials": 1},
    }
    root = project.make_project(tmp_path / "project", data=data)
    project.prepare(root)
    monkeypatch.chdir(root)
    monkeypatch.setenv("CTR_TRACKING", "off")
    for stage, *words in (
        *((stage, "--model", model) for model in ("lr", "fm") for stage in ("train", "tune")),
        ("evaluate",),
    ):
        monkeypatch.setattr("sys.argv", [stage, "--dataset", "synthetic", *words])
        importlib.import_module(f"stages.{stage}").main()

    def call(*words: str) -> None:
        monkeypatch.setattr("sys.argv", ["ctr", "costs", "synthetic", "--rounds", "1", *words])
        commands.main()

    capsys.readouterr()
    call("-o", "costs")
    assert {path.name for path in Path("costs").iterdir()} == {"costs.md", "costs.csv", "costs.png"}
    table = pd.read_csv("costs/costs.csv")
    assert sorted(table["model"]) == ["fm", "lr"]
    assert (table[["training", "scoring", "parameters"]] > 0).all(axis=None)
    assert capsys.readouterr().out in Path("costs/costs.md").read_text(encoding="utf-8")
    call("--models", "lr")
    assert "| fm |" not in capsys.readouterr().out
    with pytest.raises(PipelineError, match="nfm is not in the report of synthetic, which has lr, fm"):
        call("--models", "nfm")
