"""Every model through the stages that train, tune and evaluate it, on a log of seconds."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline.common.errors import PipelineError
from pipeline.common.files import read_json, seal
from pipeline.models import MODELS
from stages import evaluate, train, tune
from tests import project

pytestmark = [pytest.mark.slow, pytest.mark.thorough]

VARIANTS = {"fm-sest": {"base": "fm", "embedding_transform": "sest"}}
Stage = Callable[..., None]


def quick() -> dict[str, Any]:
    """Settings of seconds for every model."""
    values = project.small_params(models=list(MODELS), variants=list(VARIANTS))
    values["model"] |= VARIANTS
    item = values["data"][project.DATASET]
    item["download"]["rows"] = 1500
    item["settings"] |= {
        "model": {"embedding_size": 8},
        "train": {"epochs": 1, "batch_size": 512, "seeds": [1], "threads": 1},
        "tune": {"trials": 2, "space": {"model": {"embedding_size": None}}},
    }
    return values


@pytest.fixture(scope="module", name="folder")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zoo")
    project.make_project(folder, **quick())
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
        assert run.get("trainings") == (2 if name == "fnn" else None)


def test_all_of_them_are_in_one_table(folder: Path, stage: Stage) -> None:
    stage(evaluate.main)
    table = pd.read_csv(folder / "data/reports" / project.DATASET / "leaderboard.csv")
    assert sorted(table["model"]) == sorted([*MODELS, *VARIANTS] * 2)
    assert table["auc"].between(0.3, 1).all()


# ---- settings that do not fit the dataset ----


def beside(folder: Path, to: Path, blocks: dict[str, Any], settings: dict[str, Any]) -> Path:
    """Another project with the same encoded rows and other settings."""
    values = quick()
    values["model"] |= blocks
    values["data"][project.DATASET]["settings"] |= settings
    shutil.copytree(folder / "data/processed", to / "data/processed")
    return project.make_project(to, **values)


@pytest.mark.parametrize("main", [train.main, tune.main], ids=["train", "tune"])
@pytest.mark.parametrize(
    ("name", "blocks", "settings", "message"),
    [
        (
            "fiinet",
            {"fiinet": {"embedding_size": 16, "orders": [99]}},
            {},
            "model.fiinet (dataset synthetic): orders [99] must rise from 2",
        ),
        (
            "finalmlp",
            {},
            {"finalmlp": {"heads": 7}},
            "model.finalmlp, data.synthetic.settings.model.finalmlp (dataset synthetic): heads 7 must divide",
        ),
        (
            "fiinet-h",
            {"fiinet-h": {"base": "fiinet", "orders": [99]}},
            {"embedding_size": 8},
            "model.fiinet-h, its base model.fiinet, data.synthetic.settings.model (dataset synthetic): ",
        ),
    ],
)
def test_options_that_do_not_fit_are_told_with_their_blocks_and_the_dataset(
    name: str,
    blocks: dict[str, Any],
    settings: dict[str, Any],
    message: str,
    main: Callable[[], None],
    folder: Path,
    tmp_path: Path,
    stage: Stage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(beside(folder, tmp_path, blocks, {"model": settings}))
    with pytest.raises(PipelineError) as caught:
        stage(main, "--model", name)
    assert str(caught.value).startswith(f"params.yaml: {message}")


def test_options_of_a_trial_that_do_not_fit_are_told_with_the_point(
    folder: Path, tmp_path: Path, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    axes = {"embedding_size": None, "heads": {"choices": [1, 7]}}
    others = ("embedding_size", "embedding_dropout", "hidden", "dropout")
    training = ("lr", "embedding_l2", "network_l2", "batch_size")
    space = {
        "model": {**dict.fromkeys(others), "finalmlp": {**axes, "network_decay": None}},
        "train": dict.fromkeys(training),
    }
    train_settings = quick()["data"][project.DATASET]["settings"]["train"]
    settings = {
        "model": {},
        "train": train_settings,
        "tune": {"trials": 2, "paper_start": False, "space": space},
    }
    monkeypatch.chdir(beside(folder, tmp_path, {}, settings))
    with pytest.raises(PipelineError) as caught:
        stage(tune.main, "--model", "finalmlp")
    tried, _, rest = str(caught.value).partition("), ")
    assert tried.startswith("params.yaml: tune.space (model.")
    assert tried.endswith("model.heads 7")
    assert rest.startswith("model.finalmlp (dataset synthetic): heads 7 must divide")


def test_a_model_that_wants_times_on_rows_without_names_the_dataset_and_what_to_do(
    folder: Path, tmp_path: Path, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(beside(folder, tmp_path, {}, {"model": {}}))
    processed = tmp_path / "data/processed" / project.DATASET
    for path in processed.glob("*.time.npy"):
        path.unlink()
    seal(processed)
    for main in (train.main, tune.main):
        with pytest.raises(PipelineError) as caught:
            stage(main, "--model", "din")
        place = "params.yaml: model.din (dataset synthetic): "
        assert str(caught.value).startswith(f"{place}DIN needs timestamps")
        assert "remove the model from `models`, or declare a time column" in str(caught.value)
