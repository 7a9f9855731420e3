"""A study on a server, from which the processes of one machine or of several take the trials of a wave.

What a trial gives depends on the wave it belongs to alone, so whoever trains it comes to the same: that two
processes train one trial costs time and changes nothing. So a process that takes a trial only has to be seen
by the others, not to be obeyed: it adds a running trial to the study, and of several for one number the
first counts. It beats as long as it lives. A trial whose process is gone, or has not beaten for a while by
the watch of who looks (clocks of two machines are never compared), is taken by another.

The files in data/ stay the truth: a study that is lost with its server is made again from the trainings
there.
"""

import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from importlib.util import find_spec
from itertools import count
from typing import Any, TypeVar
from urllib.parse import urlsplit

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning, StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, GrpcStorageProxy, RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

from pipeline.common.errors import PipelineError
from pipeline.common.process import is_alive, this_process
from pipeline.common.text import without_secrets

Storage = TypeVar("Storage", bound=BaseStorage)
NUMBER, OWNER, BEAT = "number", "owner", "beat"  # attributes of a trial on a server
BEAT_SECONDS = 5.0
SILENT_SECONDS = 60.0  # without a beat, after which a trial is taken by another process
POLL_SECONDS = 0.5
REASON_LETTERS = 300
ANSWER_SECONDS = 15.0  # of a proxy, at first
ATTEMPTS = 5  # to open a database that others open at the same time
SCHEMES = "postgresql://user@host/database, or grpc://host:port of Optuna's proxy"


def server_of(setting: str | None) -> str | None:
    """Return the address of the studies: CTR_STUDIES in the environment, or else `studies` of params.yaml.

    Raises:
        PipelineError: it is no address.
    """
    address = os.environ.get("CTR_STUDIES") or setting or None
    if address is not None and "://" not in address:
        raise PipelineError(
            f"{address!r} (`studies` in params.yaml, or CTR_STUDIES) is no address: write {SCHEMES}"
        )
    return address


@contextmanager
def storage_at(address: str) -> Iterator[BaseStorage]:
    """Open Optuna's storage at an address of `SCHEMES`, or another one that SQLAlchemy knows; close it.

    Raises:
        PipelineError: a package for it is missing, it cannot be reached, or refuses.
    """
    with _errors(address):
        if address.startswith("grpc://"):
            parts = urlsplit(address)
            with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
                proxy = _opened(address, GrpcStorageProxy, host=parts.hostname, port=parts.port or 13000)
            with closing(proxy):
                proxy.wait_server_ready(timeout=ANSWER_SECONDS)
                yield proxy
        else:
            database = _tables(with_driver(address))
            try:
                yield database
            finally:
                database.engine.dispose()


def _opened(address: str, kind: Callable[..., Storage], *args: Any, **kwargs: Any) -> Storage:
    """Return a storage of this kind.

    Raises:
        PipelineError: a package for it is missing.
    """
    try:
        return kind(*args, **kwargs)
    except ImportError as error:
        missing = getattr(error.__cause__ or error, "name", None) or "its driver"
        raise PipelineError(
            f"{without_secrets(address)} needs the package {missing}: pip install it (psycopg2-binary for "
            "PostgreSQL, grpcio and protobuf for grpc://)"
        ) from None


def with_driver(address: str) -> str:
    """Name psycopg2, if it is there, where an address leaves the driver open, as SQLAlchemy 2 did."""
    scheme, rest = address.split("://", 1)
    named = scheme in ("postgresql", "postgres") and find_spec("psycopg2") is not None
    return f"postgresql+psycopg2://{rest}" if named else address


def _tables(address: str) -> RDBStorage:
    """Open a database; one that is empty gets its tables, which several processes may try to add at once."""
    for attempt in count(1):
        try:
            # a connection that the server has dropped is found out before it is used
            return _opened(address, RDBStorage, address, engine_kwargs={"pool_pre_ping": True})
        except OperationalError:
            raise
        except (DBAPIError, RuntimeError):  # a table is there already, or has not got its version yet
            if attempt == ATTEMPTS:
                raise
            time.sleep(POLL_SECONDS)
    raise AssertionError


