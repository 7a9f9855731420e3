"""Whole stages as processes: killed and run again, with and without tracking, and on bad input."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from pipeline.files import folder_digest, read_json
from tests import project

pytestmark = pytest.mark.kill


@pytest.fixture(scope="module", name="data")
def _data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose data is prepared."""
    folder = project.make_project(tmp_path_factory.mktemp("stages") / "prepared")
    project.prepare(folder)
    return folder


def copy(data: Path, to: Path) -> Path:
    return Path(shutil.copytree(data, to))


def results(folder: Path, model: str = "fm") -> dict[str, str]:
    runs = folder / "data/runs" / project.DATASET / model
    return {path.name: folder_digest(path) for path in sorted(runs.iterdir())}


@pytest.fixture(scope="module", name="whole")
def _whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train and tune run without a break and without tracking."""
    folder = copy(data, tmp_path_factory.mktemp("whole") / "project")
    for stage in ("train", "tune"):
        done = project.run(folder, stage, "fm", CTR_TRACKING="off")
        assert done.returncode == 0, done.stderr
    return folder


def test_tracking_changes_no_output_and_checkpoints_are_gone(data: Path, whole: Path, tmp_path: Path) -> None:
    """This is why dvc.yaml need not name pipeline/tracking."""
    folder = copy(data, tmp_path / "tracked")
    for stage in ("train", "tune"):
        done = project.run(folder, stage, "fm")
        assert done.returncode == 0, done.stderr
    assert (folder / "mlflow.db").exists()
    assert not (whole / "mlflow.db").exists()
    assert results(folder) == results(whole)
    assert not list((folder / "data/checkpoints").rglob("*.pt"))


@pytest.mark.parametrize(("stage", "variant"), [("train", "default"), ("tune", "tuned")])
def test_a_stage_killed_again_and_again_ends_with_the_same_bytes(
    data: Path, whole: Path, tmp_path: Path, stage: str, variant: str
) -> None:
    folder = copy(data, tmp_path / "killed")
    checkpoints = folder / "data/checkpoints"
    kills = 0
    for _ in range(3):
        seen = fingerprint(checkpoints)
        process = subprocess.Popen(
            project.command(stage, "fm"),
            cwd=folder,
            env=project.environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while process.poll() is None and fingerprint(checkpoints) == seen:
            time.sleep(0.002)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills, "the stage ended before it could be killed"
    done = project.run(folder, stage, "fm")
    assert done.returncode == 0, done.stderr
    assert results(folder)[variant] == results(whole)[variant]


def fingerprint(folder: Path) -> list[tuple[str, int]]:
    return sorted((path.name, path.stat().st_mtime_ns) for path in folder.rglob("*.pt"))


def test_the_tuned_run_tells_how_it_was_found(whole: Path) -> None:
    run = read_json(whole / "data/runs" / project.DATASET / "fm/tuned/run.json")
    default = read_json(whole / "data/runs" / project.DATASET / "fm/default/run.json")
    trials = run["search"]["trials"]
    assert [trial["number"] for trial in trials] == [0, 1, 2]
    assert trials[0]["params"] == {k: default["params"][k] for k in ("model", "train")}
    assert trials[0]["curve"] == default["seeds"][0]["curve"]
    won = trials[run["search"]["best"]]
    assert run["seeds"][0]["curve"] == won["curve"]
    assert [seed["seed"] for seed in run["seeds"]] == [seed["seed"] for seed in default["seeds"]]


@pytest.mark.parametrize(
    ("stage", "model", "dataset", "message"),
    [
        ("train", "depfm", "synthetic", "unknown model 'depfm'; did you mean 'deepfm'"),
        ("train", "fm", "sinthetic", "unknown dataset 'sinthetic'; did you mean 'synthetic'"),
        ("download", None, "sinthetic", "unknown dataset 'sinthetic'; did you mean 'synthetic'"),
        ("evaluate", None, "synthetic", "run"),
    ],
)
def test_a_wrong_name_ends_with_one_line_and_no_traceback(
    data: Path, tmp_path: Path, stage: str, model: str | None, dataset: str, message: str
) -> None:
    folder = copy(data, tmp_path / "bad")
    before = folder_digest(folder / "data")
    done = project.run(folder, stage, model, dataset=dataset)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert folder_digest(folder / "data") == before


def test_a_raw_file_changed_after_its_download_is_named(data: Path, tmp_path: Path) -> None:
    folder = copy(data, tmp_path / "changed")
    raw = folder / "data/raw" / project.DATASET / "clicks.csv"
    raw.write_bytes(raw.read_bytes() + raw.read_bytes().splitlines(keepends=True)[-1])
    done = project.run(folder, "preprocess")
    assert done.returncode == 1
    assert "clicks.csv was changed after its download" in done.stderr
    raw.unlink()
    assert "clicks.csv is missing" in project.run(folder, "preprocess").stderr
