"""A search on PostgreSQL: several processes take its trials, and trials and winner are the same."""

import json
import os
import pickle
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import optuna
import postgresql
import pytest
from test_tuning import SETTINGS, SPACE, STARTS, Killed, climb, run
from test_waves import CONFIG, RESOURCES, Silent, searched

from pipeline.common.errors import PipelineError
from pipeline.config.params import Params
from pipeline.train.course import LogFn
from pipeline.tune import search, shared, study
from pipeline.tune.finished import Finished
from tests import project

pytestmark = [pytest.mark.slow, pytest.mark.kill]
NUMBERS = count()  # of databases
WAVE = SETTINGS.model_copy(update={"wave": 4, "trials": 10})


@pytest.fixture(scope="module")
def server() -> Iterator[postgresql.Server]:
    with postgresql.running() as started:
        yield started


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CTR_STORE", "CTR_PROCESSES", "CTR_STUDIES", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(shared, "POLL_SECONDS", 0.05)


@pytest.fixture
def fresh(server: postgresql.Server) -> Callable[[], str]:
    """Addresses of databases of their own."""
    import psycopg2

    def new() -> str:
        connection = psycopg2.connect(server.address())
        connection.autocommit = True
        name = f"studies{next(NUMBERS)}"
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name}")
        connection.close()
        return server.address(database=name)

    return new


def on_server(
    address: str, folder: Path, objective: search.Objective = climb, settings: Any = WAVE
) -> list[Finished]:
    found = search.search(
        "study", SPACE, STARTS, objective, settings, journal=folder / "journal.jsonl", server=address
    )
    return found[0]


@pytest.mark.parametrize("wave", [1, 4])
def test_the_trials_on_a_server_are_those_of_the_file(
    fresh: Callable[[], str], tmp_path: Path, wave: int
) -> None:
    settings = WAVE.model_copy(update={"wave": wave})
    address = fresh()
    found = search.search(
        "study", SPACE, STARTS, climb, settings, journal=tmp_path / "no.jsonl", server=address
    )
    assert found == search.search("study", SPACE, STARTS, climb, settings, journal=tmp_path / "j.jsonl")
    assert not (tmp_path / "no.jsonl").exists()
    # what optuna-dashboard opens
    loaded = optuna.load_study(study_name="study", storage=shared.with_driver(address))
    assert sorted(trial.user_attrs["number"] for trial in loaded.trials) == list(range(10))
    assert loaded.best_value == max(trial.value for trial in found[0] if trial.value is not None)
    assert loaded.metric_names == ["validation AUC"]


def test_processes_share_the_trials_of_a_wave(fresh: Callable[[], str], tmp_path: Path) -> None:
    """As threads here: two meet in a wave, so neither has done it alone."""
    address, meeting = fresh(), threading.Barrier(2, timeout=60)
    done: dict[str, list[int]] = {"a": [], "b": []}

    def objective(who: str) -> search.Objective:
        def train(number: int, point: dict[str, Any], log: LogFn) -> None:
            if not done[who]:
                meeting.wait()
            done[who].append(number)
            climb(number, point, log)

        return train

    def take_part(who: str) -> None:
        search.take_part("study", SPACE, STARTS, objective(who), WAVE, address)

    threads = [threading.Thread(target=take_part, args=(who,)) for who in done]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done["a"] + done["b"]) == list(range(10)), "each is trained once"
    assert done["a"] and done["b"]
    assert on_server(address, tmp_path) == run(tmp_path / "j.jsonl", climb, WAVE)


@pytest.mark.parametrize(("kill_at", "step"), [(0, 1), (5, 2), (9, 3)])
def test_a_killed_search_on_a_server_ends_like_one_that_was_not(
    fresh: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kill_at: int, step: int
) -> None:
    address = fresh()

    def dies(number: int, point: dict[str, Any], log: LogFn) -> None:
        for at in (1, 2, 3):
            if (number, at) == (kill_at, step):
                raise Killed
            climb_once(number, point, log, at)

    with pytest.raises(Killed):
        on_server(address, tmp_path, dies)
    # this process lives, so its trial is another's only when it has been silent for long
    monkeypatch.setattr(shared.Claims.__init__, "__defaults__", (0.2,))
    assert on_server(address, tmp_path) == run(tmp_path / "j.jsonl", climb, WAVE)


def climb_once(number: int, point: dict[str, Any], log: LogFn, at: int) -> None:
    """One evaluation of `climb`."""

    def only(row: dict[str, float], step: int) -> None:
        if step == at:
            log(row, step)

    climb(number, point, only)


def test_a_process_that_was_taken_for_gone_changes_nothing(fresh: Callable[[], str], tmp_path: Path) -> None:
    address = fresh()
    stolen: list[int] = []

    def robbed(number: int, point: dict[str, Any], log: LogFn) -> None:
        if number == 2 and not stolen:
            loaded = optuna.load_study(study_name="study", storage=shared.with_driver(address))
            mine = next(trial for trial in loaded.trials if trial.user_attrs["number"] == 2)
            loaded.tell(mine.number, state=optuna.trial.TrialState.FAIL)
            stolen.append(number)
        climb(number, point, log)

    assert on_server(address, tmp_path, robbed) == run(tmp_path / "j.jsonl", climb, WAVE)
    assert stolen == [2]


def test_a_value_that_was_changed_on_the_server_never_counts(
    fresh: Callable[[], str], tmp_path: Path
) -> None:
    import psycopg2

    address = fresh()
    on_server(address, tmp_path)
    with psycopg2.connect(address) as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE trial_values SET value = 0.99 WHERE trial_id = 2")
    with pytest.raises(PipelineError, match=r"trial 1 of study was changed after its end\): delete it there"):
        on_server(address, tmp_path)


