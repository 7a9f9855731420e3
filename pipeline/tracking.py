"""MLflow, a view of the files in data/ that can be rebuilt at any time; the only file that imports it.

A run is known by the tag `pipeline.key`, the key of its run.json. `live` shows a training while it goes
on, `publish` brings its run up to what the files say, `sync` does so for all files and mends what a
killed process or a moved checkout left behind. A run that holds all there is has the tag
`pipeline.complete`. Everything may be repeated; nothing is logged twice. MLflow's page hides tags that
begin with `mlflow.`; so ours that only keep the books do.

Where: `mlflow.db` and `mlruns/` in the project's root, which plain `mlflow ui` shows, unless
MLFLOW_TRACKING_URI names another place. CTR_TRACKING=off switches all of this off.
"""

import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from filelock import FileLock, Timeout

from pipeline import database, record
from pipeline.errors import PipelineError
from pipeline.files import canonical, folder_digest, read_json
from pipeline.record import Block, Row

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

    from pipeline.training import Log

DATABASE, ARTIFACTS = "mlflow.db", "mlruns"
_NAMES = ("key", "dataset", "model", "variant")  # what a logged model says of itself
PATIENCE = 300.0  # seconds to wait for another process that is writing
PAUSE = 1.0  # seconds between two writes of a live curve
BATCH = 900  # metrics in a request (MLflow takes 1000 items in all)
VIEW = "mlflow.sharedViewState.leaderboard"  # the page opens it at .../runs?viewStateShareKey=leaderboard


