"""make knows when the environment has to be made again; nothing is installed here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from project import ROOT


@pytest.mark.parametrize(
    ("remembered", "again"),
    [
        ("{folder}/.venv {python}", False),
        ("", False),  # of a time when nothing was remembered
        ("/before/the/move/.venv {python}", True),
        ("{folder}/.venv 3 9", True),
    ],
)
def test_an_environment_is_made_again_after_a_move_or_an_upgrade(
    remembered: str, again: bool, tmp_path: Path
) -> None:
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").symlink_to(sys.executable)
    version = "{} {}".format(*sys.version_info)
    (tmp_path / ".venv/.complete").write_text(remembered.format(folder=tmp_path, python=version))
    done = subprocess.run(["make", "-n", "setup"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ("venv --clear" in done.stdout) == again
    assert ("requirements.lock" in done.stdout) == again


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.mark.parametrize("git", ["folder", "file of a worktree", "none"])
def test_dvc_does_without_git_only_where_there_is_none(git: str, tmp_path: Path) -> None:
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    if git == "folder":
        (tmp_path / ".git").mkdir()
    elif git != "none":
        (tmp_path / ".git").write_text("gitdir: ../main/.git/worktrees/wt\n")
    program(tmp_path / "bin/uv", "exit 0")
    program(tmp_path / ".venv/bin/dvc", 'echo "$@" >> dvc.calls')
    program(tmp_path / ".venv/bin/python", f'test "$1" = -m || exec {sys.executable} "$@"')
    env = {**os.environ, "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run(
        ["make", "setup", f"PYTHON={sys.executable}"], cwd=tmp_path, env=env, capture_output=True, check=True
    )
    calls = tmp_path / "dvc.calls"
    told = calls.read_text() if calls.exists() else ""
    assert told == ("config --local core.no_scm true\n" if git == "none" else "")


@pytest.mark.parametrize(
    ("own", "name", "home"),
    [
        ({}, "54321", "{folder}/.dvc/tmp"),  # a container's user: DVC asks for a name, and MLflow for a home
        ({"LOGNAME": "me", "HOME": "/home/me"}, "me", "/home/me"),
    ],
)
def test_a_user_without_a_name_or_a_home_gets_both(
    own: dict[str, str], name: str, home: str, tmp_path: Path
) -> None:
    (tmp_path / "Makefile").write_bytes((ROOT / "Makefile").read_bytes())
    program(
        tmp_path / "bin/id", 'test "$1" = -u && echo 54321'
    )  # `id -un` fails, as without an entry in passwd
    env = {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}", "PYTHONSAFEPATH": "1", **own}
    # `stages` is found in the folder that make runs in, whatever PYTHONSAFEPATH says
    show = 'import getpass, os, sys; assert "" in sys.path; print(getpass.getuser(), os.environ["HOME"])'
    command = ["make", "--no-print-directory", "--eval", f"show: ; @{sys.executable} -c '{show}'", "show"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [name, home.format(folder=tmp_path)]
