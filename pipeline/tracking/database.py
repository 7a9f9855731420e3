"""MLflow's database file without MLflow: is it valid, do its paths exist, what is published?

Loading MLflow takes seconds. These questions are asked whenever a stage starts or a sync runs, and sqlite
answers them in milliseconds. Only the tables of experiments, runs, models and their tags are read, and only
columns that hold a path are ever written.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from pipeline.common.errors import PipelineError
from pipeline.tracking import record
from pipeline.tracking.progress import LAYOUT, NOW, REPORT, Progress, Shown

PATHS = (  # every column in which MLflow stores an absolute path of artifacts
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
METRICS = (  # every table in which MLflow stores metrics: the columns of name, value and run
    ("metrics", "key", "value", "run_uuid"),
    ("latest_metrics", "key", "value", "run_uuid"),
    ("logged_model_metrics", "metric_name", "metric_value", "run_id"),
)
OUTDATED = f"""
    SELECT t.experiment_id FROM experiment_tags AS t WHERE t.key = 'pipeline.dataset' AND NOT EXISTS (
        SELECT 1 FROM experiment_tags AS l
        WHERE l.experiment_id = t.experiment_id AND l.key = '{LAYOUT}' AND l.value = '{NOW}'
    )
"""


class Unavailable(PipelineError):
    """MLflow's store cannot be used now: it is locked, read-only, or does not answer."""


def check(path: Path) -> None:
    """Check that a file is a complete MLflow database.

    Raises:
        PipelineError: it is not.
    """
    with _reading(path) as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        expected = {"alembic_version", *(table for table, _ in PATHS)}
        if missing := sorted(expected - tables):
            raise unusable(path, f"table {missing[0]!r} is missing")


def unusable(path: Path, reason: object) -> PipelineError:
    """Return the error that a database cannot be used, with the way to a new one."""
    return PipelineError(
        f"{path} is no readable MLflow database ({reason}). Move it away and run "
        "`python -m pipeline sync`: it writes a new one from the results in data/, nothing is retrained."
    )


def read_progress(path: Path, artifacts: Path) -> Progress:
    """Read what is published; nothing if there is no database.

    Args:
        path: the database.
        artifacts: the folder of the experiments' artifacts.

    Raises:
        PipelineError: the file is not a readable MLflow database.
    """
    if not path.exists():
        return Progress()
    check(path)
    tags = """
        SELECT t.run_uuid, t.key, t.value FROM tags AS t
        JOIN tags AS k ON k.run_uuid = t.run_uuid AND k.key = 'pipeline.key'
        WHERE t.key LIKE 'pipeline.%' OR t.key LIKE 'mlflow.pipeline.%' OR t.key = 'mlflow.parentRunId'
    """
    runs = """
        SELECT r.run_uuid, r.status, r.artifact_uri FROM runs AS r
        JOIN experiments AS e ON e.experiment_id = r.experiment_id
        WHERE r.lifecycle_stage = 'active' AND e.lifecycle_stage = 'active'
    """
    hidden = """
        SELECT t.value FROM experiments AS e
        JOIN experiment_tags AS t ON t.experiment_id = e.experiment_id AND t.key = 'pipeline.dataset'
        WHERE e.lifecycle_stage = 'deleted'
    """
    models = "SELECT model_id, artifact_location FROM logged_models WHERE lifecycle_stage = 'active'"
    champions = """
        SELECT a.name, v.source FROM registered_model_aliases AS a
        JOIN model_versions AS v ON v.name = a.name AND v.version = a.version WHERE a.alias = 'champion'
    """
    shown = "SELECT value FROM experiment_tags WHERE key = ?"
    with _reading(path) as database:
        tagged = dict[str, dict[str, str]]()
        for run, key, value in database.execute(tags):
            tagged.setdefault(run, {})[key] = value
        return Progress.of(
            [
                Shown(run, status, address, tagged[run])
                for run, status, address in database.execute(runs)
                if run in tagged
            ],
            dict(database.execute(models)),
            dict(database.execute(champions)),
            shown=[key for (key,) in database.execute(shown, [REPORT])],
            hidden=[dataset for (dataset,) in database.execute(hidden)],
            moved=bool(_moves(_locations(database), artifacts)),
            outdated=bool(database.execute(OUTDATED).fetchone()),
            is_there=_is_there,
        )