@dataclass(frozen=True)
class Store:
    """MLflow as one checkout sees it.

    Attributes:
        root: the folder that holds (or would hold) the database and the artifacts.
        uri: the tracking URI.
        local: whether that is our own database in `root`.
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

    @cached_property
    def client(self) -> "MlflowClient":
        """MLflow's client, made at the first use: that takes seconds."""
        import mlflow
        from mlflow.exceptions import MlflowException

        mlflow.set_tracking_uri(self.uri)  # the registry looks logged models up at the global address
        if self.local:
            os.environ.pop(
                "MLFLOW_TRACKING_URI", None
            )  # set by the line above; for us it means another place
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
        """Keep other processes of this checkout from creating and publishing at the same time.

        Raises:
            PipelineError: another one does not come to an end.
        """
        self.artifacts.mkdir(exist_ok=True)
        lock = self.artifacts / ".lock"
        try:
            with FileLock(lock, timeout=PATIENCE):
                yield
        except Timeout:
            raise PipelineError(
                f"another process has been writing to MLflow for {PATIENCE:g} s (it holds {lock}); "
                "stop it, then run `python -m pipeline sync`"
            ) from None

    def experiment(self, dataset: str) -> str:
        """Return the id of a dataset's experiment, made if there is none."""
        found = self.client.get_experiment_by_name(dataset)
        if found is None:
            here = self.uri.startswith("sqlite:")  # a server decides on its own where artifacts go
            return self.client.create_experiment(
                dataset,
                artifact_location=(self.artifacts / dataset).as_uri() if here else None,
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
        """Return the runs (no children) with a key, complete ones first, then the newest."""
        found = self.runs(experiment, f"tags.`pipeline.key` = '{key}'")
        return sorted(found, key=_complete, reverse=True)

    def children(self, experiment: str, parent: str) -> dict[str, "Run"]:
        """Return a run's children by name; the newest where a name comes twice."""
        found = self.runs(experiment, f"tags.`mlflow.parentRunId` = '{parent}'")
        return {str(run.info.run_name): run for run in reversed(found)}

    def start(self, experiment: str, name: str, tags: Mapping[str, str]) -> "Run":
        """Create a run that names the process which writes it."""
        own = {"mlflow.pipeline.process": _process()}
        return self.client.create_run(experiment, tags={**tags, **own}, run_name=name)

    def log(
        self,
        run: str,
        *,
        params: Mapping[str, str] | None = None,
        metrics: Sequence["Metric"] = (),
        tags: Mapping[str, object] | None = None,
    ) -> None:
        """Log all at once, tags last: a request costs more than a hundred metrics."""
        from mlflow.entities import Param, RunTag

        while len(metrics) > BATCH:
            self.client.log_batch(run, metrics[:BATCH])
            metrics = metrics[BATCH:]
        named = [RunTag(name, str(value)) for name, value in (tags or {}).items()]
        settings = [Param(name, value[:6000]) for name, value in (params or {}).items()]
        if len(metrics) + len(settings) + len(named) > BATCH:
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
        raise PipelineError(f"CTR_TRACKING={value!r}: give it the value `off` or `on` (or none)")
    return value == "on"


def configure(root: Path) -> Store:
    """Return where to track, ready for use: a database that is there, whole, and points to this place.

    Args:
        root: the project's root. For a copy in which DVC runs an experiment it is the checkout that
            started it, since the copy is thrown away.

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
    """Return the checkout that a copy under .dvc/tmp/exps belongs to; any other path as it is.

    >>> main_checkout(Path("/home/me/ctr/.dvc/tmp/exps/tmpabc")).as_posix()
    '/home/me/ctr'
    """
    for parent in path.parents:
        if parent.parts[-3:] == (".dvc", "tmp", "exps"):
            return parent.parents[2]
    return path


@dataclass
class Live:
    """A run that goes on."""

    store: Store
    experiment: str
    run: str
    tags: dict[str, str]

    @contextmanager
    def child(self, name: str, key: str, params: Block) -> "Iterator[Log]":
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
    def child(self, name: str, key: str, params: Block) -> "Iterator[Log]":  # noqa: ARG002  as Live.child
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
            _close_if_dead(store, each)
        done = any(map(_complete, before))
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


def publish(folder: Path, *, model: bool = True) -> bool:
    """Bring MLflow up to what a run's folder says; return whether there was anything to do.

    What goes wrong is told and does not stop the stage: its files are complete and `sync` shows them.

    Args:
        folder: data/runs/<dataset>/<model>/<variant>.
        model: log the model too. The first one in a process takes a second; without it the run is left
            for `publish_report` or `sync` to complete.
    """
    return _or_warn(partial(_bring_run, model=model), folder)


def publish_report(folder: Path) -> bool:
    """Bring MLflow up to what a dataset's report says; return whether there was anything to do.

    Test metrics go to the runs they belong to, the leaderboard and plots to a run `evaluate` and the
    experiment's description, and the champion into the registry as `ctr-<dataset>`. Runs of the dataset
    that are not complete are completed first. What goes wrong is told and does not stop the stage.

    Args:
        folder: data/reports/<dataset>.
    """
    for path in sorted(folder.resolve().parents[1].glob(f"runs/{folder.name}/*/*/run.json")):
        publish(path.parent)
    return _or_warn(_bring_report, folder)


def sync(root: Path) -> str:
    """Bring MLflow up to what all files say and mend it; return one line on what was done.

    Raises:
        PipelineError: some files cannot be shown; the message names each, and the others are done.
    """
    if not enabled():
        return "MLflow: switched off (CTR_TRACKING=off), nothing done"
    root = root.resolve()
    runs = [path.parent for path in sorted(root.glob("data/runs/*/*/*/run.json"))]
    reports = [path.parent for path in sorted(root.glob("data/reports/*/report.json"))]
    store, before = Store.of(root), _standing(root)
    done, problems = list[str](), list[str]()
    if store.local and not store.database.exists() and runs:
        done.append("new database")
    if before.moved:
        done.append("paths of the moved checkout mended")
    if before.moved or before.running or not store.local:
        store = configure(root)
        with store.writing():
            closed = _close_dead(store)
        if closed:
            done.append(f"{_count(closed, 'interrupted run')} closed")
    for noun, bring, folders in (("run", _bring_run, runs), ("report", _bring_report, reports)):
        published = 0
        for folder in folders:
            try:
                published += bring(folder)
            except PipelineError as error:
                problems.append(f"- {error}")
        if published:
            done.append(f"{_count(published, noun)} published")
    if problems:
        raise PipelineError(
            "\n".join([f"MLflow lacks something ({', '.join(done) or 'nothing done'}):", *problems])
        )
    total = f"{_count(len(runs), 'run')}, {_count(len(reports), 'report')}"
    return f"MLflow ({store.uri}): {total}; {', '.join(done) or 'nothing to do'}"


def _or_warn(bring: Callable[[Path], bool], folder: Path) -> bool:
    try:
        return enabled() and bring(folder)
    except PipelineError as error:
        print(
            f"warning: not all is in MLflow: {error}\nThe results in data/ are complete; "
            "`python -m pipeline sync` shows the rest.",
            file=sys.stderr,
        )
        return False


def _bring_run(folder: Path, *, model: bool = True) -> bool:
    folder = folder.resolve()
    run = _read(
        folder / "run.json", "key", "dataset", "model", "variant", "stage", "params", "input", "seeds"
    )
    root = folder.parents[4]
    if run["key"] in _standing(root).complete:
        return False
    store = configure(root)
    with store.writing(), _explained(folder):
        return _publish(store, folder, run, root / "data/processed" / run["dataset"], model=model)


def _bring_report(folder: Path) -> bool:
    folder = folder.resolve()
    report = _read(folder / "report.json", "dataset", "results", "champion")
    root, key = folder.parents[2], folder_digest(folder)
    standing = _standing(root)
    keys = {result["key"] for result in report["results"]} & standing.complete
    if (
        key in standing.complete
        and {(each, key) for each in keys} <= standing.reported
        and _registered(report) in standing.champions
    ):
        return False
    store = configure(root)
    with store.writing(), _explained(folder):
        return _publish_report(store, folder, report, key)


def _publish(store: Store, folder: Path, run: Block, processed: Path, *, model: bool) -> bool:
    """Complete the newest run of a key, or a new one; the tag that says so comes last."""
    experiment = store.experiment(run["dataset"])
    before = store.named(experiment, run["key"])
    if before and _complete(before[0]):
        return False
    name, tags = f"{run['stage']}-{run['model']}", {**record.tags(run), "pipeline.key": run["key"]}
    shown = before[0] if before else store.start(experiment, name, tags)
    parent = shown.info.run_id
    if shown.data.tags.get("pipeline.state") != "COMPLETE":
        _publish_children(store, experiment, parent, run)
        _publish_parent(store, shown, folder, run)
        _log_dataset(store, shown, run, processed)
        store.log(parent, tags={"pipeline.state": "COMPLETE"})
        store.client.set_terminated(parent)
    if model:
        if "mlflow.pipeline.logged_model" not in shown.data.tags:
            _log_model(store, experiment, parent, folder, run, processed)
        store.log(parent, tags={"pipeline.complete": "true"})
    return True


def _publish_parent(store: Store, shown: "Run", folder: Path, run: Block) -> None:
    for path in sorted(folder.iterdir()):
        if path.suffix in (".json", ".csv", ".png"):
            store.client.log_artifact(shown.info.run_id, str(path))
    figures = [record.summary(seed["best"]) for seed in run["seeds"]]
    metrics = _points({**record.spread(figures), "weights": run.get("weights")})
    if search := run.get("search"):
        for number, value in record.progress(search).items():
            metrics += _points({f"search_best_{search['metric']}": value}, number)
    store.log(
        shown.info.run_id,
        params={key: value for key, value in record.params(run).items() if key not in shown.data.params},
        metrics=[] if shown.data.metrics else metrics,
        tags={"mlflow.note.content": record.description(run)},
    )


def _publish_children(store: Store, experiment: str, parent: str, run: Block) -> None:
    children = store.children(experiment, parent)
    for part in record.children(run):
        own = {**record.tags(run), "mlflow.parentRunId": parent, "pipeline.key": f"{run['key']}/{part[0]}"}
        _publish_child(store, children.get(part[0]) or store.start(experiment, part[0], own), *part)


def _publish_child(
    store: Store, child: "Run", name: str, params: Block, state: str, curve: list[Row], best: Row
) -> None:
    """Add to a child what it lacks: all if it is new, next to nothing if it was live."""
    run, have = child.info.run_id, child.data
    missing = curve
    if have.tags.get("mlflow.pipeline.points") == str(len(curve)):
        missing = []
    elif have.metrics:
        there = {point.step for point in store.client.get_metric_history(run, "valid_auc")}
        missing = [row for row in curve if row["step"] not in there]
    points = _points({k: v for k, v in record.summary(best).items() if k not in have.metrics})
    for row in missing:
        points += _points(row, int(row["step"]))
    settings = record.child_params(name, params)
    store.log(
        run,
        params={key: value for key, value in settings.items() if key not in have.params},
        metrics=points,
        tags={"pipeline.state": state, "mlflow.pipeline.points": len(curve)},
    )
    store.client.set_terminated(run, "KILLED" if state == "PRUNED" else "FINISHED")


def _log_dataset(store: Store, shown: "Run", run: Block, processed: Path) -> None:
    """Name the dataset a run was trained on: its digest, fields, and rows of each part."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    if shown.inputs and shown.inputs.dataset_inputs:
        return
    fields = read_json(processed / "schema.json") if (processed / "schema.json").exists() else []
    columns = [{"name": each["name"], "type": "long", "required": True} for each in fields]
    dataset = Dataset(
        name=run["dataset"],
        digest=run["input"],
        source_type="local",
        source=canonical({"uri": f"data/processed/{run['dataset']}"}),
        schema=canonical({"mlflow_colspec": columns}) if columns else None,
        profile=canonical(_rows(processed)),
    )
    tag = InputTag("mlflow.data.context", "training")
    store.client.log_inputs(shown.info.run_id, [DatasetInput(dataset, [tag])])


def _rows(processed: Path) -> dict[str, int]:
    import numpy as np

    return {
        f"{part}_rows": len(np.load(path, mmap_mode="r"))
        for part in ("train", "valid", "test")
        if (path := processed / f"{part}.label.npy").exists()
    }


def _log_model(store: Store, experiment: str, parent: str, folder: Path, run: Block, processed: Path) -> None:
    """Log the model of the best seed on validation data, as a graph of torch.export's: no pickle."""
    import jaxtyping
    import mlflow.pytorch
    import numpy as np
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus, Metric
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    from pipeline import export

    schema, best = export.read_schema(processed), record.best_seed(run)
    seed = best["seed"]
    network = export.ClickProbability(export.load(folder, run, schema, seed))
    signature = ModelSignature(
        # no names: with one the served model would be given a dict, which MLflow does not take here
        inputs=Schema([TensorSpec(np.dtype(np.int64), (-1, schema.slots))]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1,))]),
    )
    logged = store.client.create_logged_model(
        experiment,
        name=f"{run['model']}-{run['variant']}",
        source_run_id=parent,
        tags={"pipeline.key": run["key"], "seed": str(seed)},
        params={**record.params(run), "seed": str(seed)},
        model_type="click probability",
    )
    model = Model(
        artifact_path=logged.artifact_location,
        run_id=parent,
        model_uuid=logged.model_id,
        model_id=logged.model_id,
    )
    # the shape checks of the tests would make the example's number of rows the only one
    checks = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            path = f"{scratch}/model"
            mlflow.pytorch.save_model(
                network,
                path,
                mlflow_model=model,
                serialization_format="pt2",
                input_example=export.example(schema),
                signature=signature,
                # named here, since MLflow would load the model to find out
                pip_requirements=[f"{name}=={_release(name)}" for name in ("mlflow", "numpy", "torch")],
                metadata={**{name: run[name] for name in _NAMES}, "seed": seed},
            )
            store.client.log_model_artifacts(logged.model_id, path)
    except Exception as error:
        store.client.delete_logged_model(logged.model_id)
        raise PipelineError(f"{folder}: torch.export cannot take the model down: {error}") from error
    finally:
        jaxtyping.config.update("jaxtyping_disable", checks)
    store.client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
    store.client.log_outputs(parent, [LoggedModelOutput(logged.model_id, step=0)])
    store.log(parent, tags={"mlflow.pipeline.logged_model": logged.model_id, "pipeline.seed": seed})
    child = store.children(experiment, parent)[f"seed-{seed}"].info.run_id
    for name in record.summary(best["best"]):
        # the same point again, time included, so it is no second one; now the model's page has it too
        for point in store.client.get_metric_history(child, name):
            again = Metric(name, point.value, point.timestamp, point.step, model_id=logged.model_id)
            store.log(child, metrics=[again])


