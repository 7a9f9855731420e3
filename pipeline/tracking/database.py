"""MLflow's database file without MLflow: is it valid, do its paths exist, what is published?

Loading MLflow takes seconds. These questions are asked whenever a stage starts or a sync runs, and sqlite
answers them in milliseconds. Only the tables of experiments, runs, models and their tags are read, and only
columns that hold a path are ever written.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.common.errors import PipelineError

PATHS = (  # every column in which MLflow stores an absolute path of artifacts
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


@dataclass(frozen=True)
class Progress:
    """What is published, by a database.

    Attributes:
        complete: `pipeline.key` of the complete runs.
        reported: (`pipeline.key`, report) of the runs that have the test metrics of that report.
        champions: registered models that have a champion.
        running: number of runs in progress, or left open by a killed process.
        moved: whether the paths of artifacts point to where this checkout was before.
    """

    complete: set[str] = field(default_factory=set)
    reported: set[tuple[str, str]] = field(default_factory=set)
    champions: set[str] = field(default_factory=set)
    running: int = 0
    moved: bool = False


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
    tagged = """
        SELECT k.value, t.value FROM runs AS r
        JOIN tags AS k ON k.run_uuid = r.run_uuid AND k.key = 'pipeline.key'
        JOIN tags AS t ON t.run_uuid = r.run_uuid AND t.key = ?
        WHERE r.lifecycle_stage = 'active'
    """
    running = """
        SELECT count(*) FROM runs AS r
        JOIN tags AS k ON k.run_uuid = r.run_uuid AND k.key = 'mlflow.pipeline.process'
        WHERE r.status = 'RUNNING' AND r.lifecycle_stage = 'active'
    """
    champions = "SELECT name FROM registered_model_aliases WHERE alias = 'champion'"
    with _reading(path) as database:
        return Progress(
            complete={key for key, _ in database.execute(tagged, ["pipeline.complete"])},
            reported=set(database.execute(tagged, ["mlflow.pipeline.report"])),
            champions={name for (name,) in database.execute(champions)},
            running=database.execute(running).fetchone()[0],
            moved=bool(_moves(_locations(database), artifacts)),
        )


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
    with closing(sqlite3.connect(path, timeout=60)) as database, database:
        for old, new in moves:
            for table, column in PATHS:
                database.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                    f"WHERE substr({column}, 1, ?) = ?",
                    [new, len(old) + 1, len(old), old],
                )
    return True


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
