"""make knows when the environment has to be made again; nothing is installed here."""

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
