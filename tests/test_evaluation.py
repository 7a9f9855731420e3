import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from scipy import special
from sklearn.metrics import log_loss, roc_auc_score

from pipeline.common.errors import PipelineError
from pipeline.common.files import read_json, seal, write_json
from pipeline.data.batches import Split
from pipeline.evaluate import leaderboard, plot_style, predictions, report
from pipeline.evaluate.predictions import Holdout
from pipeline.evaluate.runs import better, dvc_target, load_model
from pipeline.statistics.significance import error_by_counts, holm
from stages import evaluate
from tests import project as small
from tests.fixtures_report import (
    MODELS,
    Project,
    both,
    flip,
    made_up_runs,
    make_project,
    other_weights,
)


@pytest.fixture(scope="module", name="project")
def _project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return make_project(tmp_path_factory.mktemp("evaluation"))


@pytest.fixture(scope="module", name="evaluated")
def _evaluated(project: Project, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, dict[str, Path]]:
    return project.report(tmp_path_factory.mktemp("predictions"))


@pytest.fixture(name="changed")
def _changed(project: Project, tmp_path: Path) -> Project:
    """A copy that a test may damage."""
    shutil.copytree(project.root / "data", tmp_path / "data")
    return Project(tmp_path)


# predictions


@pytest.mark.slow
def test_predictions_have_the_promised_columns_and_order(project: Project, evaluated: tuple) -> None:
    for model, path in evaluated[1].items():
        schema = pq.read_schema(path)
        types = ["string", "string", "int32", "int64", "uint8", "float"]
        assert schema.names == ["model", "variant", "seed", "row", "label", "probability"]
        assert [str(field.type) for field in schema] == types
        table = pd.read_parquet(path)
        order = table.sort_values(["variant", "seed", "row"], kind="stable")
        assert order.index.tolist() == table.index.tolist()
        assert set(table.model) == {model}
        assert len(table) == 4 * len(np.load(project.processed / "test.row.npy"))


@pytest.mark.slow
def test_each_variant_and_seed_has_every_test_row_once_and_no_other(
    project: Project, evaluated: tuple
) -> None:
    rows = {part: set(np.load(project.processed / f"{part}.row.npy")) for part in ("train", "valid", "test")}
    label = np.load(project.processed / "test.label.npy")
    for path in evaluated[1].values():
        for _, table in pd.read_parquet(path).groupby(["variant", "seed"]):
            assert set(table.row) == rows["test"]
            assert len(table) == len(rows["test"])
            assert table.label.tolist() == label.tolist()
            assert not set(table.row) & (rows["train"] | rows["valid"])


