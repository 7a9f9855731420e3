"""Seeds in several processes: the same bytes as in one, whatever becomes of the workers."""

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from crew import Started, until_told
from rows import SCHEMAS, write_splits

from pipeline.common import engine
from pipeline.common.errors import Diverged, PipelineError
from pipeline.common.files import SEAL, folder_digest, seal, write_json
from pipeline.train import runs, workers
from pipeline.train.adam import Adam
from pipeline.train.course import LogFn
from pipeline.tune import finals
from pipeline.tune.finished import Finished

pytestmark = pytest.mark.slow

SCHEMA = SCHEMAS["three-domains"]
ROWS = SCHEMA.vocabulary_size
PARAMS = {
    "model": {"embedding_size": 4, "hidden": [8], "dropout": 0.2},
    "train": {"epochs": 3, "batch_size": 64, "lr": 0.02},
}
RESOURCES = runs.Resources(Path("processed"), "cpu", 1, 10**9)
SEEDS = [1, 2, 3]


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    for name in ("CTR_STORE", "CTR_PROCESSES", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    folder = RESOURCES.processed
    folder.mkdir()
    write_splits(folder, SCHEMA, train=400, valid=200)
    write_report()
    yield
    torch.use_deterministic_algorithms(False)
    assert not children(), "no worker stays"


def children() -> list[psutil.Process]:
    """The processes of this one; multiprocessing's own, which tracks semaphores, stays to the end."""
    tracker = resource_tracker._resource_tracker._pid
    return [child for child in psutil.Process().children() if child.pid != tracker]


def write_report(dataset: str = "d") -> None:
    """As the split stage does last."""
    folder = RESOURCES.processed
    write_json(folder / "report.json", {"dataset": dataset})
    seal(folder)


def head(params: runs.Block = PARAMS) -> runs.RunHeader:
    return runs.RunHeader.of(
        "train", "d", "deepfm", "deepfm", {**params, "seeds": SEEDS}, RESOURCES.processed
    )


def test_rows_are_the_same_whatever_they_are_called_and_other_ones_with_any_other_file() -> None:
    folder = RESOURCES.processed
    before = head()
    write_report("another")
    after = runs.RunHeader.of("train", "another", "fm", "fm", {"model": {}}, folder)
    assert after.rows == before.rows
    assert after.input != before.input
    assert after.key != before.key
    named = {before.rows}

    def other_rows() -> None:
        write_report()
        named.add(head().rows)

    files = [path for path in folder.iterdir() if path.name not in ("report.json", SEAL)]
    for path in files:
        content = path.read_bytes()
        path.write_bytes(content + b" ")
        other_rows()
        path.write_bytes(content)
        moved = path.rename(path.with_name(f"x{path.name}"))
        other_rows()
        moved.rename(path)
    np.save(folder / "train.time.npy", np.arange(400))
    other_rows()
    assert len(files) == 5
    assert len(named) == 2 + 2 * len(files)


def test_rows_that_were_changed_after_their_split_are_refused() -> None:
    path = RESOURCES.processed / "train.ids.npy"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(PipelineError, match=r"train\.ids\.npy was changed .*or `dvc repro split@processed`"):
        head()
    path.unlink()
    with pytest.raises(PipelineError, match=r"train\.ids\.npy is missing; .*or `dvc repro split@processed`"):
        head()
    path.write_bytes(whole)
    head()


@contextmanager
def after_worker(started: Started, name: str, _key: str, _params: runs.Block) -> Iterator[LogFn]:
    """Let a worker begin the second seed."""
    if name == "seed-2":
        started.wait_for_a_job()
    yield lambda _row, _step: None


@contextmanager
def quiet(_name: str, _key: str, _params: runs.Block) -> Iterator[LogFn]:
    yield lambda _row, _step: None


def train(out: str, processes: int, child: runs.Child = quiet, seeds: Sequence[int] = SEEDS) -> str:
    """Train a run; return a digest of all that it left."""
    resources = replace(RESOURCES, processes=processes)
    result = runs.train_seeds(head(), PARAMS, resources.load(), seeds, child, Path(out), resources)
    runs.finish(Path(out), {**head().to_json(), **result})
    return folder_digest(Path(out))


@pytest.mark.parametrize(
    ("rows_in_memory", "lazy", "lines"),
    [
        (400, {"lazy_rows": SCHEMA.vocabulary_size + 1}, []),
        (400, {}, []),
        (399, {}, ["train split streamed: 400 rows are more than rows_in_memory (399)"]),
        (
            150,
            {"lazy_rows": SCHEMA.vocabulary_size},
            [
                "train split streamed: 400 rows are more than rows_in_memory (150)",
                "valid split streamed: 200 rows are more than rows_in_memory (150)",
                f"with {ROWS} ids, tables get sparse updates (lazy_rows {ROWS})",
            ],
        ),
    ],
)
def test_what_is_not_as_usual_is_told_once_before_the_first_seed(
    rows_in_memory: int, lazy: dict[str, int], lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    runs._print_once.cache_clear()
    resources = replace(RESOURCES, rows_in_memory=rows_in_memory, processes=1)
    params = {**PARAMS, "train": {**PARAMS["train"], "epochs": 1, **lazy}}
    parts = resources.load()
    more = runs.execution_settings(parts, rows_in_memory)
    top = runs.RunHeader.of("train", "d", "deepfm", "deepfm", params, RESOURCES.processed, **more)
    runs.train_seeds(top, params, parts, SEEDS, quiet, Path("told"), resources)
    said = capsys.readouterr().out.splitlines()
    assert said[: len(lines)] == lines
    assert all(f"seed {seed}: " in line for seed, line in zip(SEEDS, said[len(lines) :], strict=True))


@pytest.fixture(name="alone")
def _alone(monkeypatch: pytest.MonkeyPatch) -> str:
    """What a run by one process leaves, that knows no store."""
    with monkeypatch.context() as context:
        context.setenv("CTR_STORE", "off")
        return train("alone", 1)


def test_workers_take_their_share_and_change_nothing(alone: str, fits: list[int], started: Started) -> None:
    assert train("shared", 2, partial(after_worker, started)) == alone
    assert fits in ([1], [1, 3]), "the second is the worker's, the third whoever is free"
    fits.clear()
    assert train("again", 2) == alone
    assert fits == []


@pytest.mark.thorough
def test_without_the_store_they_hand_over_at_the_last_checkpoint(
    alone: str, fits: list[int], started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CTR_STORE", "off")
    steps: list[int] = []
    monkeypatch.setattr(Adam, "step", counting(Adam.step, steps))
    assert train("shared", 3, partial(after_worker, started)) == alone
    assert set(fits) == set(SEEDS), "each is taken up here, too"
    assert len(steps) in (3 * 7, 2 * 3 * 7), "but the second was at its end; the third is whose turn it was"
    assert not runs.CHECKPOINTS.exists() or not list(runs.CHECKPOINTS.rglob("*.pt"))


def counting(function: Callable[..., Any], calls: list[int]) -> Callable[..., Any]:
    def counted(*args: Any, **more: Any) -> Any:
        calls.append(1)
        return function(*args, **more)

    return counted


def test_what_the_log_hears_is_the_same(alone: str) -> None:
    heard: dict[int, list[Any]] = {1: [], 2: []}

    def ear(processes: int) -> runs.Child:
        @contextmanager
        def child(name: str, _key: str, _params: runs.Block) -> Iterator[LogFn]:
            yield lambda row, step: heard[processes].append((name, list(row.items()), step))

        return child

    os.environ["CTR_STORE"] = "off"
    try:
        assert [train(f"of-{n}", n, ear(n)) for n in heard] == [alone] * 2
    finally:
        del os.environ["CTR_STORE"]
    assert heard[1] == heard[2]
    assert [name for name, *_ in heard[1]] == [f"seed-{seed}" for seed in SEEDS for _ in range(3)]


@pytest.mark.parametrize("busy", [False, True])
def test_a_killed_worker_is_reported_once_and_its_seeds_are_trained_here(
    alone: str,
    fits: list[int],
    started: Started,
    capfd: pytest.CaptureFixture[str],
    busy: bool,
) -> None:
    @contextmanager
    def murder(name: str, _key: str, _params: runs.Block) -> Iterator[LogFn]:
        if name == "seed-1":
            if busy:
                started.wait_for_a_job()
            started.kill()
        yield lambda _row, _step: None

    assert train("shared", 2, murder) == alone
    assert set(SEEDS) - set(fits) <= ({1, 2} if busy else set()), "what the worker had done is not done again"
    assert capfd.readouterr().err.count("was ended by SIGKILL; its trainings are made here") == 1


def test_who_is_free_takes_the_next_job(tmp_path: Path, started: Started) -> None:
    mine = list[int]()

    def here(jobs: Iterable[int]) -> Iterator[int]:
        for job in jobs:
            mine.append(job)
            if job == 4:
                (tmp_path / "enough").touch()
            yield job

    with workers.prefetch(partial(until_told, tmp_path), here, [0, 1, 3, 4], 2) as wait:
        started.wait_for_a_job()
        wait(2)
        assert mine == [], "that one was done before"
        wait(0)
        assert mine == [1, 3, 4], "while the worker was busy with the first"
        for job in (1, 3, 4):
            wait(job)
    assert mine == [1, 3, 4]


def test_a_worker_keeps_quiet_about_what_the_run_will_meet_itself(
    capfd: pytest.CaptureFixture[str], started: Started
) -> None:
    wild = {**PARAMS, "train": {**PARAMS["train"], "lr": 1e30}}
    parts = RESOURCES.load()
    ahead = partial(runs.train_ahead, head(wild), [(wild, 1), (wild, 2)], RESOURCES)
    with workers.prefetch(ahead, partial(ahead, splits=parts), [0, 1], 2) as wait:
        started.wait_for_a_job()
        wait(0)
        wait(1)
        with pytest.raises(Diverged, match="not a finite number at step 7"):
            runs.train_once(head(wild), parts, wild, 2, checkpoint=head(wild).seed_checkpoint(2))
    assert capfd.readouterr() == ("", "")


def test_an_error_in_the_run_ends_its_workers() -> None:
    """That none is left is seen at the end of each test."""

    @contextmanager
    def broken(_name: str, _key: str, _params: runs.Block) -> Iterator[LogFn]:
        raise PipelineError("no more")
        yield

    with pytest.raises(PipelineError, match="no more"):
        train("shared", 3, broken)


def test_seeds_that_are_there_need_no_worker(alone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    train("two", 1, seeds=SEEDS[:2])

    def started(*_: Any) -> None:
        raise AssertionError("a worker for a single seed")

    monkeypatch.setattr(workers, "_worker", started)
    assert train("rest", 3) == alone


def test_one_set_of_workers_trains_all_finalists(started: Started, fits: list[int]) -> None:
    trials = [Finished(number, "COMPLETE", 0.7, {"lr": lr}, []) for number, lr in ((3, 0.02), (0, 1e30))]
    trials.append(Finished(1, "COMPLETE", 0.7, {"lr": 0.01}, []))

    def at(point: dict[str, Any]) -> runs.Block:
        return {**PARAMS, "train": {**PARAMS["train"], **point}}

    def play(processes: int) -> list[finals.Finalist]:
        resources = replace(RESOURCES, processes=processes)
        return finals.play(trials, "auc", at, head(), resources.load(), SEEDS, resources)

    found = play(2)
    assert len(started) == 1
    assert [each.seeds for each in found] == [SEEDS, [1], SEEDS]
    assert len(fits) <= 7
    shutil.rmtree(runs.cache.FOLDER)
    assert play(1) == found


def test_ctrl_c_is_the_runs_affair(started: Started) -> None:
    """All processes of a terminal get it; a worker that died of it would print."""
    ahead = partial(runs.train_ahead, head(), [(PARAMS, 1), (PARAMS, 2)], RESOURCES)
    with workers.prefetch(ahead, partial(ahead, splits=RESOURCES.load()), [0, 1], 2) as wait:
        (worker,) = children()
        for _ in range(20):
            if worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE:
                os.kill(worker.pid, signal.SIGINT)
            time.sleep(0.02)
        started.wait_for_a_job()
        wait(0)
    assert list(runs.cache.FOLDER.glob("*.safetensors"))


# ---- how many ----


def test_the_environment_wins_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    assert engine.processes("auto") is None
    assert engine.processes(3) == 3
    monkeypatch.setenv("CTR_PROCESSES", "2")
    assert engine.processes(3) == 2
    monkeypatch.setenv("CTR_PROCESSES", "auto")
    assert engine.processes(3) is None
    for wrong in ("0", "-1", "two", "1.5"):
        monkeypatch.setenv("CTR_PROCESSES", wrong)
        with pytest.raises(PipelineError, match=r"CTR_PROCESSES=.*must be `auto` or a positive integer"):
            engine.processes(3)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert engine.processes(3) == 1


def test_a_fixed_rule_says_what_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "cores", lambda: 8)
    large: dict[str, Any] = {"threads": 1, "device": "cpu", "passes": workers.WORTHWHILE_ROWS, "nbytes": 1000}
    assert workers.worthwhile_processes(**large) == 8
    assert workers.worthwhile_processes(**{**large, "threads": 3}) == 2
    assert workers.worthwhile_processes(**{**large, "threads": 16}) == 1
    assert workers.worthwhile_processes(**{**large, "device": "cuda"}) == 1
    assert workers.worthwhile_processes(**{**large, "passes": workers.WORTHWHILE_ROWS - 1}) == 1
    assert workers.worthwhile_processes(**{**large, "nbytes": 2**50}) == 1
