"""Publish all files in MLflow, whatever happened before."""

from pathlib import Path

from pipeline.common.errors import PipelineError
from pipeline.common.text import counted
from pipeline.tracking.guards import read
from pipeline.tracking.live import close_dead_runs
from pipeline.tracking.report import update_report
from pipeline.tracking.runs import update_run
from pipeline.tracking.store import Store, configure, enabled


def sync(root: Path) -> str:
    """Update MLflow from all files and repair it; return one line on what was done.

    A report whose champion was not trained here yet, as in a fresh clone, waits for its runs.

    Raises:
        PipelineError: some files cannot be published; the message names each, and the others are done.
    """
    if not enabled():
        return "MLflow: switched off (CTR_TRACKING=off), nothing done"
    root = root.resolve()
    runs = [path.parent for path in sorted(root.glob("data/runs/*/*/*/run.json"))]
    reports = [path.parent for path in sorted(root.glob("data/reports/*/report.json"))]
    waiting = [folder for folder in reports if not _has_runs(folder, root)]
    reports = [folder for folder in reports if folder not in waiting]
    store = Store.of(root)
    before = store.progress()
    done, problems = list[str](), list[str]()
    if store.local and not store.database.exists() and runs:
        done.append("new database")
    if before.moved:
        done.append("paths of the moved checkout repaired")
    if before.moved or before.running or not store.local:
        store = configure(root)
        with store.writing():
            closed = close_dead_runs(store)
        if closed:
            done.append(f"{counted(closed, 'interrupted run')} closed")
    for noun, update, folders in (("run", update_run, runs), ("report", update_report, reports)):
        published = 0
        for folder in folders:
            try:
                published += update(folder)
            except PipelineError as error:
                problems.append(f"- {error}")
        if published:
            done.append(f"{counted(published, noun)} published")
    if waiting:
        names = ", ".join(folder.name for folder in waiting)
        done.append(f"the report of {names} waits for its runs, which `dvc repro` makes")
    if problems:
        raise PipelineError(
            "\n".join([f"MLflow is incomplete ({', '.join(done) or 'nothing done'}):", *problems])
        )
    total = f"{counted(len(runs), 'run')}, {counted(len(reports), 'report')}"
    return f"MLflow ({store.uri}): {total}; {', '.join(done) or 'nothing to do'}"


def _has_runs(report: Path, root: Path) -> bool:
    """Whether the run of a report's champion is in data/runs."""
    try:
        champion = read(report / "report.json", "champion")["champion"]
        run = root / "data/runs" / report.name / champion["model"] / champion["variant"] / "run.json"
        return run.exists() and bool(read(run, "key")["key"] == champion["key"])
    except (PipelineError, KeyError, TypeError):
        return True  # damaged: the update says how
