"""A search in waves with workers that train ahead: the same trials and winner, whatever their number."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from crew import Started
from rows import SCHEMAS, write_splits

from pipeline.common.files import seal, write_json
from pipeline.config.settings import Config, Train
from pipeline.config.space import Dimension, Tune
from pipeline.train import runs
from pipeline.train.course import LogFn
from pipeline.tune import study
from pipeline.tune.journal import JOURNAL

pytestmark = pytest.mark.slow

SCHEMA = SCHEMAS["three-domains"]
RESOURCES = runs.Resources(Path("processed"), "cpu", 1, 10**9)
CONFIG = Config(
    architecture="fm",
    model={"embedding_size": 4},
    paper={"embedding_size": 8},
    train=Train.model_validate(
        {
            "seeds": [1],
            "device": "cpu",
            "threads": 1,
            "rows_in_memory": 10**9,
            "fit": {"epochs": 4, "lr": 0.02},
        }
    ),
    tune=Tune(
        trials=7,
        wave=4,
        finalists=1,
        startup_trials=2,
        pruner_startup_trials=2,
        pruner_warmup_evaluations=1,
        pruner_quantile=0.6,
        space={},
    ),
    space={
        "model.embedding_size": Dimension(choices=[2, 4, 8]),
        "train.lr": Dimension(low=1e-3, high=1e-1, log=True),
    },
    file="params.yaml",
    place="model.fm",
)


class Silent:
    """A view that looks at the trials and shows nothing."""

    def __init__(self, look: Callable[[str], None] = lambda _name: None) -> None:
        self.look = look

    @contextmanager
    def child(self, name: str, _key: str, _params: runs.Block) -> Iterator[LogFn]:
        self.look(name)
        yield lambda _row, _step: None

    def log(self, metrics: dict[str, float], step: int) -> None:
        pass


def workers() -> list[psutil.Process]:
    """The processes that train ahead; multiprocessing's own, which tracks semaphores, is none of them."""
    tracker = resource_tracker._resource_tracker._pid
    return [child for child in psutil.Process().children() if child.pid != tracker]


def searched(
    folder: Path, monkeypatch: pytest.MonkeyPatch, processes: int, view: Silent | None = None
) -> dict[str, Any]:
    """What a search in a folder of its own gives."""
    folder.mkdir()
    monkeypatch.chdir(folder)
    processed = RESOURCES.processed
    processed.mkdir()
    write_splits(processed, SCHEMA, train=600, valid=300)
    write_json(processed / "report.json", {"dataset": "d", "origin": None})
    seal(processed)
    resources = replace(RESOURCES, processes=processes)
    splits = resources.load()
    header = study.describe("d", "fm", CONFIG, splits, processed)
    found = study.run(header, CONFIG, splits, resources, view or Silent())
    assert not workers(), "no worker stays"
    return {"history": found.history(), "trials": found.trials, "header": header.to_json()}


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("CTR_STORE", "CTR_PROCESSES", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.thorough
def test_the_same_trials_and_winner_with_one_two_and_four_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = searched(tmp_path / "1", monkeypatch, 1)
    states = [trial.state for trial in alone["trials"]]
    assert len(states) == 7 and "PRUNED" in states and "COMPLETE" in states
    assert searched(tmp_path / "2", monkeypatch, 2) == alone
    monkeypatch.setenv("CTR_STORE", "off")  # then the checkpoints hand over
    assert searched(tmp_path / "4", monkeypatch, 4) == alone


@pytest.mark.thorough
def test_workers_train_ahead_and_a_killed_one_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fits: list[int], started: Started
) -> None:
    alone = searched(tmp_path / "1", monkeypatch, 1)
    trained = len(fits)
    fits.clear()

    def hold(name: str) -> None:
        if name == "trial-001":
            started.wait_for_a_job()

    assert searched(tmp_path / "2", monkeypatch, 2, Silent(hold)) == alone
    assert len(fits) < trained, "those of the workers are theirs"
    started.clear()

    def murder(name: str) -> None:
        if name == "trial-000":
            started.kill()

    assert searched(tmp_path / "killed", monkeypatch, 3, Silent(murder)) == alone
    assert len(started) >= 2


def test_a_search_without_waves_has_the_key_that_it_had_before_there_were_waves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = searched(tmp_path / "waves", monkeypatch, 1)
    assert found["header"]["tune"]["wave"] == 4
    one = CONFIG.model_copy(update={"tune": CONFIG.tune.model_copy(update={"wave": 1})})
    header = study.describe("d", "fm", one, RESOURCES.load(), RESOURCES.processed)
    assert "wave" not in header.to_json()["tune"]
    assert JOURNAL.exists()
