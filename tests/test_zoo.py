"""Every model through the stages that train, tune and evaluate it, on a log of seconds."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from pipeline.files import read_json
from pipeline.models import MODELS
from stages import evaluate, train, tune
from tests import project

VARIANTS = {"fm-sest": {"base": "fm", "embedding_transform": "sest"}}
Stage = Callable[..., None]


@pytest.fixture(scope="module", name="folder")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zoo")
    values = project.small_params(models=list(MODELS), variants=list(VARIANTS))
    values["model"] |= VARIANTS
    item = values["data"][project.DATASET]
    item["download"]["rows"] = 1500
    item["settings"] |= {
        "model": {"embedding_size": 8},
        "train": {"epochs": 1, "batch_size": 512, "seeds": [1], "threads": 1},
        "tune": {"trials": 2, "space": {"model": {"embedding_size": None}}},
    }
    project.make_project(folder, **values)
    project.prepare(folder)
    return folder


@pytest.fixture(name="stage")
def _stage(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("CTR_TRACKING", "off")

    def go(main: Callable[[], None], *words: str) -> None:
        monkeypatch.setattr("sys.argv", ["stage", "--dataset", project.DATASET, *words])
        main()

    return go


@pytest.mark.parametrize("name", [*MODELS, *VARIANTS])
def test_a_model_is_trained_and_tuned(name: str, folder: Path, stage: Stage) -> None:
    for main in (train.main, tune.main):
        stage(main, "--model", name)
    runs = folder / "data/runs" / project.DATASET / name
    default, tuned = read_json(runs / "default/run.json"), read_json(runs / "tuned/run.json")
    assert default["model"] == tuned["model"] == name
    assert default["architecture"] == VARIANTS.get(name, {"base": name})["base"]
    assert len(tuned["search"]["trials"]) == 2
    for run in (default, tuned):
        assert 0 < run["seeds"][0]["best"]["valid_auc"] < 1


def test_all_of_them_are_in_one_table(folder: Path, stage: Stage) -> None:
    stage(evaluate.main)
    table = pd.read_csv(folder / "data/reports" / project.DATASET / "leaderboard.csv")
    assert sorted(table["model"]) == sorted([*MODELS, *VARIANTS] * 2)
    assert table["auc"].between(0.3, 1).all()
