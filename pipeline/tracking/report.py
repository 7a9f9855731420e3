"""Publish a dataset's report in MLflow: test metrics, the leaderboard, the champion."""

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.common.errors import PipelineError
from pipeline.common.files import folder_digest
from pipeline.tracking import record
from pipeline.tracking.guards import mlflow_errors, read, warn_only
from pipeline.tracking.record import Block
from pipeline.tracking.registry import register, registered_name
from pipeline.tracking.runs import publish
from pipeline.tracking.store import Store, configure, is_complete, points

if TYPE_CHECKING:
    from mlflow.entities import Run

VIEW = "mlflow.sharedViewState.leaderboard"  # the page opens it at .../runs?viewStateShareKey=leaderboard


def publish_report(folder: Path) -> bool:
    """Update MLflow from a dataset's report; return whether there was anything to do.

    Test metrics go to the runs they belong to, the leaderboard and plots to a run `evaluate` and the
    experiment's description, and the champion into the registry as `ctr-<dataset>`. Incomplete runs of the
    dataset are completed first. Errors are only warnings.

    Args:
        folder: data/reports/<dataset>.
    """
    for path in sorted(folder.resolve().parents[1].glob(f"runs/{folder.name}/*/*/run.json")):
        publish(path.parent)
    return warn_only(update_report, folder)


def update_report(folder: Path) -> bool:
    """Do what `publish_report` does once the runs are there.

    Raises:
        PipelineError: a file is missing or damaged, or MLflow fails.
    """
    folder = folder.resolve()
    report = read(folder / "report.json", "dataset", "results", "champion")
    root, key = folder.parents[2], folder_digest(folder)
    progress = Store.of(root).progress()
    keys = {result["key"] for result in report["results"]} & progress.complete
    if (
        key in progress.complete
        and {(each, key) for each in keys} <= progress.reported
        and registered_name(report) in progress.champions
    ):
        return False
    store = configure(root)
    with store.writing(), mlflow_errors(folder):
        return _publish_report(store, folder, report, key)


def _publish_report(store: Store, folder: Path, report: Block, key: str) -> bool:
    experiment = store.experiment(report["dataset"])
    runs = {}
    for result in report["results"]:
        found = store.named(experiment, result["key"])
        if found and is_complete(found[0]):
            runs[result["key"]] = found[0]
    best = report["champion"]
    if best["key"] not in runs:
        raise PipelineError(
            f"{folder / 'report.json'}: the run of the champion {best['model']} ({best['variant']}), "
            f"{best['key']}, is not in MLflow; run `dvc repro`, then `python -m pipeline sync`"
        )
    evaluation = next(iter(store.named(experiment, key)), None)
    up_to_date = evaluation is not None and is_complete(evaluation)
    if up_to_date and all(run.data.tags.get("mlflow.pipeline.report") == key for run in runs.values()):
        return register(store, report, runs[best["key"]])

    for result in report["results"]:
        if run := runs.get(result["key"]):
            _log_test(store, experiment, run, result)
            store.log(run.info.run_id, tags=record.warning_tags(result))
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
    register(store, report, runs[best["key"]])
    for tag, value in (("mlflow.note.content", note), (VIEW, record.leaderboard_view())):
        store.client.set_experiment_tag(experiment, tag, value)
    for run in runs.values():
        store.log(run.info.run_id, tags={"mlflow.pipeline.report": key})
    return True


def _log_test(store: Store, experiment: str, run: "Run", result: Block) -> None:
    """Log the test metrics that a run and its children lack or have with another value."""
    children = store.children(experiment, run.info.run_id)
    spread = {f"{name}_std": value for name, value in (result.get("std") or {}).items()}
    whole = {name: result.get(name) for name in record.OF_THE_WHOLE}
    figures = [(run, {**result["mean"], **spread, **whole})]
    figures += [(children[f"seed-{seed['seed']}"], seed) for seed in result["seeds"]]
    for owner, values in figures:
        named = {record.metric(name): value for name, value in values.items() if name != "seed"}
        new = {name: value for name, value in named.items() if owner.data.metrics.get(name) != value}
        store.log(owner.info.run_id, metrics=points(new))


def _log_evaluation(store: Store, evaluation: "Run", folder: Path, report: Block, note: str) -> None:
    best, run = report["champion"], evaluation.info.run_id
    figures = {f"test_{name}": value for name, value in record.champion(report)["mean"].items()}
    figures |= {f"bayes_{name}": value for name, value in (report.get("bayes") or {}).items()}
    figures |= {f"test_{name}": report.get(name) for name in ("rows", "base_rate", "gauc_coverage")}
    store.client.log_artifacts(run, str(folder))
    store.log(
        run,
        params={"champion": f"{best['model']} ({best['variant']})", "champion.seed": str(best["seed"])},
        metrics=[] if evaluation.data.metrics else points(figures),
        tags={"mlflow.note.content": note, "pipeline.complete": "true"},
    )
    store.client.set_terminated(run)
