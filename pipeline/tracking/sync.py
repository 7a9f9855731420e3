"""Publish all files in MLflow, whatever happened before."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from pipeline.common.errors import PipelineError
from pipeline.common.text import counted, without_secrets
from pipeline.config import yaml_file
from pipeline.tracking.database import Unavailable
from pipeline.tracking.guards import mlflow_errors, read
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
    without = [folder for folder in reports if not _has_runs(folder, root)]
    reports = [folder for folder in reports if folder not in without]
    waiting = _on_the_list(without, root)
    store = Store.of(root)
    done, problems = list[str](), list[str]()
    try:
        known = store.progress()
        if store.local and not store.database.exists() and runs:
            done.append("new database")
        repairs = {"paths of the moved checkout repaired": known.moved, "metrics renamed": known.outdated}
        done += [words for words, needed in repairs.items() if needed]
        if any(repairs.values()) or known.running or not store.local:
            store = configure(root)
            with store.writing(), mlflow_errors():
                closed = close_dead_runs(store)
            if closed:
                done.append(f"{counted(closed, 'interrupted run')} closed")
        if hidden := known.hidden & {folder.parents[1].name for folder in runs}:
            done.append(f"{counted(len(hidden), 'deleted experiment')} restored")
        known = store.progress() if any(repairs.values()) else known
        published = _update(partial(update_run, known=known), runs, problems)
        if published:
            done.append(f"{counted(published, 'run')} published")
            known = store.progress()
        published = _update(partial(update_report, known=known), reports, problems)
        if published:
            done.append(f"{counted(published, 'report')} published")
    except Unavailable as error:  # what it refuses once, it refuses for all
        problems.append(f"- {error}")
    if waiting:
        names = ", ".join(folder.name for folder in waiting)
        done.append(f"the report of {names} waits for its runs, which `dvc repro` makes")
    if problems:
        raise PipelineError(
            "\n".join([f"MLflow is incomplete ({', '.join(done) or 'nothing done'}):", *problems])
        )
    total = f"{counted(len(runs), 'run')}, {counted(len(reports), 'report')}"
    return f"MLflow ({without_secrets(store.uri)}): {total}; {', '.join(done) or 'nothing to do'}"


def _update(update: Callable[[Path], bool], folders: list[Path], problems: list[str]) -> int:
    """Update MLflow from each folder; return for how many there was anything to do."""
    published = 0
    for folder in folders:
        try:
            published += update(folder)
        except Unavailable:
            raise
        except PipelineError as error:
            problems.append(f"- {error}")
    return published


def _on_the_list(reports: list[Path], root: Path) -> list[Path]:
    """Return the reports of datasets that run; nobody waits for others, as a fresh clone has."""
    if not reports:
        return []
    running = yaml_file.read(root / "params.yaml")[1]["datasets"]
    return [folder for folder in reports if folder.name in running]


def _has_runs(report: Path, root: Path) -> bool:
    """Whether the run of a report's champion is in data/runs."""
    try:
        champion = read(report / "report.json", "champion")["champion"]
        run = root / "data/runs" / report.name / champion["model"] / champion["variant"] / "run.json"
        return run.exists() and bool(read(run, "key")["key"] == champion["key"])
    except (PipelineError, KeyError, TypeError):
        return True  # damaged: the update says how
