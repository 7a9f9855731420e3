"""MLflow's database file without MLflow."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.common.errors import PipelineError
from pipeline.tracking import database
from pipeline.tracking.progress import LAYOUT, NOW


def write(path: Path, artifacts: Path, *, dataset: str = "toy") -> None:
    """Write what matters here of MLflow's tables."""
    old = artifacts.as_uri()
    columns = {
        "alembic_version": "version_num",
        "experiments": "experiment_id, artifact_location, lifecycle_stage",
        "experiment_tags": "experiment_id, key, value",
        "runs": "run_uuid, artifact_uri, status, lifecycle_stage, experiment_id",
        "tags": "run_uuid, key, value",
        "logged_models": "model_id, artifact_location, lifecycle_stage",
        "model_versions": "name, version, source, storage_location",
        "registered_model_aliases": "name, alias, version",
    }
    rows = [
        ("experiments", (1, f"{old}/{dataset}", "active")),
        ("experiment_tags", (1, "pipeline.dataset", dataset)),
        ("experiment_tags", (1, LAYOUT, NOW)),
        ("runs", ("r1", f"{old}/{dataset}/r1/artifacts", "FINISHED", "active", 1)),
        ("runs", ("r2", f"{old}/{dataset}/r2/artifacts", "RUNNING", "active", 1)),
        ("runs", ("r3", f"{old}/{dataset}/r3/artifacts", "FINISHED", "deleted", 1)),
        ("tags", ("r1", "pipeline.key", "a")),
        ("tags", ("r1", "pipeline.complete", "true")),
        ("tags", ("r1", LAYOUT, NOW)),
        ("tags", ("r1", "mlflow.pipeline.report.b", "true")),
        ("tags", ("r1", "mlflow.pipeline.logged_model", "m-1")),
        ("tags", ("r2", "pipeline.key", "c")),
        ("tags", ("r2", "mlflow.pipeline.process", "host 1 2")),
        ("tags", ("r3", "pipeline.key", "d")),
        ("tags", ("r3", "pipeline.complete", "true")),
        ("logged_models", ("m-1", f"{old}/{dataset}/models/m-1/artifacts", "active")),
        ("model_versions", ("ctr-toy", 1, "models:/m-1", f"{old}/{dataset}/models/m-1/artifacts")),
        ("registered_model_aliases", ("ctr-toy", "champion", 1)),
        ("experiment_tags", (1, "mlflow.pipeline.report", "b")),
    ]
    with closing(sqlite3.connect(path)) as connection, connection:
        for table, names in columns.items():
            connection.execute(f"CREATE TABLE {table} ({names})")
        for table, values in rows:
            connection.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(values))})", values)


def paths(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return [
            value
            for table, column in database.PATHS
            for (value,) in connection.execute(f"SELECT {column} FROM {table}")
        ]


def test_progress_is_what_is_published(tmp_path: Path) -> None:
    path, artifacts = tmp_path / "mlflow.db", tmp_path / "mlruns"
    assert database.read_progress(path, artifacts) == database.Progress()
    assert not path.exists()
    write(path, artifacts)
    lacking = database.Progress(reported=frozenset({("a", "b")}), shown=frozenset({"b"}), running=1)
    assert database.read_progress(path, artifacts) == lacking  # the files of the artifacts are not there
    for folder, name in (("r1/artifacts", "run.json"), ("models/m-1/artifacts", "MLmodel")):
        file = artifacts / "toy" / folder / name
        file.parent.mkdir(parents=True)
        file.touch()
    whole = replace(lacking, whole={"a": frozenset()}, champions=frozenset({"ctr-toy"}))
    assert database.read_progress(path, artifacts) == whole
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM experiment_tags WHERE key = ?", [LAYOUT])
    assert database.read_progress(path, artifacts).outdated


def test_all_five_columns_follow_the_checkout(tmp_path: Path) -> None:
    path, old, new = tmp_path / "mlflow.db", tmp_path / "old/mlruns", tmp_path / "new place/mlruns"
    write(path, old)
    before = paths(path)
    assert database.read_progress(path, new).moved
    assert database.relocate(path, new)
    assert paths(path) == [text.replace(old.as_uri(), new.as_uri()) for text in before]
    assert sum(new.as_uri() in text for text in paths(path)) == 6
    assert not database.read_progress(path, new).moved
    assert not database.relocate(path, new)


def test_a_locked_database_is_no_damaged_one(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    path.mkdir()  # sqlite cannot open it
    with pytest.raises(database.Unavailable) as caught:
        database.check(path)
    assert "Move it away" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"text, no database", b"SQLite format 3\0" + b"\xff" * 200])
def test_what_is_no_database_of_mlflow_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    path.write_bytes(content)
    with pytest.raises(PipelineError, match=r"mlflow\.db is no readable MLflow database"):
        database.check(path)
    assert path.read_bytes() == content


def test_a_new_database_does_not_take_in_the_log_of_an_old_one(tmp_path: Path) -> None:
    path, new = tmp_path / "mlflow.db", tmp_path / "new.db"
    path.with_name("mlflow.db-wal").write_bytes(b"left behind")
    database.create(new)
    write(new, tmp_path)
    database.install(new, path)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["mlflow.db"]
    database.check(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
