"""Publish a run's folder in MLflow: the run, its seeds and trials as children, its dataset and its model."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.common.files import canonical
from pipeline.data import storage
from pipeline.schema import SPLITS
from pipeline.tracking import record
from pipeline.tracking.guards import MlflowFailure, mlflow_errors, read, warn_only
from pipeline.tracking.progress import LAYOUT, MODEL, NOW, REPORT, Progress
from pipeline.tracking.record import Block, Row
from pipeline.tracking.store import Store, configure, enabled, is_complete, is_current, points

if TYPE_CHECKING:
    from mlflow.entities import Run as Shown

ATTEMPTS = 3


def publish(folder: Path, *, model: bool = True) -> bool:
    """Update MLflow from a run's folder; return whether there was anything to do.

    Errors are only warnings: the files of the stage are complete, and `sync` publishes them.

    Args:
        folder: data/runs/<dataset>/<model>/<variant>.
        model: log the model too. The first one in a process takes a second; without it, `publish_report` or
            `sync` completes the run.
    """
    return enabled() and warn_only(partial(update_run, folder, model=model))


def update_run(folder: Path, *, model: bool = True, known: Progress | None = None) -> bool:
    """Do what `publish` does.

    Args:
        known: what MLflow has, if that was looked up already.

    Raises:
        PipelineError: a file is missing or damaged, or MLflow fails.
    """
    folder = folder.resolve()
    run = read(folder / "run.json", "key", "dataset", "model", "variant", "stage", "params", "input", "seeds")
    root = folder.parents[4]
    if known is None and (store := Store.of(root)).local:
        known = store.progress()
    if known is not None and known.has(run["key"], [part[0] for part in record.children(run)]):
        return False
    processed = root / "data/processed" / run["dataset"]
    return attempts(folder, root, lambda store: _publish(store, folder, run, processed, model=model))


def attempts(folder: Path, root: Path, update: Callable[[Store], bool]) -> bool:
    """Update a store from a folder.

    On a server, another checkout may publish the same run at once and delete ours as surplus while we write
    it; the second or third attempt finds the one that was kept.
    """
    store = configure(root)
    left = 1 if store.local else ATTEMPTS
    while True:
        try:
            with store.writing(), mlflow_errors(folder):
                return update(store)
        except MlflowFailure:
            left -= 1
            if not left:
                raise


def _publish(store: Store, folder: Path, run: Block, processed: Path, *, model: bool) -> bool:
    """Complete the newest run of a key, or a new one, or mend a complete one that has lost something.

    The tag `pipeline.complete` comes last, and then what other attempts left is deleted.
    """
    experiment = store.experiment(run["dataset"])
    before = [each for each in store.named(experiment, run["key"]) if not store.is_written(each)]
    tags = {**record.tags(run), "pipeline.key": run["key"]}
    shown = before[0] if before else store.start(experiment, record.name(run), tags)
    parent, had, changed = shown.info.run_id, shown.data.tags, False
    children = store.children(experiment, parent)
    lacks = [part[0] for part in record.children(run) if part[0] not in children]
    mended = lacks or not is_current(shown) or not store.has_file(shown, "run.json")
    if had.get("pipeline.state") != "COMPLETE" or mended:
        _publish_children(store, experiment, parent, children, run)
        _publish_parent(store, shown, folder, run)
        _log_dataset(store, shown, run, processed)
        for tag in [tag for tag in had if mended and tag.startswith(REPORT)]:
            store.client.delete_tag(parent, tag)  # the new children lack its test metrics
        if shown.info.run_name == f"{run['stage']}-{run['model']}":  # as an earlier version called it
            store.client.update_run(parent, name=record.name(run))
        store.log(parent, tags={"pipeline.state": "COMPLETE", LAYOUT: NOW})
        changed = True
    if model and not (is_complete(shown) and store.has_model(had.get(MODEL))):
        if not store.has_model(had.get(MODEL)):
            from pipeline.tracking.models import log_model  # with torch

            log_model(store, experiment, parent, folder, run, processed.parents[2])
        changed = True
    store.close(shown, "FINISHED")
    if model or is_complete(shown):
        store.log(parent, tags={"pipeline.complete": "true"})
        changed |= store.tidy(experiment, run["key"]) > 0
    return changed


def _publish_parent(store: Store, shown: "Shown", folder: Path, run: Block) -> None:
    from pipeline.evaluate.dvc_views import CURVES, mean_curve
    from pipeline.evaluate.runs import Run

    for path in sorted(folder.iterdir()):
        if path.suffix in (".json", ".csv", ".png"):
            store.client.log_artifact(shown.info.run_id, str(path))
    have, files = shown.data.metrics, Run(folder, run)
    figures = [record.summary(seed["best"]) for seed in run["seeds"]]
    capped = sum(seed.get("capped", False) for seed in run["seeds"])
    values = {**record.mean_and_std(figures), "weights": run.get("weights"), "capped": capped}
    search = run.get("search")
    values |= record.search_summary(search) if search else {}
    metrics = points({name: value for name, value in record.shown(values).items() if name not in have})
    if "valid/auc" not in have:  # the mean curve of the seeds
        curves = {name: mean_curve(files, name) for name in CURVES}
        longest = max((seed["curve"] for seed in run["seeds"]), key=len)
        for i in range(len(curves["valid_auc"][0])):
            row = {name: float(mean[i]) for name, (_, mean, _) in curves.items()}
            metrics += points(row, int(longest[i]["step"]))
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


def _publish_children(
    store: Store, experiment: str, parent: str, children: "dict[str, Shown]", run: Block
) -> None:
    for part in record.children(run):
        own = {**record.tags(run), "mlflow.parentRunId": parent, "pipeline.key": f"{run['key']}/{part[0]}"}
        _publish_child(store, children.get(part[0]) or store.start(experiment, part[0], own), *part)


def _publish_child(
    store: Store, child: "Shown", name: str, params: Block, state: str, curve: list[Row], best: Row
) -> None:
    """Add to a child what it lacks: everything if it is new, next to nothing if it was live."""
    run, have = child.info.run_id, child.data
    history = store.client.get_metric_history(run, "valid/auc") if have.metrics else []
    logged = {point.step for point in history}
    metrics = points({k: v for k, v in record.shown(record.summary(best)).items() if k not in have.metrics})
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
    if state == "PRUNED" and child.info.run_name == name:
        store.client.update_run(run, name=f"{name} (pruned)")
    store.close(child, "FINISHED")


def _log_dataset(store: Store, shown: "Shown", run: Block, processed: Path) -> None:
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