@pytest.mark.slow
def test_predictions_need_no_file_of_the_train_split_and_read_no_test_label(
    project: Project, changed: Project, evaluated: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [run for run in changed.load() if run.model == "fm"]
    for path in changed.processed.glob("*.npy"):
        if path.name.startswith("train."):
            path.unlink()
    flip(changed.processed)
    read = []
    load = Split.load.__func__

    def record(cls: type[Split], folder: Path, part: str, *args: object, **more: int) -> Split:
        read.append(part)
        return load(cls, folder, part, *args, **more)

    monkeypatch.setattr(Split, "load", classmethod(record))
    predictions.write_predictions(tmp_path / "fm.parquet", runs, Holdout.load(changed.processed))
    before, after = pd.read_parquet(evaluated[1]["fm"]), pd.read_parquet(tmp_path / "fm.parquet")
    assert read == ["test", "valid"]
    assert after.probability.tolist() == before.probability.tolist()
    assert (after.label == 1 - before.label).all()


@pytest.mark.slow
def test_stored_predictions_are_what_was_predicted(project: Project, evaluated: tuple) -> None:
    holdout = Holdout.load(project.processed)
    for run in project.load():
        stored = predictions.read_predictions(evaluated[1][run.model])
        for seed in (1, 2):
            (expected,) = predictions.probabilities(run, seed, holdout.split)
            assert stored[run.variant, seed].dtype == np.float32
            np.testing.assert_array_equal(stored[run.variant, seed], expected)


# figures


def calibrated(calibration: dict, p: np.ndarray) -> np.ndarray:
    z, method = special.logit(p), calibration["method"]
    if method == "temperature":
        z = z / calibration["temperature"]
    elif method == "platt":
        z = calibration["slope"] * z + calibration["intercept"]
    else:
        assert method == "none"
    return special.expit(z)


@pytest.mark.slow
def test_every_figure_can_be_recomputed_from_the_stored_predictions(
    project: Project, evaluated: tuple
) -> None:
    report, files = evaluated
    group = pd.Series(
        np.load(project.processed / "test.group.npy"), index=np.load(project.processed / "test.row.npy")
    )
    aucs = {}
    for result in report["results"]:
        table = pd.read_parquet(files[result["model"]]).query("variant == @result['variant']")
        per_seed = []
        for seed, part in table.groupby("seed"):
            y, p = part.label.to_numpy(), part.probability.to_numpy().astype(float)
            base = np.full(len(y), y.mean())
            users = [u for _, u in part.groupby(part.row.map(group)) if u.label.nunique() == 2]
            bins = np.array_split(part.sort_values("probability", kind="stable").index, 10)
            gaps = [
                len(b) * abs(part.probability[b].astype(float).mean() - part.label[b].mean()) for b in bins
            ]
            loss = log_loss(y, np.clip(p, 1e-7, 1 - 1e-7))
            chosen = result["calibrations"][[row["seed"] for row in result["seeds"]].index(seed)]
            cooled = calibrated(chosen, p)
            gaps_after = [
                len(b) * abs(cooled[part.index.get_indexer(b)].mean() - part.label[b].mean()) for b in bins
            ]
            per_seed.append(
                {
                    "seed": seed,
                    "auc": roc_auc_score(y, p),
                    "logloss": loss,
                    "normalised_entropy": loss / log_loss(y, base),
                    "gauc": sum(roc_auc_score(u.label, u.probability) * len(u) for u in users)
                    / sum(map(len, users)),
                    "ece": sum(gaps) / len(y),
                    "mean_prediction_ratio": p.mean() / y.mean(),
                    "calibrated_logloss": log_loss(y, cooled),
                    "calibrated_normalised_entropy": log_loss(y, cooled) / log_loss(y, base),
                    "calibrated_ece": sum(gaps_after) / len(y),
                }
            )
        assert [set(row) for row in result["seeds"]] == [set(row) for row in per_seed]
        for ours, theirs in zip(result["seeds"], per_seed, strict=True):
            assert ours == pytest.approx(theirs, abs=1e-12)
        frame = pd.DataFrame(per_seed).drop(columns="seed")
        assert result["mean"] == pytest.approx(frame.mean().to_dict())
        assert result["std"] == pytest.approx(frame.std(ddof=1).to_dict(), abs=1e-12)
        aucs[result["model"], result["variant"]] = result["mean"]["auc"]
    base = max((r for r in report["results"] if r["model"] == "lr"), key=lambda r: r["valid_auc"])
    for result in report["results"]:
        lr = aucs["lr", base["variant"]]
        assert result["relaimpr"] == pytest.approx((result["mean"]["auc"] - 0.5) / (lr - 0.5) - 1, abs=1e-12)


@pytest.mark.slow
def test_the_champion_says_how_sure_its_validation_auc_is(evaluated: tuple) -> None:
    """By the rows of the validation split, which the processed folder of these tests does not record."""
    made, _ = evaluated
    assert made["champion"]["valid_auc_error"] is None
    assert "standard error" not in leaderboard.explanation(made)
    best = next(r for r in made["results"] if r["key"] == made["champion"]["key"])
    error = error_by_counts(best["valid_auc"], 16, 484)
    champion = {**made["champion"], "valid_auc_error": error}
    told = {**made, "splits": {"valid": {"rows": 500, "clicks": 16}}, "champion": champion}
    said = f"{best['valid_auc']:.4f} (standard error {error:.4f}, with 16 positive rows of 500); test"
    assert said in leaderboard.explanation(told)


@pytest.mark.slow
def test_the_true_probabilities_give_the_best_figures_there_are(project: Project, evaluated: tuple) -> None:
    report, _ = evaluated
    truth, label = (np.load(project.processed / f"test.{name}.npy") for name in ("truth", "label"))
    assert report["rows"] == len(label)
    assert report["base_rate"] == pytest.approx(label.mean())
    assert report["bayes"]["auc"] == pytest.approx(roc_auc_score(label, truth))
    assert report["bayes"]["logloss"] == pytest.approx(log_loss(label, truth))
    for result in report["results"]:
        share = (result["mean"]["auc"] - 0.5) / (report["bayes"]["auc"] - 0.5)
        assert result["learned"] == pytest.approx(share)
        assert 0 < result["learned"] < 1


@pytest.mark.slow
def test_validation_figures_keys_and_budget_come_from_the_runs(project: Project, evaluated: tuple) -> None:
    results = evaluated[0]["results"]
    assert [(r["model"], r["variant"]) for r in results] == [
        (model, variant) for model in MODELS for variant in ("default", "tuned")
    ]
    for run, result in zip(project.load(), results, strict=True):
        best = [seed["best"]["valid_auc"] for seed in run.info["seeds"]]
        assert result["valid_auc"] == pytest.approx(np.mean(best))
        assert (result["key"], result["weights"]) == (run.info["key"], run.info["weights"])
        assert result["trials"] == (8 if run.variant == "tuned" else 0)


@pytest.mark.slow
def test_errors_are_clustered_by_user_and_comparisons_corrected(project: Project, evaluated: tuple) -> None:
    report, _ = evaluated
    group = np.load(project.processed / "test.group.npy")
    assert report["clusters"] == len(set(group)) == 20
    rows = pd.DataFrame({"group": group, "label": np.load(project.processed / "test.label.npy")})
    both = rows.groupby("group").label.transform("nunique") == 2
    assert report["gauc_coverage"] == pytest.approx(both.mean())
    corrected = holm([c["p"] for c in report["comparisons"]])
    assert [c["p_holm"] for c in report["comparisons"]] == corrected
    best = report["champion"]
    distance = {}
    for c in report["comparisons"]:
        sides = [(c[side]["model"], c[side]["variant"]) for side in ("first", "second")]
        if (best["model"], best["variant"]) in sides:
            (other,) = set(sides) - {(best["model"], best["variant"])}
            distance[other] = c["p"], c["p_holm"]
    for result in report["results"]:
        expected = distance.get((result["model"], result["variant"]), (None, None))
        assert (result["p"], result["p_holm"]) == expected
        assert result["auc_low"] < result["mean"]["auc"] < result["auc_high"]


def test_equal_scores_count_as_no_comparison() -> None:
    same = {"difference": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}
    comparisons = [dict(same), {"difference": 0.1, "low": 0.01, "high": 0.19, "p": 0.03}, dict(same)]
    report.correct(comparisons)
    assert [c["p_holm"] for c in comparisons] == [1.0, 0.03, 1.0]


@pytest.mark.slow
def test_calibrations_and_warnings_come_from_validation_rows_alone(
    changed: Project, evaluated: tuple, tmp_path: Path
) -> None:
    runs = changed.load()
    flip(changed.processed)
    after = changed.build(runs, tmp_path / "predictions")[0]
    for old, new in zip(evaluated[0]["results"], after["results"], strict=True):
        for key in ("calibrations", "warning", "valid_normalised_entropy", "valid_mean_prediction_ratio"):
            assert new[key] == old[key]


@pytest.mark.slow
def test_without_a_group_or_the_truth_or_lr_their_figures_are_left_out(tmp_path: Path) -> None:
    project = make_project(tmp_path, models=("fm",), extras=False)
    report, _ = project.report(tmp_path / "predictions", "fm")
    assert report["bayes"] is report["clusters"] is report["gauc_coverage"] is None
    for result in report["results"]:
        assert "gauc" not in result["mean"]
        assert "gauc" not in result["seeds"][0]
        assert "learned" not in result
        assert result["relaimpr"] is None


# champion


@pytest.mark.slow
def test_the_champion_is_chosen_on_validation_whatever_the_test_metrics(
    changed: Project, evaluated: tuple, tmp_path: Path
) -> None:
    report, _ = evaluated
    worst = min(report["results"], key=lambda r: r["mean"]["auc"])
    path = changed.runs / "toy" / worst["model"] / worst["variant"] / "run.json"
    run = read_json(path)
    for seed, auc in zip(run["seeds"], (0.98, 0.99), strict=True):
        seed["best"]["valid_auc"] = auc
    write_json(path, run)
    seal(path.parent)
    again, _ = changed.report(tmp_path / "predictions")
    chosen = {
        "model": worst["model"],
        "variant": worst["variant"],
        "seed": 2,
        "key": worst["key"],
        "metric": "auc",
    }
    assert again["champion"].items() >= chosen.items()


def test_a_search_by_logloss_makes_the_champion_by_logloss() -> None:
    """And the seed, and the better variant of each model, with the metric in the report."""
    runs = [replace(run, metric="logloss") for run in made_up_runs(both(lr=0.75, fm=0.8), seeds=2)]
    for run in runs:
        for seed in run.seeds:  # the worst by AUC is the best by logloss
            seed["best"]["valid_logloss"] = 0.4 + seed["best"]["valid_auc"]
    by_loss, seed = report.champion(runs)
    assert (by_loss.model, by_loss.variant) == ("lr", "default")
    assert seed == min(by_loss.seeds, key=lambda one: one["best"]["valid_auc"])["seed"]
    by_auc, _ = report.champion([replace(run, metric="auc") for run in runs])
    assert (by_auc.model, by_auc.variant) == ("fm", "tuned")
    assert [run.variant for run in better(runs)] == ["default", "default"]


def test_ties_for_champion_are_broken_by_logloss_then_name() -> None:
    runs = made_up_runs({("fm", "default"): 0.8, ("deepfm", "default"): 0.8, ("lr", "default"): 0.7})
    assert report.champion(runs)[0].model == "deepfm"
    assert report.champion(runs[::-1])[0].model == "deepfm"
    for seed in runs[0].info["seeds"]:
        seed["best"]["valid_logloss"] -= 0.01
    run, seed = report.champion(runs)
    assert (run.model, seed) == ("fm", 3)


# comparisons


@pytest.mark.slow
def test_comparisons_cover_tuning_and_the_champion_against_each_other_model(evaluated: tuple) -> None:
    report, _ = evaluated
    best = (report["champion"]["model"], report["champion"]["variant"])
    pairs = {
        tuple((c[s]["model"], c[s]["variant"]) for s in ("first", "second")) for c in report["comparisons"]
    }
    means = {(r["model"], r["variant"]): r for r in report["results"]}
    assert {((m, "tuned"), (m, "default")) for m in MODELS} <= pairs
    for model in set(MODELS) - {best[0]}:
        better = max(("default", "tuned"), key=lambda v: means[model, v]["valid_auc"])
        assert (best, (model, better)) in pairs
    assert len(report["comparisons"]) == len(pairs) == 2 * len(MODELS) - 1
    for c in report["comparisons"]:
        a, b = (means[c[s]["model"], c[s]["variant"]]["mean"]["auc"] for s in ("first", "second"))
        assert c["difference"] == pytest.approx(a - b, abs=1e-12)
        assert c["low"] < c["difference"] < c["high"]


# bad input


# a model of an older report, say, may be off the list, and DVC has no target for it then
LISTED = ", with toy in `datasets` and {} in `models` of params.yaml"


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "command"), [("default", "train@toy-fm"), ("tuned", "tune@toy-fm")])
@pytest.mark.parametrize("lost", ["run.json", "seed-2.safetensors"])
def test_the_missing_file_of_a_run_is_named_with_the_command_that_makes_it(
    changed: Project, variant: str, command: str, lost: str
) -> None:
    (changed.runs / "toy/fm" / variant / lost).unlink()
    with pytest.raises(PipelineError, match=rf"toy/fm/{variant}/{lost}.*dvc repro {command}"):
        changed.load()


