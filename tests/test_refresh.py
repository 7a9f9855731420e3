"""Local source files that changed are detected, and no others."""

import os
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline import __main__ as command
from pipeline.common.errors import PipelineError
from pipeline.datasets import tabular
from pipeline.download import obtain
from pipeline.download.refresh import stale


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A dataset of one file and one of a folder, both copied."""
    (tmp_path / "logs").mkdir()
    for name in ("a.csv", "b.csv", "notes.md"):
        (tmp_path / "logs" / name).write_text(f"user,click\n{name},1\n")
    (tmp_path / "one.csv").write_text("user,click\nu,1\n")
    data = {
        name: {"source": "tabular", "download": {"path": path}}
        for name, path in (("one", "one.csv"), ("many", "logs"), ("unlisted", "one.csv"))
    }
    data["public"] = {"source": "movielens-1m", "download": {}}
    with open(tmp_path / "params.yaml", "w") as file:
        YAML(typ="safe", pure=True).dump({"datasets": ["one", "many", "public"], "data": data}, file)
    for name in ("one", "many"):
        take(tmp_path, name)
    return tmp_path


def take(project: Path, name: str) -> None:
    folder = project / "data/raw" / name
    folder.mkdir(parents=True, exist_ok=True)
    tabular.download(folder, folder, path=str(project / {"one": "one.csv", "many": "logs"}[name]))


def test_nothing_changed(project: Path):
    assert stale(project) == []
    os.utime(project / "one.csv")  # touched, with the same bytes
    (project / "logs/notes.md").write_text("no table")
    assert stale(project) == []


@pytest.mark.parametrize("text", ["user,click\nv,1\n", "user,click\nlonger,1\n"])
def test_other_bytes_of_any_length_are_detected(project: Path, text: str):
    (project / "one.csv").write_text(text)
    assert stale(project) == ["one"]
    take(project, "one")
    assert stale(project) == []


def test_an_older_file_in_its_place_is_detected(project: Path):
    other = project / "other.csv"
    other.write_text("user,click\nv,1\n")
    os.utime(other, (0, 0))
    other.rename(project / "one.csv")
    assert stale(project) == ["one"]


def test_a_folder_that_gains_or_loses_a_file_is_detected(project: Path):
    (project / "logs/c.csv").write_text("user,click\nu,0\n")
    assert stale(project) == ["many"]
    (project / "logs/c.csv").unlink()
    assert stale(project) == []
    (project / "logs/a.csv").unlink()
    assert stale(project) == ["many"]


def test_of_a_folder_from_which_one_file_was_copied_only_that_one_counts(project: Path):
    """As for a source that copies a file of a certain name."""
    raw = project / "data/raw/many"
    for file in raw.iterdir():
        file.unlink()
    obtain.copy_own(project / "logs/a.csv", raw, source="avazu-1m")
    assert stale(project) == []
    (project / "logs/a.csv").write_text("user,click\nb.csv,1\n")
    assert stale(project) == ["many"]


def test_a_source_that_no_longer_exists_is_reported_and_one_never_copied_is_left_to_the_stages(
    project: Path, capsys: pytest.CaptureFixture[str]
):
    (project / "one.csv").unlink()
    (project / "data/raw/many/manifest.json").unlink()
    assert stale(project) == []
    assert capsys.readouterr().out == "one: one.csv no longer exists; the copy in data/raw/one is used\n"


def test_a_broken_or_missing_params_file_is_an_error_and_wrong_values_are_left_to_the_stages(project: Path):
    (project / "params.yaml").write_text("datasets: [one]\ndata: {one: {download: [one.csv]}}\n")
    assert stale(project) == []
    (project / "params.yaml").write_text("datasets: [one\n")
    with pytest.raises(PipelineError, match=r"params\.yaml is not valid YAML in line 2"):
        stale(project)
    (project / "params.yaml").write_text("datasets: [on]\ndata: {one: {}}\n")
    with pytest.raises(PipelineError, match="unknown dataset 'on'; did you mean 'one'"):
        stale(project)
    (project / "params.yaml").unlink()
    with pytest.raises(PipelineError, match=r"params\.yaml is missing"):
        stale(project)


def test_the_command_downloads_changed_datasets_again(project: Path, monkeypatch: pytest.MonkeyPatch):
    ran: list[list[str]] = []

    def run(words: list[str], **_: object) -> "subprocess.CompletedProcess[str]":
        ran.append(words)
        return subprocess.CompletedProcess(words, returncode=len(ran) - 1)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr("sys.argv", ["pipeline", "--root", str(project), "refresh"])
    command.main()
    assert ran == []
    (project / "one.csv").write_text("user,click\nv,1\n")
    command.main()
    assert ran == [["dvc", "repro", "--force", "--single-item", "download@one"]]
    with pytest.raises(PipelineError, match=r"download@one failed"):
        command.main()