def _publish_report(store: Store, folder: Path, report: Block, key: str) -> bool:
    experiment = store.experiment(report["dataset"])
    runs = {}
    for result in report["results"]:
        found = store.named(experiment, result["key"])
        if found and _complete(found[0]):
            runs[result["key"]] = found[0]
    best = report["champion"]
    if best["key"] not in runs:
        raise PipelineError(
            f"{folder / 'report.json'}: the run of the champion {best['model']} ({best['variant']}), "
            f"{best['key']}, is not in MLflow; run `dvc repro`, then `python -m pipeline sync`"
        )
    evaluation = next(iter(store.named(experiment, key)), None)
    up_to_date = evaluation is not None and _complete(evaluation)
    if up_to_date and all(run.data.tags.get("mlflow.pipeline.report") == key for run in runs.values()):
        return _register(store, report, runs[best["key"]])

    for result in report["results"]:
        if run := runs.get(result["key"]):
            _log_test(store, experiment, run, result)
    board = folder / "leaderboard.md"
    text = board.read_text(encoding="utf-8") if board.exists() else ""
    plain = [line for line in text.splitlines() if not line.startswith(("# ", "!["))]
    note = "\n".join([record.headline(report), "", *plain]).strip()
    if evaluation is None:
        evaluation = store.start(
            experiment,
            "evaluate",
            {
                "pipeline.key": key,
                "pipeline.stage": "evaluate",
                "pipeline.dataset": report["dataset"],
                "mlflow.source.type": "LOCAL",
                "mlflow.source.name": "stages/evaluate.py",
            },
        )
    if not up_to_date:
        _log_evaluation(store, evaluation, folder, report, note)
    _register(store, report, runs[best["key"]])
    for tag, value in (("mlflow.note.content", note), (VIEW, record.board_view())):
        store.client.set_experiment_tag(experiment, tag, value)
    for run in runs.values():
        store.log(run.info.run_id, tags={"mlflow.pipeline.report": key})
    return True


