"""Where MLflow stores runs and artifacts, and reading and writing there."""

import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from pipeline.common.errors import PipelineError
from pipeline.tracking import database
from pipeline.tracking.database import Progress
from pipeline.tracking.process import this_process
from pipeline.tracking.record import AXES, Block

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

DATABASE, ARTIFACTS = "mlflow.db", "mlruns"
LOCK_TIMEOUT_SECONDS = 300.0
ITEMS_PER_REQUEST = 900  # MLflow takes 1000 metrics, params and tags in all


@dataclass(frozen=True)
class Store:
    """The MLflow store of one checkout.

    Attributes:
        root: the folder of a local database and of the artifacts.
        uri: the tracking URI.
        local: whether that is the database in `root`.
    """

    root: Path
    uri: str
    local: bool

    @classmethod
    def of(cls, root: Path) -> "Store":
        """Return where a project tracks; nothing is opened yet."""
        root = main_checkout(root.resolve())
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        return cls(root, uri or f"sqlite:///{root / DATABASE}", not uri)

    @property
    def database(self) -> Path:
        """The database file of a local store."""
        return self.root / DATABASE

    @property
    def artifacts(self) -> Path:
        """The folder under which a store on this machine keeps its artifacts."""
        return self.root / ARTIFACTS

    def progress(self) -> Progress:
        """Return what is published, as far as it can be known without loading MLflow."""
        return database.read_progress(self.database, self.artifacts) if self.local else Progress()

    @cached_property
    def client(self) -> "MlflowClient":
        """MLflow's client, created at the first use, since that takes seconds."""
        import mlflow
        from mlflow.exceptions import MlflowException

        mlflow.set_tracking_uri(self.uri)  # where the registry looks up logged models
        if self.local:
            os.environ.pop("MLFLOW_TRACKING_URI", None)  # set by the line above; to us it means another store
        try:
            client = mlflow.MlflowClient(self.uri, os.environ.get("MLFLOW_REGISTRY_URI", self.uri))
            client.search_experiments(max_results=1)
        except MlflowException as error:
            if self.local:
                raise database.unusable(self.database, error) from None
            raise PipelineError(
                f"MLflow at {self.uri} (MLFLOW_TRACKING_URI) does not answer: {error}; start it, unset the "
                "variable, or set CTR_TRACKING=off and run `python -m pipeline sync` later"
            ) from None
        return client

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Lock out other processes of this checkout that create or publish.

        Raises:
            PipelineError: another process does not release the lock.
        """
        self.artifacts.mkdir(exist_ok=True)
        lock = self.artifacts / ".lock"
        try:
            with FileLock(lock, timeout=LOCK_TIMEOUT_SECONDS):
                yield
        except Timeout:
            raise PipelineError(
                f"another process has been writing to MLflow for {LOCK_TIMEOUT_SECONDS:g} s (it holds "
                f"{lock}); stop it, then run `python -m pipeline sync`"
            ) from None

    def experiment(self, dataset: str) -> str:
        """Return the id of a dataset's experiment, creating it if necessary."""
        found = self.client.get_experiment_by_name(dataset)
        if found is None:
            on_disk = self.uri.startswith("sqlite:")  # a server decides itself where artifacts go
            return self.client.create_experiment(
                dataset,
                artifact_location=(self.artifacts / dataset).as_uri() if on_disk else None,
                tags={"pipeline.dataset": dataset, "mlflow.experimentKind": "custom_model_development"},
            )
        if found.lifecycle_stage == "deleted":
            self.client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def runs(self, experiment: str, *conditions: str) -> list["Run"]:
        """Return an experiment's runs that meet all conditions, newest first."""
        found, token = list["Run"](), None
        while True:
            page = self.client.search_runs(
                [experiment], " AND ".join(conditions), order_by=["start_time DESC"], page_token=token
            )
            found += page
            token = page.token
            if not token:
                return found

    def named(self, experiment: str, key: str) -> list["Run"]:
        """Return the runs with a key, children excluded: complete ones first, then the newest."""
        found = self.runs(experiment, f"tags.`pipeline.key` = '{key}'")
        return sorted(found, key=is_complete, reverse=True)

    def children(self, experiment: str, parent: str) -> dict[str, "Run"]:
        """Return a run's children by name; of two with the same name the newer."""
        found = self.runs(experiment, f"tags.`mlflow.parentRunId` = '{parent}'")
        return {str(run.info.run_name): run for run in reversed(found)}

    def start(self, experiment: str, name: str, tags: Mapping[str, str]) -> "Run":
        """Create a run that records the process that writes it."""
        own = {"mlflow.pipeline.process": this_process()}
        return self.client.create_run(experiment, tags={**tags, **own}, run_name=name)

    def log(
        self,
        run: str,
        *,
        params: Mapping[str, str] | None = None,
        metrics: Sequence["Metric"] = (),
        tags: Mapping[str, object] | None = None,
    ) -> None:
        """Log in as few requests as possible, tags last: a request costs more than a hundred metrics."""
        from mlflow.entities import Param, RunTag

        while len(metrics) > ITEMS_PER_REQUEST:
            self.client.log_batch(run, metrics[:ITEMS_PER_REQUEST])
            metrics = metrics[ITEMS_PER_REQUEST:]
        named = [RunTag(name, str(value)) for name, value in (tags or {}).items()]
        settings = [Param(name, value[:6000]) for name, value in (params or {}).items()]
        if len(metrics) + len(settings) + len(named) > ITEMS_PER_REQUEST:
            self.client.log_batch(run, metrics)
            metrics = ()
        self.client.log_batch(run, metrics, settings, named)


