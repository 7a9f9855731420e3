"""Where MLflow stores runs and artifacts, and reading and writing there."""

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from filelock import FileLock, Timeout

from pipeline.common.errors import PipelineError, explain
from pipeline.common.process import is_alive, this_process
from pipeline.common.text import without_secrets
from pipeline.tracking import database, record
from pipeline.tracking.database import Unavailable
from pipeline.tracking.guards import MlflowFailure, mlflow_errors
from pipeline.tracking.progress import LAYOUT, MODEL, NOW, REPORT, Progress, Shown
from pipeline.tracking.record import Block

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Metric, Run
    from mlflow.store.entities import PagedList

DATABASE, ARTIFACTS = "mlflow.db", "mlruns"
LOCK_TIMEOUT_SECONDS = 300.0
ADVISORY_LOCK = 20261128  # a number of our own among those that sessions of a PostgreSQL database can lock
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
        return cls(root, uri or _sqlite(root / DATABASE), not uri)

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
        if self.local:
            return database.read_progress(self.database, self.artifacts)
        with mlflow_errors():
            experiments = self.client.search_experiments(filter_string="tags.`pipeline.dataset` != ''")
            ids = [each.experiment_id for each in experiments]
            runs = [
                Shown(run.info.run_id, run.info.status, run.info.artifact_uri, run.data.tags)
                for run in self.runs(ids, "tags.`pipeline.key` != ''")
            ]
            models = {each.model_id: each.artifact_location for each in self.models(ids)}
            shown = [each.tags[REPORT] for each in experiments if REPORT in each.tags]
        return Progress.of(runs, models, {}, shown=shown)

    @cached_property
    def client(self) -> "MlflowClient":
        """MLflow's client, created at the first use, since that takes seconds."""
        import mlflow

        mlflow.set_tracking_uri(self.uri)  # where the registry looks up logged models
        if self.local:
            os.environ.pop("MLFLOW_TRACKING_URI", None)  # set by the line above; to us it means another store
        try:
            with mlflow_errors(), _alone(self.uri):
                client = mlflow.MlflowClient(self.uri, os.environ.get("MLFLOW_REGISTRY_URI", self.uri))
                client.search_experiments(max_results=1)
        except ImportError as error:  # SQLAlchemy loads the driver of a database at the first use
            raise Unavailable(
                f"MLflow's database needs the package {error.name}: install it, or name another driver in "
                "MLFLOW_TRACKING_URI, such as postgresql+psycopg2://..."
            ) from None
        except (Unavailable, MlflowFailure) as error:
            place = "" if self.local else f" ({without_secrets(self.uri)}, MLFLOW_TRACKING_URI)"
            raise Unavailable(f"{error}{place}") from error
        return client

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Lock out other processes of this checkout that create or publish.

        Raises:
            Unavailable: another process does not release the lock, or this one may not write there.
        """
        lock = FileLock(self.artifacts / ".lock", timeout=LOCK_TIMEOUT_SECONDS)
        try:
            self.artifacts.mkdir(exist_ok=True)
            lock.acquire()
        except Timeout:
            raise Unavailable(
                f"another process has been writing to MLflow for {LOCK_TIMEOUT_SECONDS:g} s (it holds "
                f"{lock.lock_file}): stop it"
            ) from None
        except OSError as error:
            raise Unavailable(f"MLflow failed: {explain(error) or error}") from error
        try:
            yield
        finally:
            lock.release()

    def experiment(self, dataset: str) -> str:
        """Return the id of a dataset's experiment, whatever it is called now, creating it if necessary.

        Raises:
            Unavailable: its artifacts are in a folder of another machine.
        """
        from mlflow.entities import ViewType
        from mlflow.exceptions import MlflowException

        tagged = f"tags.`pipeline.dataset` = '{dataset}'"
        found = self.client.search_experiments(
            ViewType.ALL, filter_string=tagged, order_by=["experiment_id ASC"]
        ) or [self.client.get_experiment_by_name(dataset)]
        first = min(found, key=lambda each: each is not None and each.lifecycle_stage == "deleted")
        if first is None:
            tags = {"pipeline.dataset": dataset, "mlflow.experimentKind": "custom_model_development"}
            tags[LAYOUT] = NOW
            place = None if self.uri.startswith(("http:", "https:")) else self._artifacts_of(dataset)
            try:
                return self.client.create_experiment(dataset, artifact_location=place, tags=tags)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                return self.experiment(dataset)  # another clone was faster
        if first.lifecycle_stage == "deleted":
            self.client.restore_experiment(first.experiment_id)
        if not self.local and not database.is_folder_here(first.artifact_location):
            raise Unavailable(
                f"the experiment {first.name} keeps its artifacts in {first.artifact_location}, which is not "
                "on this machine: use an MLflow server that keeps them itself (`mlflow server "
                "--serve-artifacts`), or, before the first run, set MLFLOW_DEFAULT_ARTIFACT_ROOT to a place "
                "that all machines reach"
            )
        return str(first.experiment_id)

    def _artifacts_of(self, dataset: str) -> str:
        """Return where a new experiment keeps its artifacts; a server decides that itself."""
        root = None if self.local else os.environ.get("MLFLOW_DEFAULT_ARTIFACT_ROOT")
        return f"{root.rstrip('/')}/{dataset}" if root else (self.artifacts / dataset).as_uri()

    def runs(self, experiments: str | list[str], *conditions: str) -> list["Run"]:
        """Return the runs of experiments that meet all conditions, newest first."""
        ids = [experiments] if isinstance(experiments, str) else experiments
        condition = " AND ".join(conditions)
        return _pages(
            lambda token: self.client.search_runs(
                ids, condition, order_by=["start_time DESC"], page_token=token
            )
        )

    def models(self, experiments: list[str], condition: str | None = None) -> list["LoggedModel"]:
        """Return the logged models of experiments that meet a condition."""
        if not experiments:
            return []
        return _pages(
            lambda token: self.client.search_logged_models(experiments, condition, page_token=token)
        )

    def named(self, experiment: str, key: str) -> list["Run"]:
        """Return the runs with a key, without children: first the one completed first, then the newest.

        The metrics of a local store were renamed. A server renames none, so that runs of an earlier version
        are made again.
        """
        found = self.runs(experiment, f"tags.`pipeline.key` = '{key}'")
        return sorted((run for run in found if self.local or is_current(run)), key=_completed_first)

    def children(self, experiment: str, parent: str) -> dict[str, "Run"]:
        """Return a run's children by the name in their key; of two with the same the one to be kept."""
        found = self.runs(experiment, f"tags.`mlflow.parentRunId` = '{parent}'")
        return Children({_name(run): run for run in sorted(found, key=_precedence, reverse=True)})

    def has_file(self, run: "Run", name: str) -> bool:
        """Whether a file is among a run's artifacts."""
        return any(file.path == name for file in self.client.list_artifacts(run.info.run_id))

    def has_model(self, model: str | None) -> bool:
        """Whether a logged model is there with its files."""
        from mlflow.exceptions import MlflowException

        if model is None:
            return False
        try:
            self.client.get_logged_model(model)
            return any(file.path == "MLmodel" for file in self.client.list_logged_model_artifacts(model))
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False

    def tidy(self, experiment: str, key: str) -> int:
        """Delete what other attempts at a run left beside the complete one; return how many runs that were.

        Called by each process once its own run is complete, so that of several which publish the same run at
        once the last one sees all. A run that a living process still writes is left to that process, with its
        model.

        Raises:
            MlflowFailure: another process has deleted the complete one, as it deemed its own the one to keep.
        """
        surplus, names = [], set[str]()
        models = self.models([experiment], f"tags.`pipeline.key` = '{key}'")  # first, so their runs are found
        found = self.runs(experiment, f"tags.`pipeline.key` LIKE '{key}%'")
        tops = [run for run in found if run.data.tags["pipeline.key"] == key]
        tops.sort(key=lambda run: (not is_current(run), _completed_first(run)))
        if not tops or not is_complete(tops[0]):
            return 0
        keep = tops[0].info.run_id
        written = {run.info.run_id for run in found if self.is_written(run)}
        for run in sorted(found, key=_precedence):
            owner = run.data.tags.get("mlflow.parentRunId", run.info.run_id)
            own = owner == keep
            double = own and run.info.run_id != keep and _name(run) in names
            if own and not double:
                names.add(_name(run))
            elif written.isdisjoint((owner, run.info.run_id)):
                surplus.append(run.info.run_id)
        for each in surplus:
            self._discard(each)
        model = tops[0].data.tags.get(MODEL)
        for logged in models:
            if model is not None and logged.model_id != model and logged.source_run_id not in written:
                self.client.delete_logged_model(logged.model_id)
        # two that completed in the same moment may have deleted each other's: the later one to end sees that
        if surplus and self.client.get_run(keep).info.lifecycle_stage == "deleted":
            raise MlflowFailure(f"run {keep} was deleted meanwhile; `python -m pipeline sync` makes it again")
        return len(surplus)

    def _discard(self, run: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self.client.delete_run(run)
        except MlflowException:
            if self.client.get_run(run).info.lifecycle_stage != "deleted":  # else another clone was faster
                raise

    def is_written(self, run: "Run") -> bool:
        """Whether another living process writes a run; on another host it may be."""
        owner = run.data.tags.get("mlflow.pipeline.process")
        return (
            run.info.status == "RUNNING"
            and owner is not None
            and owner != this_process()
            and is_alive(owner, local=self.local)
        )

    def close(self, run: "Run", status: str) -> None:
        """End a run that does not have this status yet; one that was live ended with its last metric."""
        if run.info.status == status:
            return
        end, info = run.info.end_time, run.info
        if info.status == "RUNNING" and run.data.metrics.get("valid/auc") is not None:
            end = max(point.timestamp for point in self.client.get_metric_history(info.run_id, "valid/auc"))
        self.client.set_terminated(info.run_id, status, end)

    def start(self, experiment: str, name: str, tags: Mapping[str, str]) -> "Run":
        """Create a run that records the process that writes it."""
        own = {"mlflow.pipeline.process": this_process(), LAYOUT: NOW}
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


class Children(dict[str, "Run"]):
    """The seeds and trials of a run by name."""

    def __missing__(self, name: str) -> "Run":
        raise MlflowFailure(f"{name} is not in MLflow any more; `python -m pipeline sync` makes it again")


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
        PipelineError: the database is damaged.
        Unavailable: it cannot be used now.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")  # seconds
    store = Store.of(root)
    if store.local:
        with store.writing():
            if store.database.exists():
                database.check(store.database)
                database.relocate(store.database, store.artifacts)
                database.rename_metrics(store.database)
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


@contextmanager
def _alone(uri: str) -> Iterator[None]:
    """Lock out other processes while MLflow opens a database: if it is empty, two would create its tables.

    A server has its own database, and creates its tables once.
    """
    if uri.startswith("sqlite:///"):
        path = Path(unquote(uri.removeprefix("sqlite:///")))
        with nullcontext() if path.exists() else FileLock(path.with_name(f"{path.name}.lock")):
            yield
    elif uri.startswith("postgresql"):
        import sqlalchemy

        engine = sqlalchemy.create_engine(uri, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:  # which releases the lock when it closes
            connection.execute(sqlalchemy.text(f"SELECT pg_advisory_lock({ADVISORY_LOCK})"))
            yield
        engine.dispose()
    else:
        yield


def _sqlite(path: Path) -> str:
    """Return the address of a database: a path may contain `%` and `?`.

    >>> _sqlite(Path("/my%20project/mlflow.db"))
    'sqlite:////my%2520project/mlflow.db'
    """
    return f"sqlite:///{quote(str(path))}"


def _pages(page: Callable[[str | None], "PagedList[Any]"]) -> list[Any]:
    """Return all items of a search that returns one page after the other."""
    found, token = list[Any](), None
    while True:
        items = page(token)
        found += items
        token = items.token
        if not token:
            return found


def _name(run: "Run") -> str:
    """Return the name of a seed or a trial, also after somebody has renamed it on the page."""
    return run.data.tags.get("pipeline.key", str(run.info.run_name)).rpartition("/")[2]


def _completed_first(run: "Run") -> tuple[bool, int, str]:
    """Order the runs of a key: the one to be kept, or to go on with, first."""
    if is_complete(run):
        return False, run.info.end_time or 0, run.info.run_id
    return True, -run.info.start_time, run.info.run_id


def _precedence(run: "Run") -> tuple[bool, int, str]:
    """Order runs that are the same seed or trial: the first one is kept."""
    return run.data.tags.get("pipeline.state") == "KILLED", run.info.start_time, run.info.run_id


def is_current(run: "Run") -> bool:
    """Whether a run has the names of this version."""
    return bool(run.data.tags.get(LAYOUT) == NOW)


def is_complete(run: "Run") -> bool:
    """Whether everything in the files of a run is published."""
    return bool(run.data.tags.get("pipeline.complete") == "true")


def points(values: Block, step: int = 0, *, model: str | None = None) -> list["Metric"]:
    """Return MLflow metrics of the values that are not None, by their names there, rounded."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    return [Metric(name, float(v), now, step, model_id=model) for name, v in record.shown(values).items()]


def _create(store: Store) -> None:
    """Create an empty database; it appears under its name only when complete."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with tempfile.TemporaryDirectory(dir=store.artifacts) as scratch:
        new = Path(scratch, "new.db")
        database.create(new)
        # MLflow's constructor is untyped
        SqlAlchemyStore(_sqlite(new), store.artifacts.as_uri()).engine.dispose()  # type: ignore[no-untyped-call]
        database.install(new, store.database)
