"""MLflow shows what the files contain: once, again after a loss, a kill or a move, with models that load."""

import base64
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import fixtures_mlflow
import mlflow
import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pytest
import sqlalchemy
import torch
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking._tracking_service import utils as tracking_service

from pipeline import tracking
from pipeline.common.errors import PipelineError
from pipeline.common.files import read_json, write_json
from pipeline.data.batches import Split
from pipeline.evaluate import results
from pipeline.scoring import load
from pipeline.split import vocabulary
from pipeline.tracking import database, guards, record, registry
from pipeline.tracking.models import registered_package
from pipeline.tracking.progress import MODEL
from pipeline.tracking.store import Store

# MLflow and torch.export warn about themselves.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
PROJECT = Path(__file__).resolve().parents[1]
HEADER = {
    "key": "0123456789abcdef",
    "stage": "train",
    "variant": "default",
    "dataset": "toy",
    "model": "fm",
    "input": "fedcba9876543210",
    "params": {"model": {"embedding_size": 4}, "train": {"lr": 0.01}},
}
TRAIN_ROWS = Split(fixtures_mlflow.TOY, torch.zeros(600, 5, dtype=torch.int32), torch.zeros(600))
LIVE = f"""
import os, signal
import fixtures_mlflow, torch
from pipeline import tracking
from pipeline.data.batches import Split
rows = Split(fixtures_mlflow.TOY, torch.zeros(600, 5, dtype=torch.int32), torch.zeros(600))
with tracking.live({HEADER!r}, rows) as run, run.child("seed-1", "k/seed-1", {{}}) as log:
    log({{"step": 5, "epoch": 1.0, "valid_auc": 0.6}}, 5)
    print("training", flush=True)
    signal.pause()
"""


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "CTR_TRACKING"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    # where the artifacts of a run are, by the run's id alone: each test's copy of a project has the same runs
    tracking_service._artifact_repos_cache.clear()
    yield
    mlflow.set_tracking_uri("")


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which everything is in MLflow; tests work on copies."""
    root = tmp_path_factory.mktemp("projects") / "published"
    fixtures_mlflow.write_project(root, models=("lr", "deepfm"))
    tracking.sync(root)
    return root


@pytest.fixture
def project(published: Path, tmp_path: Path) -> Path:
    """A copy of the published project: a moved checkout, that is."""
    return Path(shutil.copytree(published, tmp_path / "project"))


@pytest.fixture
def fresh(published: Path, tmp_path: Path) -> Path:
    """The files of the published project without a database."""
    shutil.copytree(published / "data", tmp_path / "fresh" / "data")
    return tmp_path / "fresh"


def client(root: Path) -> MlflowClient:
    return tracking.configure(root).client


def all_runs(root: Path, dataset: str = "toy") -> list[Run]:
    experiment = client(root).get_experiment_by_name(dataset)
    return list(client(root).search_runs([experiment.experiment_id], order_by=["start_time"]))


def named(root: Path, name: str) -> Run:
    (run,) = [run for run in all_runs(root) if run.info.run_name == name]
    return run


def children(root: Path, run: Run) -> dict[str, Run]:
    mine = [r for r in all_runs(root) if r.data.tags.get("mlflow.parentRunId") == run.info.run_id]
    assert len({r.info.run_name for r in mine}) == len(mine)
    return {r.info.run_name: r for r in mine}


def content(root: Path) -> dict[str, Any]:
    """Everything in MLflow, without ids and times."""
    store, runs = client(root), all_runs(root)
    names = {run.info.run_id: run.info.run_name for run in runs}
    said = {}
    for run in runs:
        parent = names.get(run.data.tags.get("mlflow.parentRunId", ""), "")
        tags = {k: v for k, v in run.data.tags.items() if not k.startswith("mlflow.p")}
        note = tags.pop("mlflow.note.content", "")  # with a link to a run
        curves = {
            key: [(point.step, point.value) for point in store.get_metric_history(run.info.run_id, key)]
            for key in run.data.metrics
        }
        said[f"{parent}/{run.info.run_name}"] = {
            "status": run.info.status,
            "params": run.data.params,
            "metrics": run.data.metrics,
            "curves": {key: sorted(points) for key, points in curves.items()},
            "tags": {k: v for k, v in tags.items() if k != "mlflow.parentRunId"},
            "note": re.sub(r"/runs/\w{32}/", "/runs/.../", note),
            "artifacts": sorted(file.path for file in store.list_artifacts(run.info.run_id)),
            "inputs": [(each.dataset.name, each.dataset.digest) for each in run.inputs.dataset_inputs],
            "models": len(run.outputs.model_outputs) if run.outputs else 0,
        }
    champion = store.get_model_version_by_alias("ctr-toy", "champion")
    # a champion that came back has another reason to lead; tests/test_challenge.py is about reasons
    tags = {k: v for k, v in champion.tags.items() if k not in ("checkout", "reason")}
    return {"runs": said, "champion": (champion.version, tags)}


def python(code: str, root: Path) -> "subprocess.Popen[str]":
    env = {**os.environ, "PYTHONPATH": f"{PROJECT}:{PROJECT / 'tests'}"}
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=root, env=env, text=True, stdout=subprocess.PIPE
    )


def test_everything_is_there(published: Path) -> None:
    run = read_json(published / "data/runs/toy/deepfm/tuned/run.json")
    parent = named(published, "deepfm-tuned")
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["pipeline.key"] == run["key"]
    assert parent.data.tags["pipeline.complete"] == "true"
    assert parent.data.params["train.lr"] == "0.02"
    assert parent.data.params["tune.trials"] == "3"
    best = [seed["best"]["valid_auc"] for seed in run["seeds"]]
    assert parent.data.metrics["best/valid_auc"] == pytest.approx(np.mean(best), abs=1e-6)
    assert parent.data.metrics["best/valid_auc_std"] == pytest.approx(np.std(best, ddof=1), abs=1e-6)
    assert [(d.dataset.name, d.dataset.digest) for d in parent.inputs.dataset_inputs] == [
        ("toy", run["input"])
    ]
    # whether the data are the publisher's is shown with every run
    assert {key: value for key, value in parent.data.tags.items() if key.startswith("data.")} == {
        "data.source": "toys",
        "data.matches_publisher": "no",
        "data.differs": "log.csv",
        "data.missing": "items.csv",
    }
    parts = children(published, parent)
    assert sorted(parts) == ["seed-1", "seed-2", "trial-000", "trial-001", "trial-002 (pruned)"]
    pruned = parts["trial-002 (pruned)"]
    assert (pruned.info.status, pruned.data.tags["pipeline.state"]) == ("FINISHED", "PRUNED")
    assert parts["trial-001"].data.params["train.lr"] == "0.02"
    history = client(published).get_metric_history(parts["seed-2"].info.run_id, "valid/auc")
    curve = run["seeds"][1]["curve"]
    expected = [(row["step"], record.rounded(row["valid_auc"])) for row in curve]
    assert [(p.step, p.value) for p in history] == expected
    means = client(published).get_metric_history(parent.info.run_id, "valid/auc")
    curves = [seed["curve"] for seed in run["seeds"]]
    assert [(p.step, p.value) for p in means] == [
        (rows[0]["step"], pytest.approx(np.mean([row["valid_auc"] for row in rows]), abs=1e-6))
        for rows in zip(*curves, strict=True)
    ]
    assert (parent.data.params["model"], parent.data.params["variant"]) == ("deepfm", "tuned")


def test_report_reaches_runs_experiment_and_registry(published: Path) -> None:
    report = read_json(published / "data/reports/toy/report.json")
    store = client(published)
    for result in report["results"]:
        run = named(published, f"{result['model']}-{result['variant']}")
        assert run.data.metrics["test/auc"] == record.rounded(result["mean"]["auc"])
        assert run.data.metrics["test/auc_std"] == record.rounded(result["std"]["auc"])
        assert run.data.metrics["test/auc_standard_error"] == 0.01
        assert run.data.metrics["best/valid_normalised_entropy"] == result["valid_normalised_entropy"]
        assert run.data.tags.get("pipeline.warning") == result["warning"]
        seeds = children(published, run)
        for seed in result["seeds"]:
            assert seeds[f"seed-{seed['seed']}"].data.metrics["test/logloss"] == record.rounded(
                seed["logloss"]
            )
    best = report["champion"]
    version = store.get_model_version_by_alias("ctr-toy", "champion")
    assert version.tags["key"] == best["key"]
    assert version.tags["seed"] == str(best["seed"])
    assert "| deepfm&emsp; | tuned&emsp; |" in store.get_experiment_by_name("toy").tags["mlflow.note.content"]
    files = [file.path for file in store.list_artifacts(named(published, "evaluate").info.run_id)]
    assert sorted(files) == ["SHA256SUMS", "leaderboard.md", "report.json", "roc.png"]


def test_publishing_twice_is_publishing_once(project: Path) -> None:
    before = content(project)
    assert not tracking.publish(project / "data/runs/toy/lr/default")
    assert not tracking.publish_report(project / "data/reports/toy")
    assert "nothing to do" in tracking.sync(project)
    assert content(project) == before


def test_a_publication_that_was_cut_off_goes_on_without_repeating(project: Path) -> None:
    before = content(project)
    store, run = client(project), named(project, "lr-tuned")
    for tag in ("pipeline.complete", "pipeline.state", "mlflow.pipeline.logged_model"):
        store.delete_tag(run.info.run_id, tag)
    store.set_terminated(run.info.run_id, "KILLED")
    store.delete_run(children(project, run)["trial-001"].info.run_id)
    assert tracking.publish(project / "data/runs/toy/lr/tuned")
    assert tracking.publish_report(project / "data/reports/toy")  # whose marks the run has lost
    after = content(project)
    after["runs"]["/lr-tuned"]["models"] -= 1
    assert after["runs"] == before["runs"]
    assert after["champion"][1] == before["champion"][1]  # another version, as its model is new


def test_models_can_wait_for_the_report(published: Path, fresh: Path) -> None:
    for path in sorted((fresh / "data/runs").glob("*/*/*/run.json")):
        assert tracking.publish(path.parent, model=False)
    assert client(fresh).search_logged_models(["1"]) == []
    assert tracking.publish_report(fresh / "data/reports/toy")
    assert content(fresh) == content(published)
    assert "nothing to do" in tracking.sync(fresh)


@pytest.mark.thorough
def test_a_lost_database_is_rebuilt(published: Path, fresh: Path) -> None:
    line = tracking.sync(fresh)
    assert "4 runs published, 1 report published" in line
    assert content(fresh) == content(published)


OLD_NAMES = {"train/learning_rate": "lr", "model/weights": "weights", "train/capped": "capped"}


def as_before(database: Path, *, extra: str) -> None:
    """Turn a store into one of the version before metrics were grouped, with a run whose files are gone."""
    with closing(sqlite3.connect(database)) as old, old:
        old.create_function("flat", 1, lambda name: OLD_NAMES.get(name, name.replace("/", "_")))
        for table, name in (
            ("metrics", "key"), ("latest_metrics", "key"), ("logged_model_metrics", "metric_name")
        ):  # fmt: skip
            old.execute(f"UPDATE {table} SET {name} = flat({name})")
        old.execute(
            "DELETE FROM experiment_tags WHERE key IN ('mlflow.pipeline.layout', 'mlflow.note.content')"
        )
        old.execute("DELETE FROM experiment_tags WHERE key LIKE 'mlflow.sharedViewState.%'")
        old.execute("DELETE FROM tags WHERE key = 'mlflow.pipeline.layout'")
        old.execute("UPDATE tags SET value = 'true' WHERE value = 'trial'")
        old.execute("UPDATE runs SET status = 'KILLED', name = 'trial-002' WHERE name LIKE 'trial-002%'")
        for run in ("lr", "deepfm"):
            for variant, stage in (("default", "train"), ("tuned", "tune")):
                old.execute("UPDATE runs SET name = ? WHERE name = ?", [f"{stage}-{run}", f"{run}-{variant}"])
        old.execute(
            "INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan) "
            "VALUES ('search_best_auc', 0.71234567, 1, ?, 3, 0)", [extra]
        )  # fmt: skip


def metric_names(database: Path) -> set[str]:
    query = (
        "SELECT key FROM metrics JOIN runs USING (run_uuid) WHERE lifecycle_stage = 'active' "
        "UNION SELECT metric_name FROM logged_model_metrics JOIN logged_models USING (model_id) "
        "WHERE lifecycle_stage = 'active'"
    )
    with closing(sqlite3.connect(database)) as store:
        return {name for (name,) in store.execute(query)}


def gone(root: Path) -> str:
    """A run of an experiment that DVC has replaced since: MLflow alone knows it."""
    store = client(root)
    experiment = store.get_experiment_by_name("toy").experiment_id
    tags = {"pipeline.key": "feedfeedfeedfeed", "pipeline.complete": "true"}
    return str(store.create_run(experiment, tags=tags, run_name="of yesterday").info.run_id)


def test_a_store_of_the_version_before_is_brought_up_to_date(project: Path) -> None:
    """Its runs keep their ids and times; no run has metrics by the old names."""
    tracking.sync(project)
    extra = gone(project)
    before, ids = content(project), {run.info.run_id: run.info.end_time for run in all_runs(project)}
    before["runs"].pop("/of yesterday")
    as_before(project / "mlflow.db", extra=extra)
    assert "best_valid_auc" in metric_names(project / "mlflow.db")
    assert "metrics renamed, 4 runs published, 1 report published" in tracking.sync(project)
    assert [name for name in metric_names(project / "mlflow.db") if "/" not in name] == []
    after = content(project)
    assert after["runs"].pop("/of yesterday")["curves"] == {}  # the latest value is another table
    assert after == before
    assert {run.info.run_id: run.info.end_time for run in all_runs(project)} == ids
    (point,) = client(project).get_metric_history(extra, "search/best_auc")
    assert (point.step, point.value) == (3, 0.712346)
    assert "nothing to do" in tracking.sync(project)


@pytest.mark.thorough
def test_runs_of_the_version_before_on_a_server_are_made_again(
    published: Path, fresh: Path, server: str
) -> None:
    tracking.sync(fresh)
    path = Path(server.removeprefix("sqlite:///"))
    as_before(path, extra=named(fresh, "lr-tuned").info.run_id)
    assert "4 runs published, 1 report published" in tracking.sync(fresh)
    assert [name for name in metric_names(path) if "/" not in name] == []
    assert content(fresh)["runs"] == content(published)["runs"]
    assert "nothing to do" in tracking.sync(fresh)


def test_sync_is_a_command_and_needs_no_mlflow_when_there_is_nothing_to_do(project: Path) -> None:
    tracking.sync(project)
    (project / "params.yaml").touch()  # what tells the folder of a project
    code = (
        "import sys; sys.argv = ['pipeline', 'sync']; import pipeline.__main__ as m; m.main();"
        "assert not {'mlflow', 'torch', 'sqlalchemy'} & set(sys.modules), 'slow'"
    )
    process = python(code, project)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert output.count("\n") == 1
    assert "nothing to do" in output


@pytest.mark.thorough
def test_two_processes_create_the_database_at_once(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from pipeline import tracking; tracking.configure(Path()).experiment('{}')"
    )
    processes = [python(code.format(dataset), tmp_path) for dataset in ("one", "two")]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    names = {experiment.name for experiment in client(tmp_path).search_experiments()}
    assert names == {"Default", "one", "two"}


@pytest.mark.thorough
@pytest.mark.kill
def test_a_killed_run_is_closed_and_a_living_one_left_alone(tmp_path: Path) -> None:
    process = python(LIVE, tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "training\n"
    run = named(tmp_path, "fm-default")
    assert run.info.status == "RUNNING"
    assert children(tmp_path, run)["seed-1"].data.metrics == {"valid/auc": 0.6}
    assert "interrupted" not in tracking.sync(tmp_path)
    assert {each.info.status for each in all_runs(tmp_path)} == {"RUNNING"}

    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert "2 interrupted runs closed" in tracking.sync(tmp_path)
    assert {each.info.status for each in all_runs(tmp_path)} == {"KILLED"}
    assert {each.data.tags["pipeline.state"] for each in all_runs(tmp_path)} == {"KILLED"}


@pytest.mark.thorough
@pytest.mark.kill
def test_starting_again_closes_the_killed_run_of_the_same_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = python(LIVE, tmp_path)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    monkeypatch.chdir(tmp_path)
    with tracking.live(HEADER, TRAIN_ROWS):
        status = [run.info.status for run in all_runs(tmp_path) if run.info.run_name == "fm-default"]
        assert status == ["KILLED", "RUNNING"]


def test_a_live_run_is_completed_and_nothing_is_logged_twice(
    published: Path, fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class TrialPruned(Exception):
        """As optuna's."""

    folder = fresh / "data/runs/toy/lr/tuned"
    run = read_json(folder / "run.json")
    header = {key: value for key, value in run.items() if key not in ("seeds", "search", "weights")}
    monkeypatch.chdir(fresh)
    with tracking.live(header, TRAIN_ROWS) as live:
        for number in (1, 2):  # trial 0 was finished before this process began
            trial = run["search"]["trials"][number]
            try:
                with live.child(
                    f"trial-{number:03d}", f"{run['key']}/trial-{number:03d}", trial["params"]
                ) as log:
                    for row in trial["curve"]:
                        log(row, row["step"])
                    if trial["state"] == "PRUNED":
                        raise TrialPruned
            except TrialPruned:
                pass
            live.log({"search_best_auc": record.progress(run["search"])[number]}, number)
        with live.child("seed-1", f"{run['key']}/seed-1", run["params"]) as log:
            for row in run["seeds"][0]["curve"][:-1]:  # the last point never arrived
                log(row, row["step"])
    assert tracking.publish(folder)
    expected = {name: said for name, said in content(published)["runs"].items() if "lr-tuned" in name}
    store = client(fresh)
    of_the_report = {record.metric(name) for name in record.OF_THE_WHOLE}
    for name, said in expected.items():
        parent, _, own = name.rpartition("/")
        shown = children(fresh, named(fresh, parent))[own] if parent else named(fresh, own)
        assert shown.info.status == said["status"]
        assert shown.data.params == said["params"]
        assert shown.data.tags["pipeline.state"] == said["tags"]["pipeline.state"]
        for key, points in said["curves"].items():
            if not key.startswith("test/") and key not in of_the_report:
                history = store.get_metric_history(shown.info.run_id, key)
                assert sorted((point.step, point.value) for point in history) == points, (name, key)


