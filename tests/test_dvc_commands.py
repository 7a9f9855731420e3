"""What somebody who knows DVC expects: metrics, plots, experiments, a remote, leftovers."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline.common.files import read_json
from stages import names
from tests import project
from tests.test_end_to_end import call, copy_of_the_project, git

pytestmark = [pytest.mark.slow, pytest.mark.thorough]
CHAMPION = "data/metrics/synthetic.json"


def write_params(folder: Path, **changes: Any) -> None:
    values = project.small_params()
    values["models"] = ["lr"]
    train = {"epochs": 1, "batch_size": 512, "seeds": [1], "threads": 1}
    tune = {"trials": 1, "finalists": 1, "space": {"train": {"batch_size": None, "lr": None}}}
    values["data"]["synthetic"]["download"]["rows"] = 3000
    values["data"]["synthetic"]["settings"] = {"train": train, "tune": tune}
    with open(folder / "params.yaml", "w", encoding="utf-8") as file:
        YAML(typ="safe", pure=True).dump({**values, **changes}, file)


@pytest.fixture(scope="module", name="origin")
def _origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with one small model, run and committed, and nothing in MLflow."""
    folder = copy_of_the_project(tmp_path_factory.mktemp("dvc") / "project")
    write_params(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(project, "environment", quiet)
        call(folder, "dvc", "repro")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "results")
    return folder


ENVIRONMENT = project.environment


def quiet(**more: str) -> dict[str, str]:
    return ENVIRONMENT(CTR_TRACKING="off", **more)


@pytest.fixture(autouse=True)
def _untracked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(project, "environment", quiet)


def test_metrics_show_tells_the_champion_and_every_model(origin: Path) -> None:
    shown = json.loads(call(origin, "dvc", "metrics", "show", "--json"))
    values = shown[""]["data"][CHAMPION]["data"]
    report = read_json(origin / "data/reports/synthetic/report.json")
    best = report["champion"]
    assert values["champion"]["name"] == f"{best['model']} ({best['variant']})"
    top = next(r for r in report["results"] if r["key"] == best["key"])
    assert values["champion"]["test_auc"] == round(top["mean"]["auc"], 6)
    assert values["test_auc"].keys() == {"lr"}


def test_plots_show_has_the_board_and_the_curves(origin: Path) -> None:
    data = json.loads(call(origin, "dvc", "plots", "show", "--json", "--split"))
    assert "errors" not in data
    files = " ".join(data["data"])
    assert "data/plots/leaderboard" in files
    assert "data/plots/curves" in files


def test_an_experiment_changes_a_value_and_its_metrics_are_compared(origin: Path, tmp_path: Path) -> None:
    folder = tmp_path / "experiment"
    shutil.copytree(origin, folder, symlinks=True)
    out = call(folder, "dvc", "exp", "run", "-n", "faster", "-S", "train.lr=0.05")
    assert "stages.train" in out
    assert "stages.split" not in out
    diff = json.loads(call(folder, "dvc", "metrics", "diff", "--json"))
    assert diff[CHAMPION]["champion.valid_auc"]["diff"] != 0
    columns = call(folder, "dvc", "exp", "show", "--only-changed", "--csv").splitlines()
    assert "champion.test_auc" in columns[0]
    assert any(line.startswith("faster,") or ",faster," in line for line in columns)
    assert columns[0].count(",") < 40


def test_a_clone_has_everything_from_a_remote_without_training(origin: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    shutil.copytree(origin, first, symlinks=True)
    call(first, "dvc", "remote", "add", "--default", "team", str(tmp_path / "remote"))
    git(first, "commit", "-qam", "a remote")
    call(first, "dvc", "push")
    git(tmp_path, "clone", "-q", str(first), str(second))
    call(second, "dvc", "pull")
    assert "up to date" in call(second, "dvc", "repro")
    assert git(second, "status", "--porcelain") == ""
    weights = "data/runs/synthetic/lr/tuned/seed-1.safetensors"
    assert (second / weights).read_bytes() == (first / weights).read_bytes()


def test_runs_of_a_model_that_left_the_lists_go(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Else dvc.lock would depend on them, and a clone of the commit would be out of date."""
    for path in ("a/lr/default", "a/fm/tuned", "a/fm-sest/tuned", "b/fm/default"):
        (tmp_path / path).mkdir(parents=True)
    names.remove_leftovers(tmp_path, {"datasets": ["a", "c"], "models": ["lr"], "variants": ["fm-sest"]})
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.glob("*/*")) == [
        "a/fm-sest",
        "a/lr",
        "b/fm",
    ]
    assert "fm is on no list (DVC's cache keeps it)" in capsys.readouterr().out
