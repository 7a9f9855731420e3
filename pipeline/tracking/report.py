"""Publish a dataset's report in MLflow: test metrics, the leaderboard, saved views, the champion."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.common.errors import PipelineError
from pipeline.common.files import folder_digest
from pipeline.evaluate import results
from pipeline.tracking import blends, record
from pipeline.tracking.database import Unavailable
from pipeline.tracking.guards import read, warn, warn_only
from pipeline.tracking.progress import LAYOUT, MODEL, NOW, REPORT, Progress
from pipeline.tracking.record import Block
from pipeline.tracking.registry import Candidate, registered_name
from pipeline.tracking.runs import attempts, update_run
from pipeline.tracking.store import Store, enabled, is_complete, is_current, main_checkout, points
from pipeline.tracking.views import views

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mlflow.entities import Run

NOTE = "mlflow.note.content"
MODE = "workflowType=machine_learning"  # of MLflow's page; its other one shows traces
PAGES = ("report.html", "leaderboard.md", "report.json")  # of a report; the first that is there is to be read


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
            and {registered_name(report), *blends.names(report)} <= known.champions
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
        evaluation is not None
        and is_complete(evaluation)
        and is_current(evaluation)
        and store.has_file(evaluation, "report.json")
    )
    if up_to_date and shown >= shows and all(mark in run.data.tags for run in runs.values()):
        assert evaluation is not None
        link = _link(evaluation, folder)
        changed = candidate.register(leads=leads, reason=verdict.reason, link=link)
        return blends.register(store, experiment, evaluation, report, leads=leads, link=link) or changed

    children = {each: store.children(experiment, run.info.run_id) for each, run in runs.items()}
    _log_figures(store, report, runs, children, correct=shows)
    note = record.note(report)
    if evaluation is None:
        tags = {
            **record.tags({**best, "stage": "evaluate", "dataset": report["dataset"]}),
            "pipeline.key": key,
        }
        evaluation = store.start(experiment, "evaluate", tags)
    if not up_to_date:
        _log_evaluation(store, evaluation, folder, report, note)
    link = _link(evaluation, folder)
    candidate.register(leads=leads, reason=verdict.reason, link=link)
    blends.register(store, experiment, evaluation, report, leads=leads, link=link)
    searches = [
        [child for name, child in each.items() if name.startswith("trial-")] for each in children.values()
    ]
    _mark(store, mark, runs.values(), [trial for trials in searches for trial in trials], link * shows)
    if shows:
        axes = record.axes([[trial.data.params for trial in trials] for trials in searches if trials])
        tags = {NOTE: record.linked(note, link), **views(mark, axes), REPORT: key}
        for tag, value in tags.items():
            store.client.set_experiment_tag(experiment, tag, value)
    store.tidy(experiment, key)
    return True


def _link(evaluation: "Run | None", folder: Path) -> str:
    """Return a link to a report in its run."""
    assert evaluation is not None
    run, page = evaluation.info, next(each for each in PAGES if (folder / each).exists())
    return record.link(f"#/experiments/{run.experiment_id}/runs/{run.run_id}/artifacts/{page}?{MODE}")


def _mark(store: Store, mark: str, runs: "Iterable[Run]", trials: "Iterable[Run]", link: str) -> None:
    """Give the runs and trials of a report its mark, the runs last, and in their descriptions its link."""
    for trial in trials:
        store.log(trial.info.run_id, tags={mark: "trial"})
    for run in runs:
        note = {NOTE: record.linked(run.data.tags.get(NOTE, ""), link)} if link else {}
        store.log(run.info.run_id, tags={**note, mark: "true"})


def _log_figures(
    store: Store,
    report: Block,
    runs: "Mapping[str, Run]",
    children: "Mapping[str, Mapping[str, Run]]",
    *,
    correct: bool,
) -> None:
    """Log what a report says of the runs, by key, and of their refits; see `_log_test`."""
    for result in report["results"]:
        if run := runs.get(result["key"]):
            _log_test(store, run, children[result["key"]], result, correct=correct)
            store.log(run.info.run_id, tags=record.warning_tags(result))
    for refit in report.get("refits", []):
        if run := runs.get(refit["key"]):
            _log_refit(store, run, children[refit["key"]], refit, correct=correct)


def _log_test(
    store: Store, run: "Run", children: "Mapping[str, Run]", result: Block, *, correct: bool
) -> None:
    """Log the test metrics that a run and its children lack and, if `correct`, those with another value.

    Those of the seed whose model is logged belong to the model, too, whose page compares models by them.
    """
    spread = {f"{name}_std": value for name, value in (result.get("std") or {}).items()}
    whole = {name: result.get(name) for name in record.OF_THE_WHOLE}
    figures = [(run, {**result["mean"], **spread, **whole})]
    figures += [(child, seed) for seed in result["seeds"] if (child := children.get(f"seed-{seed['seed']}"))]
    for owner, values in figures:
        new = _new(
            owner, {record.metric(name): value for name, value in values.items() if name != "seed"}, correct
        )
        logged = str(values.get("seed")) == run.data.tags.get("pipeline.seed")
        model = run.data.tags.get(MODEL) if logged else None
        store.log(owner.info.run_id, metrics=points(new, model=model))


def _log_refit(
    store: Store, run: "Run", children: "Mapping[str, Run]", refit: Block, *, correct: bool
) -> None:
    """Log the test metrics of a refit: those of a seed as its child's, their means as the run's `refit/`.

    The run keeps `test/` for the weights that were chosen; a refit never competes with them.
    """
    spread = {f"{name}_std": value for name, value in (refit.get("std") or {}).items()}
    whole = {name: refit[name] for name in ("auc_standard_error", "auc_low", "auc_high", "epochs")}
    figures = {
        record.refit_metric(name): value for name, value in {**refit["mean"], **spread, **whole}.items()
    }
    store.log(run.info.run_id, metrics=points(_new(run, figures, correct)))
    for seed in refit["seeds"]:
        if child := children.get(f"refit-{seed['seed']}"):
            figures = {record.metric(name): value for name, value in seed.items() if name != "seed"}
            store.log(child.info.run_id, metrics=points(_new(child, figures, correct)))


def _new(owner: "Run", figures: Block, correct: bool) -> record.Row:
    """Return the metrics that a run lacks and, if `correct`, those with another value."""
    have = owner.data.metrics
    return {
        name: value
        for name, value in record.shown(figures).items()
        if name not in have or (correct and have[name] != value)
    }


def _log_evaluation(store: Store, evaluation: "Run", folder: Path, report: Block, note: str) -> None:
    best, run = report["champion"], evaluation.info.run_id
    figures = {f"test_{name}": value for name, value in results.leader(report)["mean"].items()}
    figures |= {f"bayes_{name}": value for name, value in (report.get("bayes") or {}).items()}
    figures |= {f"test_{name}": report.get(name) for name in ("rows", "base_rate", "gauc_coverage")}
    for found in report.get("blends", []):
        costs = ("auc", "logloss", "trainings", "weights")
        figures |= {f"blend_{found['kind'].replace(' + ', '_')}_{name}": found[name] for name in costs}
    store.client.log_artifacts(run, str(folder))
    store.log(
        run,
        params={"champion": f"{best['model']} ({best['variant']})", "champion.seed": str(best["seed"])},
        metrics=[] if evaluation.data.metrics else points(figures),
        tags={NOTE: note, "pipeline.state": "COMPLETE"},
    )
    store.close(evaluation, "FINISHED")
    store.log(run, tags={"pipeline.complete": "true", LAYOUT: NOW})