def test_a_forced_repetition_of_a_complete_run_shows_nothing_new(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = read_json(project / "data/runs/toy/lr/default/run.json")
    monkeypatch.chdir(project)
    before = content(project)
    with tracking.live(run, TRAIN_ROWS) as live, live.child("seed-1", "x", {}) as log:
        log({"valid_auc": 0.5}, 1)
    assert content(project) == before


@pytest.mark.parametrize(
    ("error", "status", "state"), [(ValueError, "FAILED", "FAILED"), (KeyboardInterrupt, "KILLED", "KILLED")]
)
def test_an_exception_marks_the_run(
    error: type[BaseException], status: str, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error), tracking.live(HEADER, TRAIN_ROWS) as live, live.child("seed-1", "x", {}):
        raise error
    for run in all_runs(tmp_path):
        assert (run.info.status, run.data.tags["pipeline.state"]) == (status, state)


def test_a_moved_checkout_keeps_its_artifacts(published: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(published, tmp_path / "a name with spaces, ünd umlauts, %20 or not?"))
    assert "moved" in tracking.sync(moved)
    assert "nothing to do" in tracking.sync(moved)
    store = client(moved)
    run = named(moved, "evaluate")
    assert run.info.artifact_uri.startswith((moved / "mlruns").as_uri())
    image = store.download_artifacts(run.info.run_id, "roc.png", str(tmp_path))
    assert Path(image).read_bytes() == (moved / "data/reports/toy/roc.png").read_bytes()
    package = registered_package(moved, "ctr-toy@champion")  # MLflow's load_model takes %20 for a space
    assert package.is_relative_to(moved / "mlruns")
    assert load(package).columns


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("model", ["lr", "deepfm"])
def test_the_logged_model_predicts_what_ours_does(model: str, rows: int, project: Path) -> None:
    folder = project / "data/runs/toy" / model / "tuned"
    run = read_json(folder / "run.json")
    shown = named(project, f"{model}-tuned")
    seed = int(shown.data.tags["pipeline.seed"])
    assert seed == max(run["seeds"], key=lambda each: each["best"]["valid_auc"])["seed"]
    raw = pd.DataFrame(
        {
            "user": ["user-3", "nobody", "user-29"],
            "item": ["item-1", None, "item-7"],
            "tags": ["tags-1|tags-5", "", "tags-2"],
        }
    ).iloc[:rows]
    ids = torch.from_numpy(vocabulary.apply(fixtures_mlflow.VOCABULARY, pa.Table.from_pandas(raw)))
    expected = fixtures_mlflow.probabilities(
        folder, run, seed, Split(fixtures_mlflow.TOY, ids, torch.zeros(rows))
    )
    client(project)
    loaded = mlflow.pyfunc.load_model(f"models:/{shown.outputs.model_outputs[0].model_id}")
    np.testing.assert_allclose(loaded.predict(raw)["raw_probability"], expected.numpy(), rtol=1e-6)


def test_a_registered_model_is_a_package_too(project: Path) -> None:
    found = load(registered_package(project, "ctr-toy@champion"))
    best = read_json(project / "data/reports/toy/report.json")["champion"]
    assert found.package.trained_on["key"] == best["key"]
    with pytest.raises(PipelineError, match=r"--registered ctr-toy@nobody: .*nobody"):
        registered_package(project, "ctr-toy@nobody")


def test_the_python_on_the_page_of_a_registered_model_runs(project: Path) -> None:
    words = client(project).get_registered_model("ctr-toy").description
    (code,) = re.findall(r"```python\n(.*?)```", words, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["scores"]["probability"].between(0, 1).all()
    assert len(names["scores"]) == 2


def test_no_artifact_is_a_pickle(published: Path) -> None:
    names = {path.name for path in (published / "mlruns").rglob("*") if path.is_file()}
    assert "weights.safetensors" in names
    assert not [name for name in names if name.endswith((".pkl", ".pickle", ".pth", ".pt", ".joblib"))]


def test_a_new_champion_is_a_new_version_and_the_old_one_comes_back(project: Path) -> None:
    folder = project / "data/reports/toy"
    report = read_json(folder / "report.json")
    first = report["champion"]
    other = next(result for result in report["results"] if result["key"] != first["key"])
    changed = {**report, "champion": {**first, **{k: other[k] for k in ("model", "variant", "key")}}}
    write_json(folder / "report.json", changed)
    assert tracking.publish_report(folder)
    version = client(project).get_model_version_by_alias("ctr-toy", "champion")
    assert (str(version.version), version.tags["key"]) == ("2", other["key"])
    write_json(folder / "report.json", report)
    assert tracking.publish_report(folder)
    version = client(project).get_model_version_by_alias("ctr-toy", "champion")
    assert (str(version.version), version.tags["key"]) == ("1", first["key"])
    assert len(client(project).search_model_versions("name = 'ctr-toy'")) == 2


def test_an_experiment_in_a_copy_does_not_move_the_champion(project: Path) -> None:
    """`dvc exp run --temp` works in .dvc/tmp/exps; its runs are shown, its report has its own run."""
    copy = project / ".dvc/tmp/exps/tmp123"
    shutil.copytree(project / "data", copy / "data")
    folder = copy / "data/reports/toy"
    report = read_json(folder / "report.json")
    first = report["champion"]
    other = next(result for result in report["results"] if result["key"] != first["key"])
    changed = {**report, "champion": {**first, **{k: other[k] for k in ("model", "variant", "key")}}}
    write_json(folder / "report.json", changed)
    experiment = client(project).get_experiment_by_name("toy")
    before = len(client(project).search_runs([experiment.experiment_id]))
    assert tracking.publish_report(folder)
    assert len(client(project).search_runs([experiment.experiment_id])) == before + 1
    version = client(project).get_model_version_by_alias("ctr-toy", "champion")
    assert version.tags["key"] == first["key"]
    assert client(project).get_experiment_by_name("toy").tags == experiment.tags


def test_a_run_deleted_by_hand_comes_back_with_its_test_metrics(project: Path) -> None:
    before = content(project)
    run = named(project, "lr-default")
    for each in (run, *children(project, run).values()):
        client(project).delete_run(each.info.run_id)
    assert "1 run published, 1 report published" in tracking.sync(project)
    assert content(project)["runs"] == before["runs"]


def seed_run(root: Path) -> str:
    return children(root, named(root, "lr-tuned"))["seed-1"].info.run_id


def delete_seed(root: Path) -> None:
    client(root).delete_run(seed_run(root))


def rename_seed(root: Path) -> None:
    client(root).update_run(seed_run(root), name="my favourite")


def delete_parent(root: Path) -> None:
    client(root).delete_run(named(root, "lr-tuned").info.run_id)


def delete_evaluation(root: Path) -> None:
    client(root).delete_run(named(root, "evaluate").info.run_id)


def delete_model(root: Path) -> None:
    version = client(root).get_model_version_by_alias("ctr-toy", "champion")
    client(root).delete_logged_model(version.source.removeprefix("models:/"))


def delete_alias(root: Path) -> None:
    client(root).delete_registered_model_alias("ctr-toy", "champion")


def delete_experiment(root: Path) -> None:
    client(root).delete_experiment(client(root).get_experiment_by_name("toy").experiment_id)


def delete_files(root: Path) -> None:
    shutil.rmtree(root / "mlruns")


@pytest.mark.parametrize(
    ("click", "twice"),
    [
        (delete_seed, False),
        (rename_seed, True),
        (delete_parent, False),
        (delete_evaluation, False),
        (delete_model, False),
        (delete_alias, False),
        (delete_experiment, False),
        (delete_files, False),
    ],
)
def test_what_was_tidied_away_on_the_page_comes_back(
    click: Callable[[Path], None], twice: bool, project: Path
) -> None:
    tracking.sync(project)
    before, report = content(project), project / "data/reports/toy/report.json"
    click(project)
    tracking_service._artifact_repos_cache.clear()  # by run, and the runs of the copies are the same
    if twice:  # nothing is lost, so only a new report looks at the run again
        write_json(report, {**read_json(report), "rows": 201})
    said = tracking.sync(project)
    assert "nothing to do" not in said
    after = content(project)
    assert "nothing to do" in tracking.sync(project)
    if twice:
        assert "/evaluate" in after["runs"] and "lr-tuned/my favourite" in after["runs"]
        return
    for each in (before, after):
        for run in each["runs"].values():
            run["models"] = min(run["models"], 1)  # a deleted model stays among the outputs of its run
        each["champion"] = each["champion"][1]
    assert after == before
    mlflow.pyfunc.load_model("models:/ctr-toy@champion")


def test_a_renamed_experiment_is_found_and_keeps_its_name(project: Path) -> None:
    tracking.sync(project)
    store = client(project)
    store.rename_experiment(store.get_experiment_by_name("toy").experiment_id, "my toy")
    report = project / "data/reports/toy/report.json"
    write_json(report, {**read_json(report), "rows": 201})
    assert "1 report published" in tracking.sync(project)
    assert {each.name for each in store.search_experiments()} == {"Default", "my toy"}


def test_attempts_vanish_once_one_is_complete(project: Path) -> None:
    """As kills leave them: before the end, and between the end of a stage and the note of it in dvc.lock."""
    tracking.sync(project)
    before, store, run = content(project), client(project), named(project, "lr-default")
    tags = {k: v for k, v in run.data.tags.items() if k.startswith("pipeline.") and k != "pipeline.complete"}
    for status, state in (("FINISHED", "COMPLETE"), ("KILLED", "KILLED"), ("RUNNING", "")):
        again = store.create_run(run.info.experiment_id, tags={**tags, "pipeline.state": state}, run_name="x")
        own = {"mlflow.parentRunId": again.info.run_id, "pipeline.key": f"{tags['pipeline.key']}/seed-1"}
        seed = store.create_run(run.info.experiment_id, tags=own, run_name="seed-1")
        for each in (again, seed) if status != "RUNNING" else ():
            store.set_terminated(each.info.run_id, status)
    assert len(all_runs(project)) == len(before["runs"]) + 6
    assert "1 run published" in tracking.sync(project)
    assert content(project) == before
    assert "nothing to do" in tracking.sync(project)


def test_a_stage_killed_at_its_very_end_shows_nothing_twice(
    fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fresh / "data/runs/toy/lr/default"
    assert tracking.publish(folder, model=False)  # here it was killed: DVC runs the stage again
    monkeypatch.chdir(fresh)
    with tracking.live(read_json(folder / "run.json"), TRAIN_ROWS) as live, live.child("seed-1", "x", {}):
        pass
    assert not tracking.publish(folder, model=False)
    assert sorted(run.info.run_name for run in all_runs(fresh)) == ["lr-default", "seed-1", "seed-2"]


def test_the_durations_of_seeds_are_their_own(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fresh / "data/runs/toy/lr/default"
    run = read_json(folder / "run.json")
    monkeypatch.chdir(fresh)
    header = {key: value for key, value in run.items() if key not in ("seeds", "weights")}
    with tracking.live(header, TRAIN_ROWS) as live:
        for seed in run["seeds"]:
            with live.child(f"seed-{seed['seed']}", f"{run['key']}/seed-{seed['seed']}", {}) as log:
                for row in seed["curve"]:
                    log(row, row["step"])
    ends = {each.info.run_id: each.info.end_time for each in all_runs(fresh)}
    assert tracking.publish(folder)
    assert {each.info.run_id: each.info.end_time for each in all_runs(fresh)} == ends


def test_the_view_has_the_runs_of_the_report_alone(project: Path) -> None:
    tracking.sync(project)
    store, report = client(project), read_json(project / "data/reports/toy/report.json")
    left = [result for result in report["results"] if result["model"] == "lr"]
    write_json(project / "data/reports/toy/report.json", {**report, "results": left})
    assert "1 report published" in tracking.sync(project)
    experiment = store.get_experiment_by_name("toy")
    view = json.loads(experiment.tags["mlflow.sharedViewState.leaderboard"])
    state = json.loads(zlib.decompress(base64.b64decode(view["state"].partition(";")[2])))
    found = store.search_runs([experiment.experiment_id], state["searchFilter"])
    assert sorted(run.data.tags["pipeline.key"] for run in found) == sorted(each["key"] for each in left)
    # the trials, too, and the settings that differ between them
    view = json.loads(experiment.tags["mlflow.sharedViewState.trials"])
    state = json.loads(zlib.decompress(base64.b64decode(view["state"].partition(";")[2])))
    found = store.search_runs([experiment.experiment_id], state["searchFilter"])
    key = next(each["key"] for each in left if each["variant"] == "tuned")
    assert {run.data.tags["pipeline.key"].partition("/")[0] for run in found} == {key}
    assert state["compareRunCharts"][0]["selectedParams"] == ["train.lr"]


def test_a_trained_run_tells_where_it_comes_from_and_how_fast_it_was(
    fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two epochs of 600 rows, a second each by this clock, after one that was read from a checkpoint."""
    run = read_json(fresh / "data/runs/toy/lr/default/run.json")
    header = {key: value for key, value in run.items() if key not in ("seeds", "weights")}
    (fresh / "dvc.lock").write_text("schema: '2.0'\n")
    for command in (
        ["init", "-q"],
        ["add", "dvc.lock"],
        ["-c", "user.name=me", "-c", "user.email=m@e", "commit", "-qm", "first"],
    ):
        subprocess.run(["git", *command], cwd=fresh, check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=fresh, text=True, capture_output=True, check=True)
    monkeypatch.chdir(fresh)
    now = 100.0
    monkeypatch.setattr("pipeline.tracking.provenance.time.monotonic", lambda: now)
    with tracking.live(header, TRAIN_ROWS) as live, live.child("seed-1", f"{run['key']}/seed-1", {}) as log:
        for epoch in (1, 2, 3, 4):
            log({"step": 10 * epoch, "epoch": float(epoch), "valid_auc": 0.6}, 10 * epoch)
            now += 1.0 if epoch > 1 else 0.0
    shown = named(fresh, "lr-default")
    for each in (shown, children(fresh, shown)["seed-1"]):
        speed = {name: value for name, value in each.data.metrics.items() if name.startswith("speed/")}
        assert speed == {"speed/rows_per_second": 600.0, "speed/seconds": 2.0}
    tags = {k.partition(".")[2]: v for k, v in shown.data.tags.items() if k.startswith("provenance.")}
    assert set(tags) == {"commit", "device", "dvc_lock", "threads", "versions"}
    assert (tags["commit"], tags["device"]) == (head.stdout.strip(), "cpu")
    assert tags["dvc_lock"] == hashlib.sha256((fresh / "dvc.lock").read_bytes()).hexdigest()[:16]
    assert f"torch {torch.__version__}" in tags["versions"]


def test_the_tags_of_the_champion_are_its_own(project: Path) -> None:
    report = read_json(project / "data/reports/toy/report.json")
    version = client(project).get_model_version_by_alias("ctr-toy", "champion")
    result = results.leader(report)
    own = next(each for each in result["seeds"] if str(each["seed"]) == version.tags["seed"])
    run = read_json(project / f"data/runs/toy/{version.tags['model']}/{version.tags['variant']}/run.json")
    valid = next(each["best"]["valid_auc"] for each in run["seeds"] if each["seed"] == own["seed"])
    figures = {
        "valid_auc": valid,
        "valid_auc_mean": result["valid_auc"],
        "test_auc": own["auc"],
        "test_auc_mean": result["mean"]["auc"],
    }
    assert {name: version.tags[name] for name in figures} == {k: f"{v:.6f}" for k, v in figures.items()}
    model = client(project).get_logged_model(version.source.removeprefix("models:/"))
    assert json.loads(model.tags["mlflow.modelVersions"]) == [{"name": "ctr-toy", "version": 1}]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database that several checkouts share."""
    uri = f"sqlite:///{tmp_path / 'team.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return uri


def clone(published: Path, root: Path, *, auc: float, data: str | None = None) -> str:
    """Write a checkout whose champion has this validation AUC; return its key."""
    shutil.copytree(published / "data", root / "data")
    report = read_json(root / "data/reports/toy/report.json")
    best = report["champion"]
    path = root / f"data/runs/toy/{best['model']}/{best['variant']}/run.json"
    key = f"{best['key'][:-4]}{auc:.4f}"[-16:]
    for each in (best, *(each for each in report["results"] if each["key"] == best["key"])):
        each |= {"key": key}
    results.leader(report)["valid_auc"] = auc
    write_json(root / "data/reports/toy/report.json", report)
    run = read_json(path)
    write_json(path, {**run, "key": key, "input": data or run["input"]})
    return key


@pytest.mark.thorough
def test_checkouts_on_one_server_do_not_fight_over_the_champion(
    published: Path, server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def leader() -> str:
        return str(MlflowClient(server).get_model_version_by_alias("ctr-toy", "champion").tags["key"])

    better = {name: (tmp_path / name, auc) for name, auc in (("a", 0.82), ("b", 0.81), ("c", 0.83))}
    keys = {name: clone(published, root, auc=auc) for name, (root, auc) in better.items()}
    keys["other data"] = clone(published, tmp_path / "other data", auc=0.99, data="another")
    for name, lead in (("a", "a"), ("b", "a"), ("c", "c"), ("a", "c"), ("other data", "c")):
        tracking.sync(tmp_path / name)
        assert leader() == keys[lead], name
    assert (
        f"`champion` stays at version 1, of {socket.gethostname()}:{tmp_path / 'a'}"
        in capsys.readouterr().out
    )
    experiment = MlflowClient(server).get_experiment_by_name("toy")
    assert "valid AUC 0.8300" in experiment.tags["mlflow.note.content"]
    for name in keys:
        assert "nothing to do" in tracking.sync(tmp_path / name)
    assert leader() == keys["c"]
    runs = MlflowClient(server).search_runs([experiment.experiment_id], "tags.`pipeline.complete` = 'true'")
    of_all = [run.data.tags["pipeline.key"] for run in runs]
    assert len(set(of_all)) == len(of_all) == 3 + 4 + 4  # shared runs, champions, reports
    # the owner of the alias may move it down again
    report = tmp_path / "c/data/reports/toy/report.json"
    values = read_json(report)
    results.leader(values)["valid_auc"] = 0.5
    write_json(report, values)
    tracking.sync(tmp_path / "c")
    tracking.sync(tmp_path / "a")
    assert leader() == keys["a"]


@pytest.mark.parametrize(
    ("there", "leads"),
    [
        ({"valid_logloss_mean": "0.50", "valid_auc_mean": "0.80"}, False),
        ({"valid_logloss_mean": "0.60", "valid_auc_mean": "0.90"}, True),
        ({"valid_auc_mean": "0.10"}, False),  # chosen by AUC: nothing says that this one is better
    ],
)
def test_checkouts_are_compared_by_the_metric_that_the_report_goes_by(
    there: dict[str, str], leads: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = SimpleNamespace(tags={"data": "rows", "checkout": "b", **there}, source="models:/b", version=1)
    monkeypatch.setattr(registry.Candidate, "_leader", lambda _: now)
    store = SimpleNamespace(local=False, has_model=lambda _: True)
    tags = {"data": "rows", "checkout": "a", "valid_logloss_mean": "0.55", "valid_auc_mean": "0.85"}
    report = {"champion": {"metric": "logloss"}}
    run = SimpleNamespace(data=SimpleNamespace(tags={MODEL: "a"}))
    verdict = registry.Candidate(cast(Any, store), report, cast(Any, run), tags).verdict()
    assert verdict.leads is leads
    assert "valid logloss" in verdict.reason
    assert "AUC" not in verdict.reason


def attempt(store: MlflowClient, run: Run, **tags: str) -> Run:
    """A second run of the same key, as another checkout begins it."""
    ours = {k: v for k, v in run.data.tags.items() if k in ("pipeline.key", "pipeline.stage")}
    return store.create_run(run.info.experiment_id, tags={**ours, **tags}, run_name=run.info.run_name)


@pytest.mark.thorough
def test_a_model_that_another_checkout_writes_is_left_to_it(fresh: Path, server: str) -> None:
    tracking.sync(fresh)
    store, run = client(fresh), named(fresh, "lr-default")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        started = psutil.Process(other.pid).create_time()
        owner = f"{socket.gethostname()} {other.pid} {started:.1f}"
        again = attempt(store, run, **{"mlflow.pipeline.process": owner})
        model = store.create_logged_model(
            run.info.experiment_id,
            source_run_id=again.info.run_id,
            tags={"pipeline.key": run.data.tags["pipeline.key"]},
        )
        tracking.sync(fresh)
        assert store.get_logged_model(model.model_id)
        assert store.get_run(again.info.run_id).info.lifecycle_stage == "active"
        other.communicate(b"\n")
    tracking.sync(fresh)  # now nobody writes it any more
    with pytest.raises(MlflowException, match="not found"):
        store.get_logged_model(model.model_id)
    assert named(fresh, "lr-default").info.run_id == run.info.run_id


@pytest.mark.thorough
def test_a_model_that_another_checkout_deletes_is_logged_again(
    fresh: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, deleted = MlflowClient.log_model_artifacts, list[str]()

    def late(self: MlflowClient, model_id: str, local_dir: str) -> None:
        if not deleted:
            deleted.append(model_id)
            self.delete_logged_model(model_id)
        write(self, model_id, local_dir)

    monkeypatch.setattr(MlflowClient, "log_model_artifacts", late)
    tracking.sync(fresh)
    assert deleted
    assert "nothing to do" in tracking.sync(fresh)


@pytest.mark.thorough
def test_checkouts_that_delete_the_run_of_each_other_leave_one(
    fresh: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracking.sync(fresh)
    store, run = client(fresh), named(fresh, "lr-default")
    store.set_terminated(attempt(store, run).info.run_id)
    discard = Store._discard

    def both(self: Store, surplus: str) -> None:
        discard(self, surplus)
        discard(self, run.info.run_id)

    monkeypatch.setattr(Store, "_discard", both)
    tracking.sync(fresh)
    monkeypatch.undo()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    assert named(fresh, "lr-default").info.run_id != run.info.run_id
    assert "nothing to do" in tracking.sync(fresh)


def test_a_server_that_does_not_answer_costs_one_warning(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(guards, "_warned", set())
    monkeypatch.chdir(fresh)
    with tracking.live(HEADER, TRAIN_ROWS) as live, live.child("seed-1", "x", {}) as log:
        log({"valid_auc": 0.5}, 1)
    assert not tracking.publish(fresh / "data/runs/toy/lr/default")
    assert not tracking.publish_report(fresh / "data/reports/toy")
    warning = capsys.readouterr().err
    assert warning.startswith("warning: MLflow is incomplete") and warning.count("\n") == 1
    assert "python -m pipeline sync" in warning and "params.yaml" not in warning and "secret" not in warning
    with pytest.raises(PipelineError) as caught:
        tracking.sync(fresh)
    assert str(caught.value).count("\n") == 1


@pytest.mark.parametrize("when", ["before", "during"])
def test_a_locked_database_costs_one_warning_and_a_sync(
    when: str, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tracking.sync(project)
    monkeypatch.setattr(guards, "_warned", set())
    monkeypatch.chdir(project)
    seen = []
    with closing(sqlite3.connect(project / "mlflow.db", isolation_level=None)) as viewer:
        if when == "before":
            viewer.execute("BEGIN IMMEDIATE")
        with tracking.live(HEADER, TRAIN_ROWS) as live:
            if when == "during":
                viewer.execute("BEGIN IMMEDIATE")
            for seed in (1, 2):
                with live.child(f"seed-{seed}", f"{HEADER['key']}/seed-{seed}", {}) as log:
                    log({"valid_auc": 0.5}, 1)
                    seen.append(seed)
        viewer.execute("ROLLBACK")
    assert seen == [1, 2]
    warning = capsys.readouterr().err
    assert warning.startswith("warning: MLflow is incomplete") and warning.count("\n") == 1
    tracking.sync(project)


def test_a_disk_too_full_for_the_database_costs_one_warning_and_a_sync(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tracking.sync(project)
    before, seen = content(project)["runs"], []
    monkeypatch.setattr(guards, "_warned", set())
    monkeypatch.chdir(project)

    def full(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA max_page_count = 1")  # SQLite takes as many as there are: no more

    sqlalchemy.event.listen(sqlalchemy.engine.Engine, "connect", full)
    try:
        with tracking.live(HEADER, TRAIN_ROWS) as live:
            for seed in (1, 2):
                with live.child(f"seed-{seed}", f"{HEADER['key']}/seed-{seed}", {}) as log:
                    for step in range(3):
                        log({f"metric_{i}": 0.5 for i in range(900)}, step)
                    seen.append(seed)
    finally:
        sqlalchemy.event.remove(sqlalchemy.engine.Engine, "connect", full)
    assert seen == [1, 2]
    warning = capsys.readouterr().err
    assert warning.startswith("warning: MLflow is incomplete") and warning.count("\n") == 1
    assert "disk is full" in warning and "free some space" in warning
    tracking.sync(project)
    after = content(project)["runs"]
    assert {name: after[name] for name in before} == before


def test_a_sync_looks_at_the_database_a_fixed_number_of_times(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracking.sync(project)
    looks, look = [], database.read_progress
    monkeypatch.setattr(database, "read_progress", lambda *args: looks.append(args) or look(*args))
    assert "4 runs, 1 report; nothing to do" in tracking.sync(project)
    assert len(looks) == 1


def test_mlflow_tracking_uri_wins(fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"sqlite:///{tmp_path / 'team.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert tracking.publish(fresh / "data/runs/toy/lr/default")
    assert not (fresh / "mlflow.db").exists()
    (experiment,) = [e for e in MlflowClient(uri).search_experiments() if e.name == "toy"]
    (run,) = MlflowClient(uri).search_runs([experiment.experiment_id], "tags.`pipeline.complete` = 'true'")
    assert run.info.run_name == "lr-default"
    assert not tracking.publish(fresh / "data/runs/toy/lr/default")


def test_an_experiment_of_dvc_is_tracked_by_the_checkout(
    fresh: Path, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = fresh / ".dvc/tmp/exps/tmp123"
    shutil.copytree(published / "data", copy / "data")
    monkeypatch.chdir(copy)
    assert tracking.publish(Path("data/runs/toy/lr/default"))
    assert (fresh / "mlflow.db").exists()
    assert not (copy / "mlflow.db").exists()


def test_tracking_can_be_switched_off(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CTR_TRACKING", "off")
    monkeypatch.chdir(fresh)
    with tracking.live(HEADER, TRAIN_ROWS) as live, live.child("seed-1", "x", {}) as log:
        log({"valid_auc": 0.5}, 1)
    assert not tracking.publish(fresh / "data/runs/toy/lr/default")
    assert not tracking.publish_report(fresh / "data/reports/toy")
    assert "switched off" in tracking.sync(fresh)
    assert sorted(path.name for path in fresh.iterdir()) == ["data"]
    monkeypatch.setenv("CTR_TRACKING", "0")
    with pytest.raises(PipelineError, match="CTR_TRACKING='0'"):
        tracking.sync(fresh)


@pytest.mark.parametrize("damage", ["text", "half"])
def test_a_damaged_database_is_named_with_the_way_out(
    damage: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = project / "mlflow.db"
    if damage == "text":
        database.write_bytes(b"no database at all" * 100)
    else:
        database.unlink()
        with sqlite3.connect(database) as half:
            half.execute("CREATE TABLE experiments (experiment_id INTEGER)")
        half.close()
    monkeypatch.chdir(project)
    with pytest.raises(
        PipelineError, match=r"mlflow\.db is no .*Move it away and run `python -m pipeline sync`"
    ):
        tracking.sync(project)
    with pytest.raises(PipelineError, match="Move it away"), tracking.live(HEADER, TRAIN_ROWS):
        pass


def test_a_missing_file_is_named_and_the_rest_is_shown(
    fresh: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = fresh / "data/runs/toy/lr/default/seed-1.safetensors"
    for path in kept.parent.glob("*.safetensors"):
        path.rename(path.with_suffix(".away"))
    (fresh / "data/runs/toy/deepfm/default/run.json").write_text("{")
    with pytest.raises(PipelineError) as caught:
        tracking.sync(fresh)
    assert "seed-" in str(caught.value)
    assert "deepfm/default/run.json is damaged" in str(caught.value)
    assert "pipeline.complete" not in named(fresh, "lr-default").data.tags
    assert named(fresh, "lr-tuned").data.tags["pipeline.complete"] == "true"
    # the results of a stage are complete without MLflow, so it only warns
    assert not tracking.publish(kept.parent)
    assert "python -m pipeline sync" in capsys.readouterr().err
    for path in kept.parent.glob("*.away"):
        path.rename(path.with_suffix(".safetensors"))
    assert tracking.publish(kept.parent)
    assert named(fresh, "lr-default").data.tags["pipeline.complete"] == "true"


def test_a_report_without_its_runs_waits_for_them(fresh: Path) -> None:
    """A fresh clone has the reports that are in git, and none of the runs."""
    shutil.rmtree(fresh / "data/runs")
    (fresh / "params.yaml").write_text("datasets: [toy]\n")
    said = tracking.sync(fresh)
    assert "the report of toy waits for its runs" in said
    (fresh / "params.yaml").write_text("datasets: [other]\n")
    assert "waits" not in tracking.sync(fresh), "one that is not on the list is nobody's business"
    assert not (fresh / "mlflow.db").exists()