def _log_test(store: Store, experiment: str, run: "Run", result: Block) -> None:
    """Give a run and its children the test figures that they have not got, or have with another value."""
    children = store.children(experiment, run.info.run_id)
    spread = {f"{name}_std": value for name, value in (result.get("std") or {}).items()}
    figures = [(run, {**result["mean"], **spread, "relaimpr": result.get("relaimpr")})]
    figures += [(children[f"seed-{seed['seed']}"], seed) for seed in result["seeds"]]
    for owner, values in figures:
        named = {f"test_{name}": value for name, value in values.items() if name != "seed"}
        new = {name: value for name, value in named.items() if owner.data.metrics.get(name) != value}
        store.log(owner.info.run_id, metrics=_points(new))


def _log_evaluation(store: Store, evaluation: "Run", folder: Path, report: Block, note: str) -> None:
    best, run = report["champion"], evaluation.info.run_id
    figures = {f"test_{name}": value for name, value in record.champion(report)["mean"].items()}
    figures |= {f"bayes_{name}": value for name, value in (report.get("bayes") or {}).items()}
    figures |= {"test_rows": report.get("rows"), "test_base_rate": report.get("base_rate")}
    store.client.log_artifacts(run, str(folder))
    store.log(
        run,
        params={"champion": f"{best['model']} ({best['variant']})", "champion.seed": str(best["seed"])},
        metrics=[] if evaluation.data.metrics else _points(figures),
        tags={"mlflow.note.content": note, "pipeline.complete": "true"},
    )
    store.client.set_terminated(run)


