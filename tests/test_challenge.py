"""A log that grows by the day: the alias `champion` moves where the challenger is better on new rows."""

import csv
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from mlflow.entities.model_registry import ModelVersion

from pipeline import tracking
from pipeline.common.files import read_json, seal, write_json
from pipeline.scoring.challenge import judge
from pipeline.scoring.pack import pack
from pipeline.scoring.package import Package
from tests import project

pytestmark = [pytest.mark.slow, pytest.mark.thorough, pytest.mark.filterwarnings("ignore")]
GOOD, BAD = 0.02, 1e-9  # learning rates: one learns, the other says the same of every row
ENTRY = {
    "label": {"column": "rating", "at_least": 4},
    "fields": {"user": "user", "item": "item"},
    "user": "user",
    "item": "item",
    "time": {"column": "ts", "format": "seconds"},
}
Run = Callable[..., Path]


def write_log(path: Path, days: int = 8, rows: int = 400) -> None:
    """Write a log of so many days; users and items have lasting effects."""
    rng = np.random.default_rng(3)
    effect = 1.5 * rng.standard_normal((2, 30))
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["user", "item", "ts", "rating"])
        for day in range(days):
            for user, item, u in zip(*rng.integers(30, size=(2, rows)), rng.random(rows), strict=True):
                likes = u < 1 / (1 + np.exp(-effect[0, user] - effect[1, item]))
                writer.writerow([f"u{user}", f"i{item}", 86_400 * day + 3600, 5 if likes else 2])


class Days:
    """The project of a log of days: each call trains LR for a day and publishes the report."""

    def __init__(self, root: Path, run: Run, patch: pytest.MonkeyPatch) -> None:
        self.root, self.run, self.patch = root, run, patch
        write_log(root / "log.csv")

    def train(self, day: int, lr: float, **preprocess: Any) -> Package:
        values = project.small_params(datasets=["toy"], models=["lr"])
        values["data"]["toy"] = {
            "source": "tabular",
            "download": {"path": "log.csv"},
            "preprocess": {**ENTRY, **preprocess},
            "split": {"method": "days", "day": day},
            "encode": {},
            "settings": {
                "train": {"epochs": 8, "lr": lr, "batch_size": 64, "seeds": [1], "threads": 1},
                "tune": {"space": {"train": {"lr": None, "batch_size": None}}},
            },
        }
        project.make_project(self.root, **values)
        self.run(self.root, "toy")
        from stages import train

        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CTR_TRACKING", "off")
            patch.setattr(sys, "argv", ["train", "--dataset", "toy", "--model", "lr"])
            train.main()
        return pack(self.root, "toy", "lr", "default")

    def publish(self) -> ModelVersion:
        """Write a report on the run, as evaluate does, and publish; return the version with the alias."""
        run = read_json(self.root / "data/runs/toy/lr/default/run.json")
        valid = run["seeds"][0]["best"]["valid_auc"]
        of_model = {"model": "lr", "variant": "default", "key": run["key"]}
        seeds = [{"seed": 1, "auc": 0.7, "logloss": 0.6}]
        result = {**of_model, "valid_auc": valid, "seeds": seeds, "mean": {"auc": 0.7, "logloss": 0.6}}
        folder = self.root / "data/reports/toy"
        folder.mkdir(parents=True, exist_ok=True)
        champion = {**of_model, "seed": 1, "metric": "auc"}
        report = {"dataset": "toy", "rows": 400, "base_rate": 0.5, "results": [result], "champion": champion}
        write_json(folder / "report.json", report)
        seal(folder)
        tracking.sync(self.root)
        return self.client.get_model_version_by_alias("ctr-toy", "champion")

    @property
    def client(self) -> mlflow.MlflowClient:
        return tracking.configure(self.root).client

    def version(self, number: int) -> ModelVersion:
        return self.client.get_model_version("ctr-toy", str(number))


@pytest.fixture(name="days")
def _days(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> Iterator[Days]:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "CTR_TRACKING"):
        monkeypatch.delenv(name, raising=False)
    yield Days(tmp_path, run, monkeypatch)
    mlflow.set_tracking_uri("")


def test_the_alias_moves_to_a_better_challenger_alone(days: Days, capsys: pytest.CaptureFixture[str]) -> None:
    def of(version: ModelVersion) -> tuple[str, str]:
        return str(version.version), version.tags["reason"]

    days.train(1, BAD)
    assert of(days.publish()) == ("1", "there was no champion before it")

    days.train(2, GOOD)
    number, reason = of(days.publish())
    assert number == "2"
    assert reason.startswith("against version 1: better on 400 validation rows of 30 users")
    assert "**lr (default)** on" in days.version(2).description
    assert reason in days.version(2).description

    days.train(3, BAD)
    assert of(days.publish())[0] == "2"
    assert days.version(3).tags["reason"].startswith("against version 2: worse on 400 validation rows")
    assert days.version(3).tags["reason"] in days.version(3).description
    assert "stays at version 2" in capsys.readouterr().out
    shown = days.client.get_experiment_by_name("toy").tags["mlflow.note.content"]
    assert f"valid AUC {float(days.version(3).tags['valid_auc_mean']):.4f}" in shown  # the last report's

    days.train(4, GOOD)
    assert of(days.publish())[0] == "2"
    assert "against version 2: not distinguishable on 400" in days.version(4).tags["reason"]
    assert "nothing to do" in tracking.sync(days.root)

    days.train(5, BAD, label={"column": "rating", "at_least": 3})
    number, reason = of(days.publish())
    assert number == "5"
    assert "it was trained for" in reason


def test_a_champion_that_nobody_can_load_makes_room(days: Days) -> None:
    days.train(1, GOOD)
    first = days.publish()
    files = Path(days.root, "mlruns").rglob("artifacts/package/weights.safetensors")
    next(files).write_bytes(b"damaged")
    days.train(2, BAD)
    second = days.publish()
    assert (str(first.version), str(second.version)) == ("1", "2")
    assert second.tags["reason"].startswith("the champion before it cannot be read: ")


def test_what_cannot_be_compared_is_told(days: Days) -> None:
    old = days.train(1, GOOD)
    assert old.trained_on["log"] == {"source": "tabular", "label": ENTRY["label"]}
    assert (old.trained_on["since"], old.trained_on["until"]) == (3600, 3600)  # the first day alone
    new = days.train(2, GOOD)

    def verdict(**changes: Any) -> tuple[bool, str]:
        champion = replace(old, trained_on={**old.trained_on, **changes})
        return judge(days.root, champion, new)[:2]

    assert "400 validation rows" in verdict()[1]
    leads, reason = verdict(until=86_400 * 2 + 3600)
    assert leads
    assert "only 0 validation rows, 0 of them clicks, are later than its training" in reason
    assert verdict(log=None)[0]
    assert "does not say what it was trained for" in verdict(log=None)[1]
    timeless = replace(old, trained_on={k: v for k, v in old.trained_on.items() if k != "until"})
    assert "nobody knows which rows are new" in judge(days.root, timeless, new).reason
    other = replace(old, vocabulary=[{**old.vocabulary[0], "name": "page"}, *old.vocabulary[1:]])
    assert "the log has no field 'page'" in judge(days.root, other, new).reason
    (days.root / "data/interim/toy/table.parquet").unlink()
    leads, reason, final = judge(days.root, old, new)
    assert (leads, final) == (False, False)
    assert "cannot be compared here" in reason
