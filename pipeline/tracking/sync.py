"""All files in MLflow, whatever happened before."""

from pathlib import Path

from pipeline.common.errors import PipelineError
from pipeline.tracking.guards import read
from pipeline.tracking.live import close_dead
from pipeline.tracking.report import bring_report
from pipeline.tracking.runs import bring_run
from pipeline.tracking.store import Store, configure, enabled


def sync(root: Path) -> str:
    """Bring MLflow up to what all files say and mend it; return one line on what was done.

    A report whose champion was not trained here yet, as in a fresh clone, waits for its runs.

    Raises:
        PipelineError: some files cannot be shown; the message names each, and the others are done.
    """
    if not enabled():
        return "MLflow: switched off (CTR_TRACKING=off), nothing done"
    root = root.resolve()
    runs = [path.parent for path in sorted(root.glob("data/runs/*/*/*/run.json"))]
    reports = [path.parent for path in sorted(root.glob("data/reports/*/report.json"))]
    waiting = [folder for folder in reports if not _has_runs(folder, root)]
    reports = [folder for folder in reports if folder not in waiting]
    store = Store.of(root)
    before = store.standing()
    done, problems = list[str](), list[str]()
    if store.local and not store.database.exists() and runs:
        done.append("new database")
    if before.moved:
        done.append("paths of the moved checkout mended")
    if before.moved or before.running or not store.local:
        store = configure(root)
        with store.writing():
            closed = close_dead(store)
        if closed:
            done.append(f"{_count(closed, 'interrupted run')} closed")
    for noun, bring, folders in (("run", bring_run, runs), ("report", bring_report, reports)):
        published = 0
        for folder in folders:
            try:
                published += bring(folder)
            except PipelineError as error:
                problems.append(f"- {error}")
        if published:
            done.append(f"{_count(published, noun)} published")
    if waiting:
        names = ", ".join(folder.name for folder in waiting)
        done.append(f"the report of {names} waits for its runs, which `dvc repro` makes")
    if problems:
        raise PipelineError(
            "\n".join([f"MLflow lacks something ({', '.join(done) or 'nothing done'}):", *problems])
        )
    total = f"{_count(len(runs), 'run')}, {_count(len(reports), 'report')}"
    return f"MLflow ({store.uri}): {total}; {', '.join(done) or 'nothing to do'}"


def _has_runs(report: Path, root: Path) -> bool:
    """Whether the run of a report's champion lies in data/runs."""
    try:
        champion = read(report / "report.json", "champion")["champion"]
        run = root / "data/runs" / report.name / champion["model"] / champion["variant"] / "run.json"
        return run.exists() and bool(read(run, "key")["key"] == champion["key"])
    except (PipelineError, KeyError, TypeError):
        return True  # damaged: bringing it says how


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
