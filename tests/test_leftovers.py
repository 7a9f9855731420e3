"""What a kill leaves does not stop the next run, and two processes at once lose nothing."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock
from ruamel.yaml import YAML

from pipeline.common import leftovers
from pipeline.common.errors import PipelineError
from stages import new_folder
from tests import project
from tests.test_end_to_end import copy_of_the_project, git


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "PAUSE_SECONDS", 0)


def files(root: Path, lock: bytes, rwlock: bytes) -> list[Path]:
    paths = [root / "dvc.lock", root / ".dvc/tmp/rwlock"]
    for path, content in zip(paths, (lock, rwlock), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return paths


def test_whole_files_stay(tmp_path: Path) -> None:
    paths = files(tmp_path, (project.ROOT / "dvc.lock").read_bytes(), b"{}")
    assert leftovers.heal(tmp_path) == []
    assert all(path.exists() for path in paths)
    assert leftovers.heal(tmp_path / "elsewhere") == []


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"\0" * 100, b"schema: '2.0'\nsta", b"schema: '2.0'\nstages:\n  a:\n    cm"),
        b"schema: '2.0'\nstages:\n  a:\n    cmd: x\n    deps:\n    - path:",  # YAML, and no lock
        b"schema: '2.0'\nstages:\n  a:\n    cmd:",
    ],
)
def test_torn_files_are_removed_and_told(content: bytes, tmp_path: Path) -> None:
    paths = files(tmp_path, content, content[:20])
    assert [str(path) for path in paths if path.exists()] == [
        line.split()[0] for line in leftovers.heal(tmp_path)
    ]
    assert not any(path.exists() for path in paths)


def test_the_unfinished_folder_of_a_killed_stage_goes_and_that_of_a_living_one_stays(tmp_path: Path) -> None:
    dead, living = (tmp_path / "data/interim" / f".{name}.tmp" for name in ("dead", "living"))
    for folder in (dead, living):
        folder.mkdir(parents=True)
        (folder / "reading.json").write_text("{}")
    with FileLock(living.with_name(".living.lock")):
        (line,) = leftovers.heal(tmp_path)
    assert line.startswith(str(dead)) and not dead.exists()
    assert (living / "reading.json").exists()


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.parametrize("name", ["dvc.lock", ".dvc/tmp/rwlock"])
def test_dvc_refuses_a_torn_file_until_check_has_mended_it(name: str, tmp_path: Path) -> None:
    folder = copy_of_the_project(tmp_path / "project")

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words, cwd=folder, env=project.environment(), capture_output=True, text=True, check=False
        )

    assert not call("dvc", "repro", "names").returncode
    (folder / name).write_bytes(b"")
    refused = call("dvc", "repro", "names")
    assert refused.returncode
    assert ("validation failed" if name == "dvc.lock" else "corrupted") in refused.stdout + refused.stderr
    assert f"{name} was torn" in call(sys.executable, "-m", "pipeline", "check").stdout
    again = call("dvc", "repro", "names")
    assert not again.returncode, again.stderr


def test_of_two_writers_of_a_folder_the_second_is_told(tmp_path: Path) -> None:
    with new_folder(tmp_path / "raw/t") as folder:
        (folder / "a").touch()
        with pytest.raises(PipelineError, match="another process is writing"), new_folder(tmp_path / "raw/t"):
            pass
        with new_folder(tmp_path / "raw/u"):
            pass
    assert (tmp_path / "raw/t/a").exists()
    with new_folder(tmp_path / "raw/t"):
        pass


def test_the_lock_of_a_folder_whose_content_is_in_git_is_not(tmp_path: Path) -> None:
    shutil.copy(project.ROOT / ".gitignore", tmp_path)
    git(tmp_path, "init", "-q")
    with new_folder(tmp_path / "data/papers/t") as folder:
        (folder / "a").touch()
    assert git(tmp_path, "ls-files", "--others", "--exclude-standard", "data").split() == ["data/papers/t/a"]


@pytest.mark.thorough
@pytest.mark.slow
def test_entries_that_are_added_at_once_are_all_there(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text((project.ROOT / "params.yaml").read_text())
    (tmp_path / "log.csv").write_text("click,user_id\n" + "1,a\n0,b\n" * 20)
    names = [f"log-{number}" for number in range(4)]
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "pipeline", "inspect", "log.csv", "--name", name, "--add"],
            cwd=tmp_path,
            env=project.environment(),
            stdout=subprocess.DEVNULL,
        )
        for name in names
    ]
    assert [each.wait() for each in running] == [0] * len(names)
    values = YAML(typ="safe", pure=True).load((tmp_path / "params.yaml").read_text())
    assert set(names) < set(values["data"])
