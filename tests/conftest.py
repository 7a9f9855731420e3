"""What every test starts from: shapes checked as types, one thread, the same random numbers."""

import gc
import importlib
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jaxtyping

gc.disable()  # until everything is imported and collected: see `pytest_collection_finish`

# Before anything imports these modules: from here on every call checks the shapes it declares.
jaxtyping.install_import_hook(
    ["pipeline.models", "pipeline.layers", "pipeline.data", "pipeline.train"], "shapes.checked"
)

import project  # noqa: E402
import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

settings.register_profile("project", deadline=None, derandomize=True, max_examples=60, database=None)
settings.register_profile("quick", settings.get_profile("project"), max_examples=10)
settings.load_profile("project")


def pytest_collectstart() -> None:
    """Import torch where tests run: with `-n`, pytest's own process reads this file, too, and runs none."""
    import torch

    torch.set_num_threads(1)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Where slow tests are left out, do not import a file of slow tests alone, with MLflow and browsers."""
    left_out = re.fullmatch(r"not slow( and not \w+)*|not \(slow( or \w+)*\)", config.option.markexpr)
    if not left_out or not collection_path.match("tests/test_*.py"):
        return None
    return bool(re.search(r"(?m)^pytestmark = .*\bslow\b", collection_path.read_text("utf-8"))) or None


def pytest_collection_finish() -> None:
    """Modules and tests stay to the end: the garbage collector need not go through them again and again."""
    gc.freeze()
    gc.enable()


LONG = [  # files that take longest, the longest first
    *("told_commands", "blend_served", "end_to_end", "tracking", "dvc_commands", "export", "cures", "served"),
    *("workers", "parallel", "zoo", "models"),
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files come first, then those with slow tests, so that several workers end at the same time."""
    rank = {f"test_{name}": number for number, name in enumerate(LONG)}
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path not in slow, rank.get(item.path.stem, len(LONG))))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    import numpy as np
    import torch

    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  for libraries that read the global state
    torch.default_generator.manual_seed(0)  # torch.manual_seed formats a stack for GPUs every time
    torch.set_flush_denormal(False)  # `reproducible` sets it for its process, and here other tests follow


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Run stages of a dataset in a project folder, in this process; return the data folder."""

    def go(folder: Path, dataset: str, *names: str) -> Path:
        if not (folder / "params.yaml").exists():
            project.make_project(folder)
        monkeypatch.chdir(folder)
        monkeypatch.setattr("sys.argv", ["stage", "--dataset", dataset])
        for name in names or ("download", "preprocess", "split"):
            importlib.import_module(f"stages.{name}").main()
        return folder / "data"

    monkeypatch.delenv("CTR_MIRROR", raising=False)
    return go


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seeds that this process really trained, or went on with, instead of taking them from the store."""
    from pipeline.train import runs

    seeds, fit = list[int](), runs.fit

    def counted(*args: Any, seed: int, **more: Any) -> Any:
        seeds.append(seed)
        return fit(*args, seed=seed, **more)

    monkeypatch.setattr(runs, "fit", counted)
    return seeds


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The workers that a run starts: a `crew.Started`."""
    from crew import Started

    workers = Started()
    workers.watch(monkeypatch)
    return workers
