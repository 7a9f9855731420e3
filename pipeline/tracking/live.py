"""Show a stage in MLflow while it runs, and close runs whose process is gone."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.common.process import is_alive
from pipeline.tracking import provenance, record
from pipeline.tracking.guards import Guard
from pipeline.tracking.provenance import Speed
from pipeline.tracking.record import Block, Row
from pipeline.tracking.store import Store, configure, enabled, is_complete, points

if TYPE_CHECKING:
    from mlflow.entities import Metric, Run

    from pipeline.data.batches import Split
    from pipeline.train.course import LogFn


WRITE_INTERVAL_SECONDS = 1.0


@dataclass
class LiveRun:
    """A run in progress. If MLflow fails, the stage goes on without it, and `publish` adds the rest."""

    guard: Guard
    store: Store
    experiment: str
    run: str
    tags: dict[str, str]
    speed: Speed

    @contextmanager
    def child(self, name: str, key: str, params: Block) -> "Iterator[LogFn]":
        """Show one seed or trial as a child run; yield its log(metrics, step).

        An exception that passes through marks the child as pruned, failed or killed.

        Args:
            name: `seed-<s>` or `trial-<nnn>`.
            key: identifies the child: `<key of the run>/<name>`.
            params: the child's own settings, nested or not.
        """
        tags = {**self.tags, "mlflow.parentRunId": self.run, "pipeline.key": key}
        run = self.guard.do(lambda: self.store.start(self.experiment, name, tags).info.run_id)
        curve, own = _Curve(self.guard, self.store, run or ""), Speed(self.speed.rows)
        watch = own.watch()

        def add(metrics: Row, step: int) -> None:
            watch.before(metrics.get("epoch", 0.0))
            curve.add(metrics, step)
            watch.after()

        with _closing(self.guard, self.store, run or ""):
            self.guard.do(lambda: self.store.log(run or "", params=record.child_params(name, params)))
            try:
                yield add
            finally:
                curve.buffer += points(own.metrics()) if not self.guard.broken else []
                curve.write()
                self.speed.epochs += own.epochs
                self.speed.seconds += own.seconds

    def log(self, metrics: Row, step: int) -> None:
        """Show values of the run itself; the page can draw them over seconds, too."""
        curve = _Curve(self.guard, self.store, self.run)
        curve.add(metrics, step)
        curve.write()


class NullRun:
    """What `live` yields when there is nothing to show."""

    def log(self, metrics: Row, step: int) -> None:
        """Do nothing."""

    @contextmanager
    def child(self, name: str, key: str, params: Block) -> "Iterator[LogFn]":  # noqa: ARG002  as LiveRun.child
        """Yield a log that does nothing."""
        yield lambda metrics, step: None  # noqa: ARG005


@contextmanager
def live(header: Block, train: "Split") -> Iterator[LiveRun | NullRun]:
    """Show a stage in MLflow while it runs.

    An earlier run of the same key whose process is gone is closed. If the key has all its results already (a
    stage that was killed at its very end, or was forced to run again, comes to the same), nothing is shown.

    Args:
        header: the head of run.json.
        train: the rows, on the device that trains.

    Raises:
        PipelineError: the database is damaged; raised before hours of training rather than after. A store
            that does not answer only costs a warning.
    """
    guard = Guard()
    shown = guard.do(lambda: _begin(guard, header, train)) if enabled() else None
    if shown is None:
        yield NullRun()
        return
    with _closing(guard, shown.store, shown.run):
        # a search ends with other values than it starts from, and MLflow's params cannot change
        if header["stage"] == "train":
            guard.do(lambda: shown.store.log(shown.run, params=record.params(header)))
        yield shown
        guard.do(lambda: shown.store.log(shown.run, metrics=points(shown.speed.metrics())))


def _begin(guard: Guard, header: Block, train: "Split") -> LiveRun | None:
    """Start a run; None if its key has all its results already."""
    store = configure(Path.cwd())
    tags = record.tags(header)
    with store.writing():
        experiment = store.experiment(header["dataset"])
        before = store.named(experiment, header["key"])
        for each in before:
            close_if_dead(store, each)
        if any(is_complete(run) or run.data.tags.get("pipeline.state") == "COMPLETE" for run in before):
            return None
        own = {**tags, **provenance.tags(Path.cwd(), str(train.device)), "pipeline.key": header["key"]}
        run = store.start(experiment, record.name(header), own).info.run_id
    return LiveRun(guard, store, experiment, run, tags, Speed(len(train)))


def close_dead_runs(store: Store) -> int:
    """Close our runs whose process is gone; return how many, children included."""
    ours = store.client.search_experiments(filter_string="tags.`pipeline.dataset` != ''")
    return sum(
        close_if_dead(store, run)
        for experiment in ours
        for run in store.runs(experiment.experiment_id, "attributes.status = 'RUNNING'")
    )


def close_if_dead(store: Store, run: "Run") -> bool:
    """Close a run that is still open though its process is gone; return whether it was."""
    owner = run.data.tags.get("mlflow.pipeline.process")
    if run.info.status != "RUNNING" or owner is None or is_alive(owner, local=store.local):
        return False
    store.log(run.info.run_id, tags={"pipeline.state": "KILLED"})
    store.client.set_terminated(run.info.run_id, "KILLED")
    return True


@contextmanager
def _closing(guard: Guard, store: Store, run: str) -> Iterator[None]:
    """Close a run as finished, pruned, failed or killed."""
    try:
        yield
    except BaseException as error:
        # by name: this file does not import optuna
        pruned = type(error).__name__ == "TrialPruned"
        state = "PRUNED" if pruned else "FAILED" if isinstance(error, Exception) else "KILLED"
        guard.do(lambda: store.log(run, tags={"pipeline.state": state}))
        # MLflow knows no pruned runs, and a killed one looks like a crash
        status = "FINISHED" if pruned else state
        guard.do(lambda: store.client.set_terminated(run, status))
        raise
    guard.do(lambda: store.client.set_terminated(run))


@dataclass
class _Curve:
    """Buffered metrics of a live run, written at most once a second."""

    guard: Guard
    store: Store
    run: str
    buffer: list["Metric"] = field(default_factory=list)
    written: float = 0.0

    def add(self, metrics: Row, step: int) -> None:
        """Buffer one evaluation."""
        self.buffer += points(metrics, step)
        if time.monotonic() - self.written > WRITE_INTERVAL_SECONDS:
            self.write()

    def write(self) -> None:
        """Send the buffer."""
        if self.buffer:
            self.guard.do(lambda: self.store.log(self.run, metrics=self.buffer))
        self.buffer, self.written = [], time.monotonic()