@pytest.mark.parametrize(
    "damage", [lambda old: old[:-9], lambda old: old.replace(b'"auc"', b'"aud"')], ids=["cut", "other"]
)
def test_a_damaged_search_is_named_with_the_command_although_the_default_reads_it_first(
    changed: Project, damage: Callable[[bytes], bytes]
) -> None:
    path = changed.runs / "toy/fm/tuned/run.json"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(PipelineError, match=r"toy/fm/tuned/run\.json was changed.*dvc repro tune@toy-fm"):
        changed.load()


def test_a_run_on_other_data_is_named(changed: Project) -> None:
    flip(changed.processed)
    told = r"toy/lr/default was trained on other data.*run `dvc repro train@toy-lr`"
    with pytest.raises(PipelineError, match=told + LISTED.format("lr")):
        changed.load()


def test_weights_that_do_not_fit_are_named(changed: Project) -> None:
    path = changed.runs / "toy/fm/tuned/seed-1.safetensors"
    holdout, runs = Holdout.load(changed.processed), changed.load("fm")
    whole = path.read_bytes()
    other_weights(path)
    with pytest.raises(
        PipelineError, match=r"seed-1.safetensors was changed .*remove .*dvc repro tune@toy-fm"
    ):
        predictions.probabilities(runs[1], 1, holdout.split)
    seal(path.parent)
    told = r"seed-1.safetensors does not fit fm.*run `dvc repro --force tune@toy-fm`"
    with pytest.raises(PipelineError, match=told + LISTED.format("fm")):
        predictions.probabilities(runs[1], 1, holdout.split)
    path.write_bytes(b"torn")
    seal(path.parent)
    with pytest.raises(PipelineError, match=r"seed-1.safetensors does not fit fm"):
        predictions.probabilities(runs[1], 1, holdout.split)
    path.write_bytes(whole)
    seal(path.parent)
    runs[1].info.update(architecture="fiinet", params={"model": {"orders": [99]}})
    with pytest.raises(PipelineError, match=r"does not fit fm as it is now \(orders \[99\].*--force tune"):
        predictions.probabilities(runs[1], 1, holdout.split)


