"""Blends and refits from the stages to a package: the report's probabilities and `predict` agree."""

import subprocess
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import scoring_rows as mine
import torch
from safetensors.torch import load_file

from pipeline import tracking
from pipeline.common.errors import PipelineError
from pipeline.common.files import folder_digest, read_json
from pipeline.evaluate import calibration
from pipeline.scoring import load, pack
from pipeline.tracking.store import configure
from tests import project

pytestmark = [pytest.mark.slow, pytest.mark.thorough, pytest.mark.filterwarnings("ignore")]
NAME, MODELS, SEEDS = "mine", ["fm", "din"], [1, 2]
RAW = "raw_probability"


@pytest.fixture(scope="module", name="root")
def _root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a log with bags, numbers and times, two models, one of them timed, and their refits."""
    root = tmp_path_factory.mktemp("blends")
    mine.write_csv(root / "clicks.csv", mine.log(2500))
    values = project.small_params(datasets=[NAME], models=MODELS)
    entry = values["data"].pop("synthetic")
    entry["settings"]["train"] |= {"epochs": 2, "seeds": SEEDS, "refit": True}
    entry["settings"]["tune"]["trials"] = 1
    preprocess = {**mine.ENTRY, "user": "user_id", "item": "item"}
    own = {"source": "tabular", "download": {"path": "clicks.csv"}, "preprocess": preprocess}
    values["data"] = {NAME: {**entry, **own}}
    values["evaluate"]["blend"] = MODELS
    project.make_project(root, **values)
    project.prepare(root, NAME)
    for model in MODELS:
        for stage in ("train", "tune"):
            done = project.run(root, stage, model, dataset=NAME, CTR_TRACKING="off")
            assert done.returncode == 0, done.stderr
            assert "again on train + validation rows" in done.stdout
    done = project.run(root, "evaluate", dataset=NAME, CTR_TRACKING="off")
    assert done.returncode == 0, done.stderr
    tracking.sync(root)
    return root


def report(root: Path) -> dict[str, Any]:
    values: dict[str, Any] = read_json(root / f"data/reports/{NAME}/report.json")
    return values


def predictions(root: Path, model: str, variant: str, seed: int) -> pd.DataFrame:
    frame = pd.read_parquet(root / f"data/predictions/{NAME}/{model}.parquet")
    return frame[(frame["variant"] == variant) & (frame["seed"] == seed)]


def blended(root: Path, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """The rows of the test split, and the mean of the logits in the stored predictions."""
    (found,) = [each for each in report(root)["blends"] if each["kind"] == kind]
    total, weight, rows = 0.0, 0, np.empty(0)
    for part in found["members"]:
        each = [predictions(root, part["model"], part["variant"], seed) for seed in part["seeds"]]
        rows = each[0]["row"].to_numpy()
        total = total + part["weight"] * np.mean([calibration.logit(e["probability"]) for e in each], axis=0)
        weight += part["weight"]
    return rows, 1 / (1 + np.exp(-total / weight))


def raw(root: Path, rows: np.ndarray) -> pd.DataFrame:
    log = pd.read_csv(root / "clicks.csv", dtype=str, keep_default_na=False)
    return log.iloc[rows].drop(columns=["click"])


@pytest.mark.parametrize("kind", ["equal", "greedy", "equal + valid"])
def test_the_package_of_a_blend_gives_the_reports_probabilities(root: Path, kind: str, tmp_path: Path):
    rows, expected = blended(root, kind)
    frame = raw(root, rows)
    frame.to_csv(tmp_path / "rows.csv", index=False)
    variant, again = kind.removesuffix(" + valid"), ["--refit"] * ("valid" in kind)
    chosen = ["--dataset", NAME, "--model", "blend", "--variant", variant, *again]
    package, rows_file = str(tmp_path / "package"), str(tmp_path / "rows.csv")
    command(root, "package", *chosen, "-o", package)
    command(root, "predict", "--package", package, rows_file, "-o", "a.parquet")
    command(root, "predict", *chosen, rows_file, "-o", "b.csv")
    first, second = pd.read_parquet(root / "a.parquet"), pd.read_csv(root / "b.csv")
    np.testing.assert_allclose(first[RAW], expected, atol=1e-6)
    np.testing.assert_allclose(second[RAW], expected, atol=1e-6)
    model = load(tmp_path / "package")
    np.testing.assert_allclose(model.predict(frame)[RAW], expected, atol=1e-6)
    of_kind = {each["kind"]: each for each in report(root)["blends"]}
    fitted = of_kind[variant]["calibration"]  # on validation rows by members that were not trained on them
    probability = calibration.apply(fitted, calibration.logit(expected))
    np.testing.assert_allclose(first["probability"], probability, atol=1e-5)
    again_packed = pack.pack(root, NAME, "blend", variant, refit="valid" in kind)
    again_packed.write(tmp_path / "again")
    assert folder_digest(tmp_path / "again") == folder_digest(tmp_path / "package")


def test_refits_are_rows_of_their_own_that_never_compete(root: Path) -> None:
    values = report(root)
    assert {r["variant"] for r in values["refits"]} == {"default + valid", "tuned + valid"}
    assert len(values["refits"]) == len(values["results"]) == 2 * len(MODELS)
    assert all(r["reads"].endswith(" + valid") and "valid_auc" not in r for r in values["refits"])
    assert not any("valid" in r["variant"] for r in values["results"])
    page = (root / f"data/reports/{NAME}/leaderboard.md").read_text()
    assert "## Train + validation" in page
    assert "| equal + valid |" in page
    table = pd.read_csv(root / f"data/reports/{NAME}/leaderboard.csv")
    again = table[table["variant"].str.endswith("+ valid")]
    assert len(again) == len(values["refits"]) + 2
    assert not again["champion"].any()
    assert again["valid_auc"].isna().all()
    for refit in values["refits"]:
        for seed in refit["seeds"]:
            rows = predictions(root, refit["model"], refit["variant"], seed["seed"])
            auc = ranked(rows["label"].to_numpy(), rows["probability"].to_numpy())
            assert seed["auc"] == pytest.approx(auc, abs=1e-9)


def ranked(label: np.ndarray, score: np.ndarray) -> float:
    """The share of pairs in the right order, ties half."""
    one, none = score[label == 1][:, None], score[label == 0][None]
    return float(((one > none) + 0.5 * (one == none)).mean())


def test_a_refit_repeats_the_epochs_of_its_run_on_the_rows_of_both(root: Path) -> None:
    for path in (root / f"data/runs/{NAME}").glob("*/*/run.json"):
        run = read_json(path)
        assert [each["seed"] for each in run["refit"]] == SEEDS
        for seed, again in zip(run["seeds"], run["refit"], strict=True):
            assert again["best"]["epoch"] == seed["best"]["epoch"]
            name = f"{again['seed']}.safetensors"
            old, new = (load_file(path.parent / f"{kind}-{name}") for kind in ("seed", "refit"))
            assert old.keys() == new.keys()
            assert any(not torch.equal(old[key], new[key]) for key in old if old[key].shape == new[key].shape)


def test_the_champions_package_has_the_weights_that_were_chosen_unless_asked(root: Path) -> None:
    best = report(root)["champion"]
    rows = predictions(root, best["model"], best["variant"], best["seed"])
    again = predictions(root, best["model"], f"{best['variant']} + valid", best["seed"])
    (root / "rows.csv").write_text(raw(root, rows["row"].to_numpy()).to_csv(index=False))
    for words, expected in (((), rows), (("--refit",), again)):
        command(root, "predict", "--dataset", NAME, *words, "rows.csv", "-o", "c.parquet")
        found = pd.read_parquet(root / "c.parquet")
        np.testing.assert_allclose(found[RAW], expected["probability"], atol=1e-6)
    chosen = pack.pack(root, NAME, best["model"], best["variant"])
    refit = pack.pack(root, NAME, best["model"], best["variant"], refit=True)
    assert chosen.calibration == refit.calibration
    assert chosen.trained_on["variant"] == best["variant"]
    assert refit.trained_on["variant"] == f"{best['variant']} + valid"
    assert refit.trained_on["test"]["auc"] != chosen.trained_on["test"]["auc"]


def test_mlflow_has_a_child_for_each_refit(root: Path) -> None:
    store = configure(root)
    for refit in report(root)["refits"]:
        (shown,) = store.named(store.experiment(NAME), refit["key"])
        children = store.children(store.experiment(NAME), shown.info.run_id)
        for seed in refit["seeds"]:
            child = children[f"refit-{seed['seed']}"]
            assert child.data.params["rows"] == "train + valid"
            assert child.data.params["seed"] == str(seed["seed"])


def test_a_refits_test_metrics_are_those_of_its_runs(root: Path) -> None:
    """Of each seed as its child's, and their means as the run's own, beside those of the chosen weights."""
    store = configure(root)
    for refit in report(root)["refits"]:
        (shown,) = store.named(store.experiment(NAME), refit["key"])
        children = store.children(store.experiment(NAME), shown.info.run_id)
        for seed in refit["seeds"]:
            child = children[f"refit-{seed['seed']}"].data.metrics
            assert child["test/auc"] == pytest.approx(seed["auc"], abs=1e-6)
            assert child["test/calibrated_logloss"] == pytest.approx(seed["calibrated_logloss"], abs=1e-6)
        have = shown.data.metrics
        (result,) = [each for each in report(root)["results"] if each["key"] == refit["key"]]
        assert have["refit/auc"] == pytest.approx(refit["mean"]["auc"], abs=1e-6)
        assert have["refit/logloss_std"] == pytest.approx(refit["std"]["logloss"], abs=1e-6)
        assert have["refit/auc_low"] == pytest.approx(refit["auc_low"], abs=1e-6)
        assert have["test/auc"] == pytest.approx(result["mean"]["auc"], abs=1e-6)


@pytest.mark.parametrize("kind", ["equal", "greedy", "equal + valid"])
def test_a_blend_in_the_registry_gives_the_reports_probabilities(root: Path, kind: str) -> None:
    rows, expected = blended(root, kind)
    name = f"ctr-{NAME}-blend-{kind.replace(' + valid', '-valid')}"
    client = configure(root).client
    version = client.get_model_version_by_alias(name, "champion")
    mlflow.set_tracking_uri(client.tracking_uri)
    model = mlflow.pyfunc.load_model(f"models:/{name}@champion")
    np.testing.assert_allclose(model.predict(raw(root, rows))[RAW], expected, atol=1e-6)
    (found,) = [each for each in report(root)["blends"] if each["kind"] == kind]
    assert version.tags["variant"] == kind
    assert float(version.tags["test_auc"]) == pytest.approx(found["auc"], abs=1e-6)
    assert f"Test AUC {found['auc']:.4f}" in str(version.description)


def test_blends_are_registered_once_and_again_where_one_was_lost(root: Path) -> None:
    client = configure(root).client
    name = f"ctr-{NAME}-blend-greedy"
    assert tracking.sync(root).endswith("nothing to do")
    before = client.get_model_version_by_alias(name, "champion")
    client.delete_registered_model(name)
    assert "1 report published" in tracking.sync(root)
    again = client.get_model_version_by_alias(name, "champion")
    assert again.tags["key"] == before.tags["key"]
    assert tracking.sync(root).endswith("nothing to do")


def test_what_is_not_there_is_said(root: Path) -> None:
    with pytest.raises(PipelineError, match=r"unknown blend 'best'.*evaluate\.blend"):
        pack.pack(root, NAME, "blend", "best")
    done = called(root, "watch", NAME, "clicks.csv", "--model", "blend")
    assert done.returncode == 1
    assert "name it by --model" in done.stderr


def command(root: Path, *words: str) -> str:
    done = called(root, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def called(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    call = {"cwd": root, "env": project.environment(), "capture_output": True, "text": True}
    return subprocess.run(["python", "-m", "pipeline", *words], check=False, **call)
