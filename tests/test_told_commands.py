"""Every command in the blocks of README and docs/ runs as written, or is on a list with the reason."""

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import scoring_rows as mine
from ruamel.yaml import YAML

from tests import project
from tests.test_end_to_end import copy_of_the_project, git

SERVED = "tests/test_served.py runs this page"
# page and start of a command -> why it does not run here
NOT_RUN = {
    ("README.md", "make repro"): "sets up an environment; what it starts runs in tests/test_end_to_end.py",
    ("README.md", "make test"): "this is it",
    ("tomorrow.md", "make repro"): "the same",
    ("papers.md", "dvc repro paper@"): "hours; tests/test_papers.py runs the stage on generated rows",
    ("papers.md", "ctr paper"): "needs two such tables; tests/test_papers.py runs it",
    ("scoring.md", "ctr"): SERVED,
    ("scoring.md", "export MLFLOW_TRACKING_URI"): SERVED,
    ("scoring.md", "mlflow models"): SERVED,
    ("scoring.md", "curl"): SERVED,
}
SHARED = "/path/to/a/shared/folder"  # in a command, in the place of a folder that exists
INSPECT = "ctr inspect ../logs/clicks.csv --name my-clicks --add"


def told() -> Iterator[tuple[str, str]]:
    """Page and command of every line of a block, without comments; a quoted one may have several lines."""
    for page in (project.ROOT / "README.md", *sorted((project.ROOT / "docs").glob("*.md"))):
        for block in re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            words = ""
            for line in re.sub(r"\s+#.*", "", block).splitlines():
                words += f"\n{line}" if words else line
                if words.count("'") % 2 == 0 and not words.endswith("\\"):
                    if command := words.strip():
                        yield page.name, command
                    words = ""


def why_not(page: str, command: str) -> str | None:
    """Why a command does not run here; None if it does."""
    return next(
        (why for (of, start), why in NOT_RUN.items() if of == page and command.startswith(start)), None
    )


def test_the_list_of_what_does_not_run_is_needed() -> None:
    left_out = {
        (of, start)
        for page, command in told()
        for of, start in NOT_RUN
        if page == of and command.startswith(start)
    }
    assert left_out == set(NOT_RUN)
    assert len({command for page, command in told() if why_not(page, command) is None}) > 12


@pytest.mark.thorough
@pytest.mark.slow
def test_every_command_runs_as_written(tmp_path: Path) -> None:
    """In a small project with an own log; those of DVC last, as its experiments change files."""
    folder = copy_of_the_project(tmp_path / "project")
    (tmp_path / "logs").mkdir()
    mine.write_csv(tmp_path / "logs/clicks.csv", mine.log(2000))
    mine.write_csv(tmp_path / "logs/tomorrow.csv", mine.log(2000, seed=2))
    (tmp_path / "shared").mkdir()
    (tmp_path / "bin").mkdir()
    console = tmp_path / "bin/ctr"  # as set-up installs it, of this checkout
    console.write_text('#!/bin/sh\nexec python -m pipeline "$@"\n')
    console.chmod(0o755)
    env = project.environment(CTR_TRACKING="off")
    env |= {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{env['PATH']}"}

    def run(command: str) -> None:
        command = command.replace(SHARED, str(tmp_path / "shared"))
        done = subprocess.run(["bash", "-c", command], cwd=folder, env=env, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"

    write_params(folder)
    run(INSPECT)
    choose_both(folder / "params.yaml")
    run("python -m pipeline run")  # make repro, after its set-up
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "results")
    table = pd.read_parquet(folder / "data/interim/synthetic/table.parquet")
    table.rename(columns={"label": "click"}).to_csv(folder / "new.csv", index=False)
    commands = [(page, command) for page, command in told() if why_not(page, command) is None]
    for _, command in sorted(commands, key=lambda each: each[0] == "dvc.md"):
        if command != INSPECT:
            run(command)
    assert (folder / "scores.parquet").exists()
    assert (folder / "FOLDER/watch.json").exists()
    experiments = subprocess.run(
        shlex.split("dvc exp list --name-only"), cwd=folder, env=env, capture_output=True, text=True
    ).stdout
    assert len(experiments.split()) == 2  # the one at once and the one of the queue
    assert any((tmp_path / "shared").rglob("*"))


def write_params(folder: Path) -> None:
    """Write params.yaml with one small model on few rows."""
    values = project.small_params(models=["deepfm"])
    values["data"]["synthetic"]["download"]["rows"] = 2500
    values["train"] |= {"epochs": 1, "seeds": [1], "threads": 1}
    values["tune"] |= {"trials": 1, "finalists": 1}
    values["data"]["synthetic"]["settings"] = {}
    with open(folder / "params.yaml", "w", encoding="utf-8") as file:
        YAML(typ="safe", pure=True).dump(values, file)


def choose_both(path: Path) -> None:
    """Put the own log into `datasets`, as the page says."""
    text = path.read_text(encoding="utf-8")
    changed = re.sub(
        r"^datasets:\s*(\[synthetic\]|\n- synthetic)",
        "datasets: [synthetic, my-clicks]",
        text,
        flags=re.MULTILINE,
    )
    assert changed != text
    path.write_text(changed, encoding="utf-8")