@contextmanager
def _errors(address: str) -> Iterator[None]:
    """Turn what a server answers, or that it does not, into our error.

    Raises:
        PipelineError: it cannot be reached, or refuses.
    """
    try:
        yield
    except (SQLAlchemyError, StorageInternalError, ConnectionError) as error:
        raise _unreachable(address, getattr(error, "orig", None) or error.__cause__ or error) from None
    except Exception as error:
        if not type(error).__module__.startswith("grpc"):
            raise
        raise _unreachable(address, error.details() if hasattr(error, "details") else error) from None


def _unreachable(address: str, reason: object) -> PipelineError:
    told = next(iter(str(reason).splitlines()), "") or type(reason).__name__
    return PipelineError(
        f"the studies at {without_secrets(address)} cannot be used: "
        f"{without_secrets(told)[:REASON_LETTERS]}; what is trained is kept, and the same command goes on "
        "from there"
    )


def changed(address: str, what: str) -> PipelineError:
    """Return the error that a study is not as it was left."""
    return PipelineError(
        f"the study at {without_secrets(address)} cannot be trusted ({what}): delete it there (optuna "
        "delete-study) and run again; trainings that are done are taken from the cache"
    )


class Claims:
    """Who of the processes at work on a study trains which trial.

    Args:
        study: of the trials.
        silent_seconds: without a beat, after which a process counts as gone.
    """

    def __init__(self, study: optuna.Study, silent_seconds: float = SILENT_SECONDS) -> None:
        self._study, self._silent = study, silent_seconds
        self._me = f"{this_process()} {threading.get_ident()}"
        self._beats: dict[int, tuple[Any, float]] = {}  # by trial: its last beat, and when it was first seen

    def take(
        self, wanted: Mapping[int, dict[str, Any]], distributions: dict[str, BaseDistribution]
    ) -> Trial | None:
        """Take one of these trials; None if others are at work on all of them.

        Args:
            wanted: parameters by number.
        """
        running = self._running()
        taken = {trial.user_attrs.get(NUMBER) for trial in running if self._is_alive(trial)}
        free = [number for number in wanted if number not in taken]
        if not free:
            return None
        for trial in running:  # what nobody works on any more
            if trial.user_attrs.get(NUMBER) not in taken:
                self._study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
        # processes that look at the same moment mostly take different ones
        number = free[os.getpid() % len(free)]
        return self._claim(number, wanted[number], distributions)

    def _claim(
        self, number: int, params: dict[str, Any], distributions: dict[str, BaseDistribution]
    ) -> Trial | None:
        attributes = {NUMBER: number, OWNER: self._me, BEAT: 0}
        axes = {name: distributions[name] for name in params}
        self._study.add_trial(
            create_trial(state=TrialState.RUNNING, params=params, distributions=axes, user_attrs=attributes)
        )
        same = [
            trial
            for trial in self._study.get_trials(deepcopy=False)
            if trial.user_attrs.get(NUMBER) == number and trial.state != TrialState.FAIL
        ]
        mine = next(trial for trial in same if trial.user_attrs.get(OWNER) == self._me)
        first = min(same, key=lambda trial: trial.number)
        if first is not mine and (first.state.is_finished() or self._is_alive(first)):
            self._study.tell(mine.number, state=TrialState.FAIL)
            return None
        return Trial(self._study, mine._trial_id)

    def _running(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))

    def _is_alive(self, trial: FrozenTrial) -> bool:
        """Whether the process of a running trial is there, as far as can be seen from here."""
        host, pid, started, *_ = str(trial.user_attrs.get(OWNER, "- 0 0")).split()
        if not is_alive(f"{host} {pid} {started}", local=False):
            return False
        beat, now = trial.user_attrs.get(BEAT), time.monotonic()
        before, since = self._beats.get(trial.number, (None, now))
        if beat != before:
            since = now
        self._beats[trial.number] = (beat, since)
        return now - since < self._silent

    def wait(self) -> None:
        """Let others work for a moment."""
        time.sleep(POLL_SECONDS)


@contextmanager
def beating(trial: Trial) -> Iterator[None]:
    """Let a taken trial beat until the block ends."""
    stop = threading.Event()

    def beat() -> None:
        for number in count(1):
            if stop.wait(BEAT_SECONDS):
                return
            try:
                trial.set_user_attr(BEAT, number)
            except UpdateFinishedTrialError:  # another process has taken it
                return
            except Exception:  # noqa: BLE001  the training meets a server that is gone, and says so
                continue

    thread = threading.Thread(target=beat, name="beat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
