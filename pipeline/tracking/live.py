"""A stage in MLflow while it runs, and what is left of it when its process is gone."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.tracking import record
from pipeline.tracking.process import is_alive
from pipeline.tracking.record import Block, Row
from pipeline.tracking.store import Store, configure, enabled, is_complete, points

if TYPE_CHECKING:
    from mlflow.entities import Metric, Run

    from pipeline.train.loop import LogFn


PAUSE = 1.0  # seconds between two writes of a live curve


@dataclass
class Live:
    """A run that goes on."""

    store: Store
    experiment: str
    run: str
    tags: dict[str, str]

    @contextmanager
    def child(self, name: str, key: str, params: Block) -> "Iterator[LogFn]":
        """Show a part of the run, such as one seed's training, as a run of its own beneath it.

        Yields log(metrics, step). An exception that passes through marks the child: a pruned trial as
        PRUNED, any other as failed or killed.

        Args:
            name: `seed-<s>` or `trial-<nnn>`.
            key: names the child for good: `<key of the run>/<name>`.
            params: settings that are the child's own, nested as they like.
        """
        tags = {**self.tags, "mlflow.parentRunId": self.run, "pipeline.key": key}
        run = self.store.start(self.experiment, name, tags).info.run_id
        curve = _Curve(self.store, run)
        with _ending(self.store, run):
            self.store.log(run, params=record.child_params(name, params))
            try:
                yield curve.add
            finally:
                curve.write()


class Off:
    """What `live` yields when there is nothing to show."""

    @contextmanager
    def child(self, name: str, key: str, params: Block) -> "Iterator[LogFn]":  # noqa: ARG002  as Live.child
        """Yield a log that forgets."""
        yield lambda metrics, step: None  # noqa: ARG005


@contextmanager
def live(header: Block, name: str) -> Iterator[Live | Off]:
    """Show a stage in MLflow while it runs.

    A run of the same key that a killed process left is closed. If the key is complete already (a stage
    that was forced to run again comes to the same result), nothing is shown.

    Args:
        header: the head of run.json.
        name: of the run.

    Raises:
        PipelineError: MLflow cannot be used. Better known before hours of training than after.
    """
    if not enabled():
        yield Off()
        return
    store = configure(Path.cwd())
    tags = record.tags(header)
    with store.writing():
        experiment = store.experiment(header["dataset"])
        before = store.named(experiment, header["key"])
        for each in before:
            close_if_dead(store, each)
        done = any(map(is_complete, before))
        if not done:
            run = store.start(experiment, name, {**tags, "pipeline.key": header["key"]}).info.run_id
    if done:
        yield Off()
        return
    with _ending(store, run):
        # a search ends with other values than it starts from, and MLflow's params cannot change
        if header["stage"] == "train":
            store.log(run, params=record.params(header))
        yield Live(store, experiment, run, tags)


def close_dead(store: Store) -> int:
    """Close the runs of ours whose process is gone; return how many, children counted too."""
    ours = store.client.search_experiments(filter_string="tags.`pipeline.dataset` != ''")
    return sum(
        close_if_dead(store, run)
        for experiment in ours
        for run in store.runs(experiment.experiment_id, "attributes.status = 'RUNNING'")
    )


def close_if_dead(store: Store, run: "Run") -> bool:
    """Close a run that is open though the process that wrote it is gone."""
    owner = run.data.tags.get("mlflow.pipeline.process")
    if run.info.status != "RUNNING" or owner is None or is_alive(owner, local=store.local):
        return False
    store.log(run.info.run_id, tags={"pipeline.state": "KILLED"})
    store.client.set_terminated(run.info.run_id, "KILLED")
    return True


@contextmanager
def _ending(store: Store, run: str) -> Iterator[None]:
    """Close a run as what it was: finished, pruned, failed or killed."""
    try:
        yield
    except BaseException as error:
        # known by its name: this file does not import optuna
        pruned = type(error).__name__ == "TrialPruned"
        state = "PRUNED" if pruned else "FAILED" if isinstance(error, Exception) else "KILLED"
        store.log(run, tags={"pipeline.state": state})
        store.client.set_terminated(run, "FAILED" if state == "FAILED" else "KILLED")
        raise
    store.client.set_terminated(run)


@dataclass
class _Curve:
    """Metrics of a live run on their way to MLflow, written at most once a second.

    MLflow is a view: if it stops answering, training goes on, and `publish` adds the rest.
    """

    store: Store
    run: str
    waiting: list["Metric"] = field(default_factory=list)
    points: int = 0
    written: float = 0.0
    broken: bool = False

    def add(self, metrics: Row, step: int) -> None:
        """Take one evaluation."""
        self.points += 1
        self.waiting += points(metrics, step)
        if time.monotonic() - self.written > PAUSE:
            self.write()

    def write(self) -> None:
        """Send what is waiting."""
        from mlflow.exceptions import MlflowException

        if self.broken or not self.waiting:
            return
        try:
            self.store.log(self.run, metrics=self.waiting, tags={"mlflow.pipeline.points": self.points})
        except MlflowException as error:
            self.broken = True
            print(f"warning: MLflow takes no more metrics, training goes on: {error}", file=sys.stderr)
        self.waiting, self.written = [], time.monotonic()