def _register(store: Store, report: Block, run: "Run") -> bool:
    """Give the alias `champion` to a run's model, as a new version if it has none; return if it was new."""
    from mlflow.exceptions import MlflowException

    client, best, name = store.client, report["champion"], _registered(report)
    result, model = record.champion(report), run.data.tags["mlflow.pipeline.logged_model"]
    try:
        registered = client.get_registered_model(name)
    except MlflowException:
        registered = client.create_registered_model(
            name,
            description=f"Click probability on {report['dataset']}; `champion`: best on validation data.",
        )
    tags = {
        "model": best["model"],
        "variant": best["variant"],
        "seed": run.data.tags["pipeline.seed"],
        "key": best["key"],
        "valid_auc": f"{result['valid_auc']:.4f}",
        **{f"test_{figure}": f"{value:.4f}" for figure, value in result["mean"].items() if value is not None},
    }
    versions = client.search_model_versions(f"name = '{name}'")
    chosen = next((each for each in versions if each.tags.get("key") == best["key"]), None)
    if chosen is None or chosen.source != f"models:/{model}":
        chosen = client.create_model_version(
            name,
            f"models:/{model}",
            run.info.run_id,
            tags=tags,
            model_id=model,
            description=f"{best['model']} ({best['variant']}), seed {tags['seed']}",
        )
    for tag, value in tags.items():
        if chosen.tags.get(tag) != value:
            client.set_model_version_tag(name, chosen.version, tag, value)
    if str(registered.aliases.get("champion")) == str(chosen.version):
        return False
    client.set_registered_model_alias(name, "champion", chosen.version)
    return True


