"""The promise of the README on a small scale: git clone, dvc repro, again, and in a second clone."""

import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests import project

pytestmark = [pytest.mark.slow, pytest.mark.thorough]

# without the speed of a training, which only the process that trained knows
RUNS = """select name, status, (
    select count(*) from metrics m where m.run_uuid = r.run_uuid and m.key not like 'speed/%'
) from runs r"""
TAKEN = ("pipeline", "stages", ".dvc", "dvc.yaml", ".dvcignore", ".gitignore")


def call(folder: Path, *words: str) -> str:
    done = subprocess.run(
        words, cwd=folder, env=project.environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def git(folder: Path, *words: str) -> str:
    return call(folder, "git", "-c", "user.name=t", "-c", "user.email=t@example.org", *words)


def copy_of_the_project(folder: Path) -> Path:
    """Copy what DVC needs of the project into a new repository with small params.yaml."""
    folder.mkdir()
    for name in TAKEN:
        source = project.ROOT / name
        if source.is_dir():
            ignore = shutil.ignore_patterns("__pycache__", "cache", "tmp", "config.local")
            shutil.copytree(source, folder / name, ignore=ignore)
        else:
            shutil.copy(source, folder / name)
    git(project.make_project(folder), "init", "-q")
    return folder


@pytest.fixture(scope="module", name="origin")
def _origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project under git, with small params.yaml, run once and committed."""
    folder = copy_of_the_project(tmp_path_factory.mktemp("origin") / "project")
    (folder / "words").write_text(call(folder, "python", "-m", "pipeline", "run"))
    (folder / ".git/info/exclude").write_text("/words\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "results")
    return folder


def test_the_reports_and_the_lock_are_in_git_and_the_data_is_not(origin: Path) -> None:
    files = git(origin, "ls-files").splitlines()
    assert "dvc.lock" in files
    assert f"data/reports/{project.DATASET}/leaderboard.md" in files
    kept = {Path(name).parts[1] for name in files if name.startswith("data/")}
    assert kept == {"reports", "metrics", "plots"}  # what `dvc metrics` and `dvc plots` compare commits by
    assert not [name for name in files if "mlflow.db" in name or name.startswith(("mlruns", "studies"))]


def test_the_first_and_the_last_words_of_a_run(origin: Path) -> None:
    """Which stage of how many, and then the same end as that of a second run and of `report`."""
    first, second = (origin / "words").read_text(), call(origin, "python", "-m", "pipeline", "run")
    assert [line for line in first.splitlines() if line.startswith("stage ")][::8] == [
        "stage 1 of 9: names",
        "stage 9 of 9: evaluate synthetic",
    ]
    last = call(origin, "python", "-m", "pipeline", "report")
    assert last.startswith("synthetic: 2 models on 800 test rows\nchampion: ")
    assert first.endswith(f"\n\n{last}")
    assert second.endswith(f"\n\n{last}")


def test_a_second_run_does_nothing(origin: Path) -> None:
    lock = (origin / "dvc.lock").stat().st_mtime_ns
    assert "up to date" in call(origin, "dvc", "repro")
    assert (origin / "dvc.lock").stat().st_mtime_ns == lock


def test_a_second_clone_that_executes_everything_leaves_git_status_empty(
    origin: Path, tmp_path: Path
) -> None:
    clone = tmp_path / "clone"
    git(origin.parent, "clone", "-q", str(origin), str(clone))
    out = call(clone, "dvc", "repro")
    assert "stages.tune" in out
    assert git(clone, "status", "--porcelain") == ""
    assert (clone / "mlflow.db").exists()


def test_a_lost_database_is_rebuilt_and_nothing_is_retrained(origin: Path) -> None:
    def runs() -> list[tuple[str, str, int]]:
        return sorted(sqlite3.connect(origin / "mlflow.db").execute(RUNS).fetchall())

    before = runs()
    weights = {p: p.stat().st_mtime_ns for p in (origin / "data/runs").rglob("*.safetensors")}
    (origin / "mlflow.db").unlink()
    shutil.rmtree(origin / "mlruns")
    assert "up to date" in call(origin, "dvc", "repro")
    call(origin, "python", "-m", "pipeline", "sync")
    assert runs() == before
    assert weights == {p: p.stat().st_mtime_ns for p in (origin / "data/runs").rglob("*.safetensors")}


def test_a_model_taken_off_the_list_leaves_the_leaderboard(origin: Path, tmp_path: Path) -> None:
    folder = tmp_path / "fewer"
    shutil.copytree(origin, folder, symlinks=True)
    values = project.small_params()
    values["models"] = ["fm"]
    with open(folder / "params.yaml", "w", encoding="utf-8") as file:
        YAML(typ="safe", pure=True).dump(values, file)
    out = call(folder, "dvc", "repro")
    assert "stages.train" not in out
    board = (folder / "data/reports" / project.DATASET / "leaderboard.csv").read_text()
    assert "fm," in board
    assert "lr," not in board