def test_weights_that_are_gone_are_named_with_the_command_that_makes_them(changed: Project) -> None:
    holdout, run = Holdout.load(changed.processed), changed.load("fm")[0]
    run.weights(1).unlink()
    with pytest.raises(PipelineError, match=r"seed-1\.safetensors is missing; run `dvc repro train@toy-fm`"):
        load_model(run, holdout.split.schema, 1)


def test_the_target_of_a_variant_of_a_model_is_that_of_its_own_stage() -> None:
    assert dvc_target("toy", "fm", "tuned") == "tune@toy-fm"
    assert dvc_target("toy", "fm-sest", "default") == "train-variant@toy-fm-sest"


def test_predictions_that_are_not_finite_are_refused(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    holdout = Holdout.load(project.processed)
    monkeypatch.setattr(predictions, "predict", lambda _network, split: split.label * float("nan"))
    with pytest.raises(PipelineError, match="predicts NaN or infinite"):
        predictions.probabilities(project.load("lr")[0], 1, holdout.split)


def test_a_test_split_that_is_missing_or_has_one_class_is_refused(changed: Project) -> None:
    path = changed.processed / "test.label.npy"
    np.save(path, np.zeros(300, np.uint8))
    seal(path.parent)
    with pytest.raises(PipelineError, match=r"0 positive rows of 300.*data\.toy\.split"):
        Holdout.load(changed.processed)
    path.unlink()
    with pytest.raises(PipelineError, match=r"dvc repro split@toy"):
        Holdout.load(changed.processed)


# the stage


def contents(root: Path) -> dict[str, bytes]:
    """Every file the stage wrote, hidden ones included."""
    folders = (root / "data/predictions", root / "data/reports")
    paths = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture(scope="module", name="source")
def _source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("stage")
    small.make_project(root)
    make_project(root, dataset=small.DATASET, models=("lr", "fm"))
    return root


@pytest.fixture(name="stage")
def _stage(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project to run the stage in, with tracking off."""
    shutil.copytree(source, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CTR_TRACKING", "off")
    monkeypatch.setattr(sys, "argv", ["evaluate", "--dataset", small.DATASET])
    return tmp_path


@pytest.mark.thorough
@pytest.mark.slow
def test_the_stage_writes_the_same_bytes_again_and_shows_the_leaderboard(
    stage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate.main()
    first = contents(stage)
    reports = {name.rpartition("/")[2] for name in first if name.startswith("data/reports")}
    pictures = {
        "leaderboard",
        "learning_curves",
        "roc",
        "calibration",
        "tuning_history",
        "budget",
        "importances",
        "learnt",
    }
    assert reports == {"SHA256SUMS", "leaderboard.csv", "leaderboard.md", "report.html", "report.json"} | {
        f"{n}.png" for n in pictures
    }
    assert {f"data/predictions/{small.DATASET}/{model}.parquet" for model in ("lr", "fm")} < set(first)
    shutil.rmtree(stage / "data/predictions")
    shutil.rmtree(stage / "data/reports")
    evaluate.main()
    assert contents(stage) == first
    assert "champion" in capsys.readouterr().out


@pytest.mark.thorough
@pytest.mark.slow
def test_a_stage_that_fails_late_leaves_the_old_report_whole(
    stage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate.main()
    before = contents(stage)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(plot_style, "save", full)
    with pytest.raises(OSError, match="No space"):
        evaluate.main()
    assert contents(stage) == before


@pytest.mark.thorough
@pytest.mark.slow
def test_files_of_models_that_left_the_list_go(stage: Path) -> None:
    evaluate.main()
    small.make_project(stage, models=["lr"])
    evaluate.main()
    names = {Path(name).name for name in contents(stage)}
    assert "lr.parquet" in names
    assert "fm.parquet" not in names
