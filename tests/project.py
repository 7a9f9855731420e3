"""A small project in a temporary folder, for tests that run whole stages."""

import importlib
import os
import signal
import subprocess
import sys
import time
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent
DATASET = "synthetic"


@cache
def _own_params() -> dict[str, Any]:
    values: dict[str, Any] = YAML(typ="safe", pure=True).load((ROOT / "params.yaml").read_text())
    return values


def own_params() -> dict[str, Any]:
    """The project's own params.yaml; a test may change what it gets."""
    return deepcopy(_own_params())


def small_params(**changes: Any) -> dict[str, Any]:
    """The project's own params.yaml, cut down to seconds."""
    values = own_params()
    values["datasets"], values["models"] = [DATASET], ["lr", "fm"]
    item = values["data"][DATASET]
    item["download"]["rows"] = 4000
    item["settings"] = {
        "train": {"epochs": 4, "batch_size": 128, "seeds": [1, 2], "threads": 1},
        "tune": {"trials": 3, "space": {"train": {"batch_size": None}}},
    }
    return {**values, **changes}


def make_project(folder: Path, **changes: Any) -> Path:
    """Write params.yaml into `folder`; the code is reached through PYTHONPATH."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "params.yaml", "w", encoding="utf-8") as file:
        YAML(typ="safe", pure=True).dump(small_params(**changes), file)
    return folder


def environment(**more: str) -> dict[str, str]:
    """The environment of a stage: this project's code, no tracking server of the machine's."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "CTR_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    return {**env, "PYTHONPATH": str(ROOT), "PATH": path, "PYTHONWARNINGS": "ignore", **more}


def command(stage: str, model: str | None = None, dataset: str = DATASET) -> list[str]:
    """The command of a stage as dvc.yaml has it."""
    words = [sys.executable, "-m", f"stages.{stage}", "--dataset", dataset]
    return [*words, "--model", model] if model else words


def run(
    folder: Path, stage: str, model: str | None = None, *, dataset: str = DATASET, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run a stage to its end."""
    return subprocess.run(
        command(stage, model, dataset),
        cwd=folder,
        env=environment(**env),
        capture_output=True,
        text=True,
        check=False,
    )


def prepare(folder: Path, dataset: str = DATASET, mirror: Path | None = None) -> None:
    """Run download, preprocess and split in this process (test_end_to_end.py runs them as processes)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("CTR_MIRROR", raising=False)
        if mirror:
            patch.setenv("CTR_MIRROR", str(mirror))
        patch.setattr("sys.argv", ["stage", "--dataset", dataset])
        for stage in ("download", "preprocess", "split"):
            importlib.import_module(f"stages.{stage}").main()


def checkpoints(folder: Path) -> list[tuple[str, int]]:
    """The checkpoints of a project and when each was written."""
    found = (folder / "data/checkpoints").rglob("*.pt")
    return sorted((path.name, path.stat().st_mtime_ns) for path in found)


def kill_at_checkpoints(folder: Path, words: list[str], times: int = 3, **env: str) -> None:
    """Start a stage again and again, and SIGKILL it whenever it has written a checkpoint."""
    kills = 0
    for _ in range(times):
        seen = checkpoints(folder)
        process = subprocess.Popen(
            words, cwd=folder, env=environment(**env), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and checkpoints(folder) == seen:
            time.sleep(0.002)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills, "the stage ended before it could be killed"
