"""Publish a run's folder in MLflow: the run, its seeds and trials as children, its dataset and its model."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.common.files import canonical
from pipeline.data import storage
from pipeline.schema import SPLITS
from pipeline.tracking import record
from pipeline.tracking.guards import mlflow_errors, read, warn_only
from pipeline.tracking.record import Block, Row
from pipeline.tracking.store import Store, configure, is_complete, points

if TYPE_CHECKING:
    from mlflow.entities import Run


def publish(folder: Path, *, model: bool = True) -> bool:
    """Update MLflow from a run's folder; return whether there was anything to do.

    Errors are only warnings: the files of the stage are complete, and `sync` publishes them.

    Args:
        folder: data/runs/<dataset>/<model>/<variant>.
        model: log the model too. The first one in a process takes a second; without it, `publish_report` or
            `sync` completes the run.
    """
    return warn_only(partial(update_run, model=model), folder)


def update_run(folder: Path, *, model: bool = True) -> bool:
    """Do what `publish` does.

    Raises:
        PipelineError: a file is missing or damaged, or MLflow fails.
    """
    folder = folder.resolve()
    run = read(folder / "run.json", "key", "dataset", "model", "variant", "stage", "params", "input", "seeds")
    root = folder.parents[4]
    if run["key"] in Store.of(root).progress().complete:
        return False
    store = configure(root)
    with store.writing(), mlflow_errors(folder):
        return _publish(store, folder, run, root / "data/processed" / run["dataset"], model=model)


def _publish(store: Store, folder: Path, run: Block, processed: Path, *, model: bool) -> bool:
    """Complete the newest run of a key, or a new one; the tag `pipeline.complete` comes last."""
    experiment = store.experiment(run["dataset"])
    before = store.named(experiment, run["key"])
    if before and is_complete(before[0]):
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
            from pipeline.tracking.models import log_model  # with torch

            log_model(store, experiment, parent, folder, run, processed.parents[2])
        store.log(parent, tags={"pipeline.complete": "true"})
    return True


def _publish_parent(store: Store, shown: "Run", folder: Path, run: Block) -> None:
    for path in sorted(folder.iterdir()):
        if path.suffix in (".json", ".csv", ".png"):
            store.client.log_artifact(shown.info.run_id, str(path))
    have = shown.data.metrics
    figures = [record.summary(seed["best"]) for seed in run["seeds"]]
    capped = sum(seed.get("capped", False) for seed in run["seeds"])
    values = {**record.mean_and_std(figures), "weights": run.get("weights"), "capped": capped}
    search = run.get("search")
    values |= record.search_summary(search) if search else {}
    metrics = points({name: value for name, value in values.items() if name not in have})
    if search:
        for name, steps in record.search_steps(search).items():
            live = store.client.get_metric_history(shown.info.run_id, name) if name in have else []
            logged = {point.step for point in live}
            for number, value in steps.items():
                metrics += points({name: value}, number) if number not in logged else []
    store.log(
        shown.info.run_id,
        params={key: value for key, value in record.params(run).items() if key not in shown.data.params},
        metrics=metrics,
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
    """Add to a child what it lacks: everything if it is new, next to nothing if it was live."""
    run, have = child.info.run_id, child.data
    history = store.client.get_metric_history(run, "valid_auc") if have.metrics else []
    logged = {point.step for point in history}
    metrics = points({k: v for k, v in record.summary(best).items() if k not in have.metrics})
    for row in curve:
        if row["step"] in logged:
            continue
        metrics += points(row, int(row["step"]))
    settings = record.child_params(name, params)
    store.log(
        run,
        params={key: value for key, value in settings.items() if key not in have.params},
        metrics=metrics,
        tags={"pipeline.state": state},
    )
    store.client.set_terminated(run, "KILLED" if state == "PRUNED" else "FINISHED")


def _log_dataset(store: Store, shown: "Run", run: Block, processed: Path) -> None:
    """Log the dataset of a run: its digest, its fields, and the rows of each split."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    if shown.inputs and shown.inputs.dataset_inputs:
        return
    fields = storage.read_schema(processed).fields if (processed / "schema.json").exists() else ()
    columns = [{"name": field.name, "type": "long", "required": True} for field in fields]
    dataset = Dataset(
        name=run["dataset"],
        digest=run["input"],
        source_type="local",
        source=canonical({"uri": f"data/processed/{run['dataset']}"}),
        schema=canonical({"mlflow_colspec": columns}) if columns else None,
        profile=canonical(_rows(processed)),
    )
    origin = storage.read_origin(processed)
    if origin:
        answer = {True: "yes", False: "no", None: "unknown"}[origin["matches_publisher"]]
        wrong = {key: ", ".join(origin[key]) for key in ("differs", "missing") if origin[key]}
        store.log(
            shown.info.run_id,
            tags={
                "data.source": origin["source"],
                "data.matches_publisher": answer,
                **{f"data.{key}": names for key, names in wrong.items()},
            },
        )
    tag = InputTag("mlflow.data.context", "training")
    store.client.log_inputs(shown.info.run_id, [DatasetInput(dataset, [tag])])


def _rows(processed: Path) -> dict[str, int]:
    return {
        f"{split}_rows": len(storage.open_column(processed, split, "label"))
        for split in SPLITS
        if storage.has_column(processed, split, "label")
    }