def enabled() -> bool:
    """Whether tracking is on: CTR_TRACKING=off switches it off.

    Raises:
        PipelineError: the variable has another value than on or off.
    """
    value = os.environ.get("CTR_TRACKING", "on")
    if value not in ("on", "off"):
        raise PipelineError(f"CTR_TRACKING={value!r}: must be `on` or `off` (or unset)")
    return value == "on"


def configure(root: Path) -> Store:
    """Return the store of a project, creating its database or repairing the paths in it if necessary.

    Args:
        root: the project's root. A copy in which DVC runs an experiment is thrown away, so the checkout
            that started it is used instead.

    Raises:
        PipelineError: the database cannot be used.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    store = Store.of(root)
    if store.local:
        with store.writing():
            if store.database.exists():
                database.check(store.database)
                database.relocate(store.database, store.artifacts)
            else:
                _create(store)
    return store


def main_checkout(path: Path) -> Path:
    """Return the checkout that a copy under .dvc/tmp/exps belongs to; any other path unchanged.

    >>> main_checkout(Path("/home/me/ctr/.dvc/tmp/exps/tmpabc")).as_posix()
    '/home/me/ctr'
    """
    for parent in path.parents:
        if parent.parts[-3:] == (".dvc", "tmp", "exps"):
            return parent.parents[2]
    return path


def is_complete(run: "Run") -> bool:
    """Whether everything in the files of a run is published."""
    return bool(run.data.tags.get("pipeline.complete") == "true")


def points(values: Block, step: int = 0) -> list["Metric"]:
    """Return MLflow metrics of the values that are not None."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    return [
        Metric(name, float(value), now, step)
        for name, value in values.items()
        if name not in AXES and value is not None
    ]


def _create(store: Store) -> None:
    """Create an empty database; it appears under its name only when complete."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with tempfile.TemporaryDirectory(dir=store.artifacts) as scratch:
        new = Path(scratch, "new.db")
        database.create(new)
        # MLflow's constructor is untyped
        SqlAlchemyStore(f"sqlite:///{new}", store.artifacts.as_uri()).engine.dispose()  # type: ignore[no-untyped-call]
        database.install(new, store.database)