def _is_there(address: str, file: str) -> bool:
    """Whether a file is among the artifacts of an address; true where that is no folder of this machine."""
    parts = urlsplit(address)
    return parts.scheme not in ("file", "") or Path(url2pathname(parts.path), file).exists()


def is_folder_here(address: str) -> bool:
    """Whether the folder above an address is there; true where the address is no path of a machine."""
    parts = urlsplit(address)
    return parts.scheme not in ("file", "") or Path(url2pathname(parts.path)).parent.is_dir()


def relocate(path: Path, artifacts: Path) -> bool:
    """Rewrite the paths of artifacts after the checkout was moved or copied; return whether it was.

    Args:
        path: the database.
        artifacts: the folder of the experiments' artifacts now.
    """
    with _reading(path) as database:
        moves = _moves(_locations(database), artifacts)
    if not moves:
        return False
    with _reading(path) as database, database:
        for old, new in moves:
            for table, column in PATHS:
                database.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                    f"WHERE substr({column}, 1, ?) = ?",
                    [new, len(old) + 1, len(old), old],
                )
    return True


def rename_metrics(path: Path) -> None:
    """Give the metrics that an earlier version has written their present names; whoever reads runs waits."""
    with _reading(path) as database, database:
        if not database.execute(OUTDATED).fetchone():
            return
        database.create_function("grouped", 1, record.grouped, deterministic=True)
        database.create_function("rounded", 1, lambda v: v and record.rounded(v), deterministic=True)
        ours = f"SELECT run_uuid FROM runs WHERE experiment_id IN ({OUTDATED})"
        for table, name, value, run in METRICS:
            database.execute(
                f"UPDATE OR REPLACE {table} SET {name} = grouped({name}), {value} = rounded({value}) "
                f"WHERE {run} IN ({ours})"
            )
        for (experiment,) in database.execute(OUTDATED).fetchall():
            database.execute(
                "INSERT OR REPLACE INTO experiment_tags VALUES (?, ?, ?)", [LAYOUT, NOW, experiment]
            )


def create(path: Path) -> None:
    """Create an empty file with a write-ahead log: a transaction then syncs the disk only once."""
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = WAL")


def install(new: Path, path: Path) -> None:
    """Move a new database to its place.

    A write-ahead log left by a killed process would be replayed into it, so it is removed first.
    """
    with closing(sqlite3.connect(new)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for suffix in ("-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    new.replace(path)


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        # rw: creates no file, and the last connection to close removes the log
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=60)) as database:
            yield database
    except sqlite3.OperationalError as error:
        raise Unavailable(f"{path}: {error}") from None
    except sqlite3.Error as error:
        raise unusable(path, error) from None


def _locations(database: sqlite3.Connection) -> list[tuple[str, str]]:
    """Return (dataset, artifact location) of our experiments."""
    return database.execute(
        "SELECT t.value, e.artifact_location FROM experiments AS e JOIN experiment_tags AS t "
        "ON t.experiment_id = e.experiment_id AND t.key = 'pipeline.dataset'"
    ).fetchall()


def _moves(locations: Iterable[tuple[str, str]], artifacts: Path) -> list[tuple[str, str]]:
    """Return (old, new) prefixes of the paths to rewrite; both end in a slash."""
    new = artifacts.as_uri() + "/"
    old = {
        location.removesuffix(dataset)
        for dataset, location in locations
        if location.startswith("file://") and location.endswith(f"/{dataset}")
    }
    return [(before, new) for before in sorted(old - {new})]
