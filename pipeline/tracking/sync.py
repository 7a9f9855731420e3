"""All files in MLflow, whatever happened before."""

from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.tracking.live import close_dead
from pipeline.tracking.report import bring_report
from pipeline.tracking.runs import bring_run
from pipeline.tracking.store import Store, configure, enabled


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
    if problems:
        raise PipelineError(
            "\n".join([f"MLflow lacks something ({', '.join(done) or 'nothing done'}):", *problems])
        )
    total = f"{_count(len(runs), 'run')}, {_count(len(reports), 'report')}"
    return f"MLflow ({store.uri}): {total}; {', '.join(done) or 'nothing to do'}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
