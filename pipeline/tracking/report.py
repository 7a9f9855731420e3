"""Publish a dataset's report in MLflow: test metrics, the leaderboard, the champion."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.common.errors import PipelineError
from pipeline.common.files import folder_digest
from pipeline.tracking import record
from pipeline.tracking.database import Unavailable
from pipeline.tracking.guards import read, warn, warn_only
from pipeline.tracking.progress import REPORT, Progress
from pipeline.tracking.record import Block
from pipeline.tracking.registry import Candidate, registered_name
from pipeline.tracking.runs import attempts, update_run
from pipeline.tracking.store import Store, enabled, is_complete, main_checkout, points

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
    return enabled() and warn_only(partial(_publish_all, folder.resolve()))


def _publish_all(folder: Path) -> bool:
    """Publish a dataset's runs and its report.

    Raises:
        PipelineError: a file is missing or damaged, or MLflow fails.
    """
    known = Store.of(folder.parents[2]).progress()
    for path in sorted(folder.parents[1].glob(f"runs/{folder.name}/*/*/run.json")):
        try:
            update_run(path.parent, known=known)
        except Unavailable:
            raise  # so would the others
        except PipelineError as error:
            warn(error)
    return update_report(folder)


def update_report(folder: Path, *, known: Progress | None = None) -> bool:
    """Do what `publish_report` does once the runs are there.

    Args:
        known: what a database of this checkout has, if that was looked up already.

    Raises:
        PipelineError: a file is missing or damaged, or MLflow fails.
    """
    folder = folder.resolve()
    report = read(folder / "report.json", "dataset", "results", "champion")
    root, key = folder.parents[2], folder_digest(folder)
    store = Store.of(root)
    if store.local:  # elsewhere other checkouts may have moved the champion since
        known = known or store.progress()
        keys = {result["key"] for result in report["results"]} & known.whole.keys()
        if (
            known.has(key)
            and {(each, key) for each in keys} <= known.reported
            and key in known.shown
            and registered_name(report) in known.champions
        ):
            return False
    return attempts(folder, root, lambda store: _publish_report(store, folder, report, key))


def _publish_report(store: Store, folder: Path, report: Block, key: str) -> bool:
    experiment = store.experiment(report["dataset"])
    runs = {}
    for result in report["results"]:
        found = store.named(experiment, result["key"])
        if found and is_complete(found[0]):
            runs[result["key"]] = found[0]
    best, mark = report["champion"], f"{REPORT}.{key}"
    if best["key"] not in runs:
        raise PipelineError(
            f"{folder / 'report.json'}: the run of the champion {best['model']} ({best['variant']}), "
            f"{best['key']}, is not in MLflow; run `dvc repro`, then `python -m pipeline sync`"
        )
    candidate = Candidate.of(store, experiment, report, runs[best["key"]])
    # an experiment in a copy (`dvc exp run --temp`) is shown; the champion is that of the project's report
    verdict, is_project = candidate.verdict(), main_checkout(folder) == folder
    leads = verdict.leads and is_project
    shows = (verdict.leads or candidate.own) and is_project  # the page has the last report, whoever leads
    shown = store.client.get_experiment(experiment).tags.get(REPORT) == key
    evaluation = next((each for each in store.named(experiment, key) if not store.is_written(each)), None)
    up_to_date = (
        evaluation is not None and is_complete(evaluation) and store.has_file(evaluation, "report.json")
    )
    if up_to_date and shown >= shows and all(mark in run.data.tags for run in runs.values()):
        return candidate.register(leads=leads, reason=verdict.reason)

    for result in report["results"]:
        if run := runs.get(result["key"]):
            _log_test(store, experiment, run, result, correct=shows)
            store.log(run.info.run_id, tags=record.warning_tags(result))
    note = record.note(report)
    if evaluation is None:
        tags = {
            **record.tags({**best, "stage": "evaluate", "dataset": report["dataset"]}),
            "pipeline.key": key,
        }
        evaluation = store.start(experiment, "evaluate", tags)
    if not up_to_date:
        _log_evaluation(store, evaluation, folder, report, note)
    candidate.register(leads=leads, reason=verdict.reason)
    for run in runs.values():
        store.log(run.info.run_id, tags={mark: "true"})
    if shows:
        for tag, value in (
            ("mlflow.note.content", note),
            (VIEW, record.leaderboard_view(mark)),
            (REPORT, key),
        ):
            store.client.set_experiment_tag(experiment, tag, value)
    store.tidy(experiment, key)
    return True


def _log_test(store: Store, experiment: str, run: "Run", result: Block, *, correct: bool) -> None:
    """Log the test metrics that a run and its children lack and, if `correct`, those with another value."""
    children = store.children(experiment, run.info.run_id)
    spread = {f"{name}_std": value for name, value in (result.get("std") or {}).items()}
    whole = {name: result.get(name) for name in record.OF_THE_WHOLE}
    figures = [(run, {**result["mean"], **spread, **whole})]
    figures += [(child, seed) for seed in result["seeds"] if (child := children.get(f"seed-{seed['seed']}"))]
    for owner, values in figures:
        named = {record.metric(name): value for name, value in values.items() if name != "seed"}
        have = owner.data.metrics
        new = {
            name: value
            for name, value in named.items()
            if name not in have or (correct and have[name] != value)
        }
        store.log(owner.info.run_id, metrics=points(new))


def _log_evaluation(store: Store, evaluation: "Run", folder: Path, report: Block, note: str) -> None:
    best, run = report["champion"], evaluation.info.run_id
    figures = {f"test_{name}": value for name, value in record.champion(report)["mean"].items()}
    figures |= {f"bayes_{name}": value for name, value in (report.get("bayes") or {}).items()}
    figures |= {f"test_{name}": report.get(name) for name in ("rows", "base_rate", "gauc_coverage")}
    for found in report.get("blends", []):
        costs = ("auc", "logloss", "trainings", "weights")
        figures |= {f"blend_{found['kind']}_{name}": found[name] for name in costs}
    store.client.log_artifacts(run, str(folder))
    store.log(
        run,
        params={"champion": f"{best['model']} ({best['variant']})", "champion.seed": str(best["seed"])},
        metrics=[] if evaluation.data.metrics else points(figures),
        tags={"mlflow.note.content": note, "pipeline.state": "COMPLETE"},
    )
    store.close(evaluation, "FINISHED")
    store.log(run, tags={"pipeline.complete": "true"})
