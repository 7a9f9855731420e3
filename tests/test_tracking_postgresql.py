"""Several checkouts on one PostgreSQL database: no traceback, nothing twice, everything to be loaded."""

import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import fixtures_mlflow
import mlflow
import postgresql
import pytest
from mlflow import MlflowClient

from tests import project

pytestmark = [pytest.mark.slow, pytest.mark.thorough, pytest.mark.filterwarnings("ignore")]
CHECKOUTS = 4


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An empty database of a PostgreSQL of our own."""
    with postgresql.running() as server:
        yield server.address("postgresql+psycopg2")
    mlflow.set_tracking_uri("")


def sync(root: Path, uri: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline", "sync"],
        cwd=root,
        env=project.environment(MLFLOW_TRACKING_URI=uri),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_checkouts_publish_the_same_at_once_into_an_empty_database(uri: str, tmp_path: Path) -> None:
    first = tmp_path / "checkout0"
    fixtures_mlflow.write_project(first, models=("lr",))
    (first / "params.yaml").write_text("")
    for number in range(1, CHECKOUTS):
        shutil.copytree(first, tmp_path / f"checkout{number}")
    roots = sorted(tmp_path.iterdir())
    processes = [sync(root, uri) for root in roots]
    said = [process.communicate(timeout=300) for process in processes]
    assert not [err for _, err in said if "error" in err or "Traceback" in err or "warning" in err]
    assert [process.returncode for process in processes] == [0] * CHECKOUTS

    client = MlflowClient(uri)
    (experiment,) = [each for each in client.search_experiments() if each.name != "Default"]
    runs = client.search_runs([experiment.experiment_id])
    keys = Counter(run.data.tags["pipeline.key"] for run in runs)
    assert set(keys.values()) == {1}
    names = Counter(run.info.run_name.removesuffix(" (pruned)") for run in runs)
    assert names == {"lr-default": 1, "lr-tuned": 1, "evaluate": 1, "seed-1": 2, "seed-2": 2} | {
        f"trial-00{number}": 1 for number in range(3)
    }
    assert {run.info.status for run in runs if not run.info.run_name.startswith("trial")} == {"FINISHED"}
    assert len(client.search_logged_models([experiment.experiment_id])) == 2

    for root in roots:  # whoever was last has left it to nobody to mend
        out, _ = sync(root, uri).communicate(timeout=300)
        assert "nothing to do" in out
    mlflow.set_tracking_uri(uri)
    mlflow.pyfunc.load_model("models:/ctr-toy@champion")
    for run in runs:
        if run.info.run_name == "evaluate":
            assert client.list_artifacts(run.info.run_id)


def test_a_wrong_password_or_database_is_one_message(uri: str, tmp_path: Path) -> None:
    fixtures_mlflow.write_project(tmp_path, models=("lr",))
    (tmp_path / "params.yaml").write_text("")
    wrong = uri.replace("postgres@", "me:secret@").replace("/postgres", "/nothing")
    process = sync(tmp_path, wrong)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 1
    assert err.startswith("error: MLflow is incomplete") and err.count("\n") == 2
    assert "secret" not in err


def test_a_missing_driver_is_named(uri: str, tmp_path: Path) -> None:
    fixtures_mlflow.write_project(tmp_path, models=("lr",))
    (tmp_path / "params.yaml").write_text("")
    process = sync(tmp_path, uri.replace("psycopg2", "asyncpg"))
    _, err = process.communicate(timeout=100)
    assert process.returncode == 1
    assert "needs the package asyncpg" in err and "Traceback" not in err