def _registered(report: Block) -> str:
    return f"ctr-{report['dataset']}"


def _create(store: Store) -> None:
    """Make an empty database; it appears under its name only when whole."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with tempfile.TemporaryDirectory(dir=store.artifacts) as scratch:
        new = Path(scratch, "new.db")
        database.create(new)
        # MLflow leaves its constructor untyped
        SqlAlchemyStore(f"sqlite:///{new}", store.artifacts.as_uri()).engine.dispose()  # type: ignore[no-untyped-call]
        database.install(new, store.database)


def _standing(root: Path) -> database.Standing:
    """What is done, as far as it can be known without MLflow."""
    store = Store.of(root)
    return database.standing(store.database, store.artifacts) if store.local else database.Standing()


def _close_dead(store: Store) -> int:
    """Close the runs of ours whose process is gone; return how many, children counted too."""
    ours = store.client.search_experiments(filter_string="tags.`pipeline.dataset` != ''")
    return sum(
        _close_if_dead(store, run)
        for experiment in ours
        for run in store.runs(experiment.experiment_id, "attributes.status = 'RUNNING'")
    )


def _close_if_dead(store: Store, run: "Run") -> bool:
    """Close a run that is open though the process that wrote it is gone."""
    owner = run.data.tags.get("mlflow.pipeline.process")
    if run.info.status != "RUNNING" or owner is None or _alive(owner, store.local):
        return False
    store.log(run.info.run_id, tags={"pipeline.state": "KILLED"})
    store.client.set_terminated(run.info.run_id, "KILLED")
    return True


def _process() -> str:
    """Name this process so that no other can be taken for it: host, number, start time."""
    return f"{socket.gethostname()} {os.getpid()} {psutil.Process().create_time():.1f}"


def _alive(owner: str, local: bool) -> bool:
    """Whether a process is there. One on another host may be, unless the database is on this one."""
    host, number, started = owner.split()
    if host != socket.gethostname():
        return not local
    try:
        return bool(abs(psutil.Process(int(number)).create_time() - float(started)) < 2)
    except psutil.NoSuchProcess:
        return False


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


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        raise PipelineError(f"{folder}: MLflow refuses it: {error}") from error


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
        self.waiting += _points(metrics, step)
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


def _points(figures: Block, step: int = 0) -> list["Metric"]:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    return [
        Metric(name, float(value), now, step)
        for name, value in figures.items()
        if name not in record.AXES and value is not None
    ]


def _complete(run: "Run") -> bool:
    return bool(run.data.tags.get("pipeline.complete") == "true")


def _read(path: Path, *keys: str) -> Block:
    """Read one of the files this is a view of.

    Raises:
        PipelineError: it is missing, no JSON, or lacks a key.
    """
    try:
        values: Block = read_json(path)
        for key in keys:
            values[key]
    except FileNotFoundError:
        raise PipelineError(f"{path} is missing; run `dvc repro` (or `dvc pull`) to have it again") from None
    except (ValueError, KeyError, TypeError) as error:
        raise PipelineError(f"{path} is damaged ({error!r}); delete it and run `dvc repro`") from None
    return values


def _release(package: str) -> str:
    """Version of a package without the part that names a build, such as +cpu."""
    return version(package).partition("+")[0]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