def test_a_server_that_is_not_there_and_a_wrong_address_are_messages_without_secrets(
    server: postgresql.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = server.address(user="me:top/secret", database="nothing")
    with pytest.raises(PipelineError, match=r"studies at postgresql://\*\*\*@127.* cannot be used: ") as info:
        on_server(wrong, tmp_path)
    assert "secret" not in str(info.value) and "\n" not in str(info.value)
    with pytest.raises(PipelineError, match=r"needs the package asyncpg: pip install it"):
        on_server(server.address("postgresql+asyncpg"), tmp_path)
    monkeypatch.setenv("CTR_STUDIES", "postgres")
    with pytest.raises(PipelineError, match=r"CTR_STUDIES\) is no address: write postgresql://"):
        shared.server_of(None)


# ---- whole searches, in processes ----


def on_server_searched(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    processes: int,
    address: str,
    view: Silent | None = None,
) -> dict[str, Any]:
    """As `searched`, with the study on a server."""
    go = study.run
    with monkeypatch.context() as patched:
        patched.setattr(study, "run", lambda *args: go(*args, address))
        return searched(folder, monkeypatch, processes, view)


@pytest.mark.thorough
def test_one_two_and_four_workers_on_a_server_come_to_what_the_file_has(
    fresh: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fits: list[int]
) -> None:
    alone = searched(tmp_path / "file", monkeypatch, 1)
    trained = len(fits)
    assert on_server_searched(tmp_path / "1", monkeypatch, 1, fresh()) == alone
    assert len(fits) == 2 * trained
    assert on_server_searched(tmp_path / "2", monkeypatch, 2, fresh()) == alone
    assert on_server_searched(tmp_path / "4", monkeypatch, 4, fresh()) == alone


def test_the_settings_of_params_yaml_reach_a_worker() -> None:
    config = Params(project.own_params()).config("synthetic", "deepfm")
    sent = pickle.loads(pickle.dumps(study.portable(config)))
    assert sent.space.keys() == config.space.keys() and sent.starts == config.starts
    assert [axis.model_dump() for axis in sent.space.values()] == [
        axis.model_dump() for axis in config.space.values()
    ]


JOIN = textwrap.dedent(
    """
    import sys
    sys.path.insert(0, TESTS)
    from test_waves import CONFIG, RESOURCES
    from pipeline.train import runs
    from pipeline.tune import shared, study

    shared.POLL_SECONDS = 0.05
    splits = RESOURCES.load()
    header = study.describe("d", "fm", CONFIG, splits, RESOURCES.processed)
    print("ready", flush=True)
    study.join(header, CONFIG, splits, sys.argv[1])
    """
)


def joiner(folder: Path, address: str) -> "subprocess.Popen[str]":
    """A process that joins the search from a folder."""
    root = Path(__file__).parents[1]
    code = JOIN.replace("TESTS", repr(str(root / "tests")))
    env = {**os.environ, "PYTHONPATH": f"{root}:{root / 'tests'}"}
    return subprocess.Popen(
        [sys.executable, "-c", code, address],
        cwd=folder,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.thorough
def test_a_worker_killed_and_the_server_stopped_in_the_middle(
    server: postgresql.Server, fresh: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = searched(tmp_path / "file", monkeypatch, 1)
    address = fresh()
    # another machine: a folder of its own with the same rows
    with joiner(tmp_path / "file", address) as helper:
        assert helper.stdout is not None
        assert helper.stdout.readline() == "ready\n"
        assert any("trial-" in line for line in helper.stdout)  # it has seen one end
        helper.kill()

    def stop(name: str) -> None:
        server.stop()

    with pytest.raises(PipelineError, match="what is trained is kept, and the same command goes on"):
        on_server_searched(tmp_path / "stopped", monkeypatch, 2, address, Silent(stop))
    server.start()
    monkeypatch.chdir(tmp_path / "stopped")
    splits = RESOURCES.load()
    header = study.describe("d", "fm", CONFIG, splits, RESOURCES.processed)
    found = study.run(header, CONFIG, splits, RESOURCES, Silent(), address)
    assert {"history": found.history(), "trials": found.trials, "header": header.to_json()} == alone
    # the server is lost altogether: made again from the files
    again = study.run(header, CONFIG, splits, RESOURCES, Silent(), fresh())
    assert again.history() == found.history()
    stored = json.dumps(alone, default=str) + "".join(
        path.read_text(errors="replace") for path in Path("data").rglob("*") if path.is_file()
    )
    assert "postgresql" not in stored and str(server.port) not in stored.replace(".", " ").split()


def test_a_proxy_of_optuna_serves_as_well(
    fresh: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("grpc", reason="no gRPC: pip install grpcio protobuf")
    import socket

    from optuna.storages._grpc.server import make_server

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with shared.storage_at(fresh()) as storage:
        proxy = make_server(storage, "127.0.0.1", port)
        proxy.start()
        try:
            assert on_server(f"grpc://127.0.0.1:{port}", tmp_path) == run(tmp_path / "j.jsonl", climb, WAVE)
        finally:
            proxy.stop(None)
    monkeypatch.setattr(shared, "ANSWER_SECONDS", 0.1)
    with pytest.raises(PipelineError, match=r"studies at grpc://127\.0\.0\.1:\d+ cannot be used"):
        on_server(f"grpc://127.0.0.1:{port}", tmp_path)
