"""A registered model scores and watches as its project does, and stands in for files that are gone."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from benchmarks import watch as logs
from pipeline import __main__ as commands
from pipeline import tracking
from pipeline.common.errors import PipelineError
from pipeline.common.files import read_json

pytestmark = [pytest.mark.slow, pytest.mark.thorough, pytest.mark.filterwarnings("ignore")]
REGISTERED = f"ctr-{logs.DATASET}@champion"


@pytest.fixture(scope="module", name="project")
def _project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose champion is in MLflow's registry, and beside it rows that it did not see."""
    folder = tmp_path_factory.mktemp("registered") / "project"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CTR_TRACKING", "off")
        patch.setitem(logs.ENTRY["preprocess"], "max_rejected", 0.02)
        logs.make(folder, 4000, "lr")
    tracking.sync(folder)
    logs.log(1500, 6).to_csv(folder.parent / "new.csv", index=False)
    return folder


def run(root: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr("sys.argv", ["pipeline", "--root", str(root), *words])
    commands.main()


def test_predict_by_a_registered_model_is_predict_by_its_dataset(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Within the share of corrupted rows that training allowed."""
    frame = logs.log(1500, 7)
    frame.loc[:14, "price"] = "dear"
    frame.to_csv(tmp_path / "rows.csv", index=False)
    rows, out = str(tmp_path / "rows.csv"), [tmp_path / f"{name}.parquet" for name in "ab"]
    run(project, monkeypatch, "predict", "--dataset", logs.DATASET, rows, "-o", str(out[0]))
    words = capsys.readouterr().out.splitlines()
    run(project, monkeypatch, "predict", "--registered", REGISTERED, rows, "-o", str(out[1]))
    assert capsys.readouterr().out.splitlines()[:-1] == words[:-1]
    first, second = map(pd.read_parquet, out)
    pd.testing.assert_frame_equal(first, second)
    assert first["probability"].std() > 0.05
    assert len(first) == 1485


def test_watch_by_a_registered_model_is_watch_by_its_dataset(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rows = str(project.parent / "new.csv")
    run(project, monkeypatch, "watch", logs.DATASET, rows, "--out", str(tmp_path / "a"))
    run(project, monkeypatch, "watch", "--registered", REGISTERED, rows, "--out", str(tmp_path / "b"))
    found, registered = (read_json(tmp_path / name / "watch.json") for name in "ab")
    assert registered == found
    drift = logs.log(1500, 2).assign(device="watch")
    drift.to_csv(tmp_path / "drift.csv", index=False)
    with pytest.raises(PipelineError, match="unseen device"):
        run(project, monkeypatch, "watch", "--registered", REGISTERED, str(tmp_path / "drift.csv"))


@pytest.mark.parametrize("command", ["predict", "watch"])
def test_a_model_that_is_not_registered_is_told(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str
) -> None:
    more = ["-o", str(tmp_path / "s.csv")] if command == "predict" else []
    rows = str(project.parent / "new.csv")
    with pytest.raises(PipelineError, match=r"--registered ctr-nobody@champion: .*ctr-nobody"):
        run(project, monkeypatch, command, "--registered", "ctr-nobody@champion", rows, *more)


@pytest.mark.parametrize("gone", ["runs", "interim", "reports", "processed"])
def test_after_a_failed_stage_the_registered_champion_scores_and_says_so(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    gone: str,
) -> None:
    """DVC removes a stage's results before it runs."""
    rows, copy = str(project.parent / "new.csv"), tmp_path / "project"
    shutil.copytree(project, copy)
    predict = ["predict", "--dataset", logs.DATASET, rows, "-o"]
    run(copy, monkeypatch, *predict, str(tmp_path / "a.parquet"))
    assert capsys.readouterr().err == ""
    shutil.rmtree(copy / "data" / gone / logs.DATASET)
    run(copy, monkeypatch, *predict, str(tmp_path / "b.parquet"))
    told = capsys.readouterr().err
    assert "`dvc repro " in told
    assert f"scored with {REGISTERED} of MLflow instead: lr (" in told
    first, second = (pd.read_parquet(tmp_path / f"{name}.parquet") for name in "ab")
    pd.testing.assert_frame_equal(first, second)
    with pytest.raises(PipelineError, match="dvc repro"):  # what is registered is the champion alone
        run(copy, monkeypatch, *predict, str(tmp_path / "c.parquet"), "--refit")
    (copy / "mlflow.db").unlink()
    with pytest.raises(PipelineError, match="dvc repro"):
        run(copy, monkeypatch, *predict, str(tmp_path / "c.parquet"))
    assert not (copy / "mlflow.db").exists()
