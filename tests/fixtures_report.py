"""What the report is made from: a toy project with trained models, and made-up values for its pictures."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from pipeline.common.files import digest, seal, write_json
from pipeline.data.batches import Split
from pipeline.data.storage import digests
from pipeline.evaluate import budget, predictions, report
from pipeline.evaluate.predictions import Holdout
from pipeline.evaluate.report import GRID, Curves, Entry
from pipeline.evaluate.runs import Run, load_runs
from pipeline.models import build
from pipeline.schema import Field, Schema
from pipeline.train.loop import fit

TOY = Schema((Field("user", 20, 1, "user"), Field("item", 12, 1, "item"), Field("tags", 6, 2, "item")))
ROWS = {"train": 500, "valid": 150, "test": 300}
MODELS = {"lr": {}, "fm": {"embedding_size": 3}, "deepfm": {"embedding_size": 3, "hidden": [4]}}


@dataclass(frozen=True)
class Project:
    """Where things are in a toy project."""

    root: Path
    dataset: str = "toy"

    @property
    def processed(self) -> Path:
        return self.root / "data/processed" / self.dataset

    @property
    def runs(self) -> Path:
        return self.root / "data/runs"

    def load(self, *models: str) -> list[Run]:
        return load_runs(self.runs, self.dataset, models or tuple(MODELS), self.processed)

    def report(self, folder: Path, *models: str, bins: int = 10) -> tuple[dict[str, Any], dict[str, Path]]:
        """Predict into `folder` and compute the report; return it and the Parquet files."""
        return self.build(self.load(*models), folder, bins)

    def build(self, runs: list[Run], folder: Path, bins: int = 10) -> tuple[dict[str, Any], dict[str, Path]]:
        """Do so with runs that were loaded before."""
        folder.mkdir(parents=True, exist_ok=True)
        holdout = Holdout.load(self.processed)
        files = {run.model: folder / f"{run.model}.parquet" for run in runs}
        validations = {
            model: predictions.write_predictions(path, [run for run in runs if run.model == model], holdout)
            for model, path in files.items()
        }
        return report.build_report(self.dataset, runs, holdout, files, validations, bins)[0], files


def make_project(
    root: Path, *, dataset: str = "toy", models: tuple[str, ...] = tuple(MODELS), extras: bool = True
) -> Project:
    """Write processed data and a default and a tuned run of every model.

    Args:
        extras: with a group column and the true probabilities.
    """
    project = Project(root, dataset)
    write_data(project.processed, extras=extras)
    train, valid = Split.load(project.processed, "train"), Split.load(project.processed, "valid")
    for model in models:
        for variant, stage, lr in (("default", "train", 0.01), ("tuned", "tune", 0.03)):
            params = {"model": MODELS[model], "train": {"lr": lr, "batch_size": 64, "epochs": 3}}
            head = {
                "stage": stage,
                "variant": variant,
                "dataset": dataset,
                "model": model,
                "architecture": model,
                "input": digest(digests(project.processed)),
                "params": params,
            }
            folder = project.runs / dataset / model / variant
            folder.mkdir(parents=True)
            seeds = []
            for seed in (1, 2):
                network = build(model, TOY, MODELS[model], seed=seed)
                state = fit(network, train, valid, seed=seed, **params["train"])
                save_file(network.state_dict(), folder / f"seed-{seed}.safetensors")
                seeds.append({"seed": seed, "best": state.curve[state.best], "curve": state.curve})
            weights = sum(p.numel() for p in network.parameters())
            run = {**head, "key": digest(head), "weights": weights, "seeds": seeds}
            if variant == "tuned":
                run["search"] = search(0.7, 0.72)
            write_json(folder / "run.json", run)
            seal(folder)
    return project


def write_data(folder: Path, *, extras: bool = True) -> None:
    """Write the three parts: clicks by chance from a taste of users, items and their pairs."""
    rng = np.random.default_rng(3)
    folder.mkdir(parents=True)
    rows = rng.permutation(sum(ROWS.values()))
    taste = rng.normal(size=(TOY.vocabulary_size, 2))
    taste[0] = 0
    start = 0
    for part, count in ROWS.items():
        columns = [TOY.offsets[f] + rng.integers(TOY.fields[f].size, size=count) for f in TOY.field_of_slot]
        ids = np.stack(columns, 1)
        score = taste[ids, 0].sum(1) + taste[ids[:, 0], 1] * taste[ids[:, 1], 1]
        truth = 1 / (1 + np.exp(-score))
        np.save(folder / f"{part}.ids.npy", ids.astype(np.int32))
        np.save(folder / f"{part}.label.npy", (rng.random(count) < truth).astype(np.uint8))
        np.save(folder / f"{part}.row.npy", np.sort(rows[start : start + count]).astype(np.int64))
        if extras:
            np.save(folder / f"{part}.group.npy", (ids[:, 0] - 1).astype(np.int32))
            np.save(folder / f"{part}.truth.npy", truth)
        start += count
    write_json(folder / "schema.json", TOY.to_json())
    write_json(folder / "report.json", {"dataset": folder.name})
    seal(folder)


def search(start: float, end: float, *, count: int = 8, metric: str = "auc") -> dict[str, Any]:
    """A made-up search from `start` to `end`: one trial was pruned, one diverged at once."""
    values: list[float | None] = list(np.linspace(start, end, count))
    values[2] = None
    values[3] = start - abs(end - start) if metric == "auc" else start + abs(end - start)
    states = ["PRUNED" if i in (2, 3) else "COMPLETE" for i in range(count)]
    trials = [
        {"number": i, "state": state, "value": value, "point": {"train.lr": 0.1}, "params": {}}
        for i, (state, value) in enumerate(zip(states, values, strict=True))
    ]
    shares = {"train.lr": 0.7, "model.embedding_size": 0.3}
    step = (end - start) / (count - 1)
    spent = {
        "trials": count,
        "completed": count - 2,
        "best": [start, start, start, *(start + step * i for i in range(3, count))],
        "expected": [start + step * i for i in range(count)],
        "rows": [10_000 * (i + 1) for i in range(count)],
        "final_rows": 50_000,
    }
    return {
        "study": "made-up",
        "metric": metric,
        "best": count - 1,
        "trials": trials,
        "budget": spent,
        "against_default": {"trial": count - 1, "difference": end - start, "error": 0.004},
        "importances": {"ped_anova": shares, "fanova": shares},
    }


def made_up_runs(
    auc: dict[Entry, float], *, seeds: int = 3, importances: bool = True, metric: str = "auc"
) -> list[Run]:
    """Runs with the given mean validation AUC and curves that rise to it."""
    runs = []
    for (model, variant), value in auc.items():
        results = []
        for seed in range(1, seeds + 1):
            best = value + 0.001 * (seed - (seeds + 1) / 2)
            curve = [
                {
                    "step": 10 * i,
                    "epoch": i,
                    "valid_auc": best - 0.1 / i,
                    "valid_logloss": 1.3 - best + 0.1 / i,
                    "train_logloss": 1.29 - best + 0.1 / i,
                }
                for i in range(1, 6 + seed)
            ]
            curve[-1] = {**curve[-1], "valid_auc": best, "valid_logloss": 1.3 - best}
            results.append({"seed": seed, "best": curve[-1], "curve": curve})
        info: dict[str, Any] = {
            "model": model,
            "variant": variant,
            "dataset": "made-up",
            "key": digest([model, variant]),
            "weights": 1000,
            "seeds": results,
        }
        if variant == "tuned":
            start, end = (value - 0.02, value) if metric == "auc" else (1.32 - value, 1.3 - value)
            info["search"] = search(start, end, metric=metric)
            if not importances:
                info["search"]["importances"] = {}
        runs.append(Run(Path("nowhere"), info))
    return runs


def made_up_report(
    runs: list[Run], test: dict[Entry, float] | None = None, *, bayes: bool = False, gauc: bool = True
) -> dict[str, Any]:
    """A report on made-up runs; the test AUC is the validation AUC unless `test` says otherwise."""
    results = []
    for run in runs:
        middle = (test or {}).get((run.model, run.variant), run.valid("auc"))
        seeds = [
            {
                "seed": result["seed"],
                "auc": middle + 0.001 * (i - (len(run.seeds) - 1) / 2),
                "logloss": 0.5,
                "normalised_entropy": 0.8,
                "ece": 0.012,
                "mean_prediction_ratio": 1.02,
                "calibrated_logloss": 0.49,
                "calibrated_normalised_entropy": 0.78,
                "calibrated_ece": 0.01,
                **({"gauc": 0.7} if gauc else {}),
            }
            for i, result in enumerate(run.seeds)
        ]
        figures = [key for key in seeds[0] if key != "seed"]
        spread = (
            {key: float(np.std([row[key] for row in seeds], ddof=1)) for key in figures}
            if len(seeds) > 1
            else None
        )
        results.append(
            {
                "model": run.model,
                "variant": run.variant,
                "key": run.info["key"],
                "weights": 1000,
                "trials": len(run.info.get("search", {}).get("trials", [])),
                **budget.counts(run),
                "valid_auc": run.valid("auc"),
                "valid_logloss": run.valid("logloss"),
                "seeds": seeds,
                "calibrations": [{"method": "temperature", "temperature": 1.2} for _ in seeds],
                "mean": {key: float(np.mean([row[key] for row in seeds])) for key in figures},
                "std": spread,
                "auc_standard_error": 0.003,
                "auc_low": middle - 0.006,
                "auc_high": middle + 0.006,
                "valid_normalised_entropy": 0.81,
                "valid_mean_prediction_ratio": 0.99,
                "warning": None,
                "p": None,
                "p_holm": None,
                "relaimpr": 0.05 if any(other.model == "lr" for other in runs) else None,
                **({"learned": (middle - 0.5) / 0.35} if bayes else {}),
            }
        )
    leader, seed = report.champion(runs)
    best = {"model": leader.model, "variant": leader.variant}
    comparisons = []
    for model in dict.fromkeys(run.model for run in runs):
        tuned, default = ({"model": model, "variant": variant} for variant in ("tuned", "default"))
        real = {"difference": 0.01, "low": 0.004, "high": 0.016, "p": 0.001, "p_holm": 0.004}
        doubtful = {"difference": 0.001, "low": -0.004, "high": 0.006, "p": 0.7, "p_holm": 1.0}
        comparisons.append({"first": tuned, "second": default, **real})
        if model != leader.model:
            comparisons.append({"first": best, "second": tuned, **doubtful})
            result = next(r for r in results if r["model"] == model and r["variant"] == "tuned")
            result |= {"p": 0.7, "p_holm": 1.0}
    return {
        "dataset": "made-up",
        "rows": 20000,
        "base_rate": 0.4,
        "splits": {part: {"rows": 20000, "clicks": 8000} for part in ("train", "valid", "test")},
        "clusters": 900,
        "gauc_coverage": 0.93 if gauc else None,
        "bayes": {"auc": 0.85, "logloss": 0.45} if bayes else None,
        "results": results,
        "comparisons": comparisons,
        "budget": budget.summarise(runs),
        "champion": {**best, "seed": seed, "key": leader.info["key"], "metric": leader.metric},
    }


def made_up_curves(runs: list[Run], bins: int = 20) -> dict[Entry, Curves]:
    """Smooth curves, a little different from model to model."""
    middle = (np.arange(bins) + 0.5) / bins
    return {
        (run.model, run.variant): Curves(
            GRID ** (0.4 + 0.01 * i),
            middle,
            np.clip(middle + 0.01 * i / len(runs), 0, 1),
            np.full(40, 1 / 40),
        )
        for i, run in enumerate(runs)
    }


def both(**auc: float) -> dict[Entry, float]:
    """The same AUC for the default variant of each model, and a little more for the tuned one."""
    return {
        (model, variant): value + (0.002 if variant == "tuned" else 0)
        for model, value in auc.items()
        for variant in ("default", "tuned")
    }


def flip(folder: Path) -> None:
    """Turn every test label round."""
    label = np.load(folder / "test.label.npy")
    np.save(folder / "test.label.npy", 1 - label)
    seal(folder)


def other_weights(path: Path) -> None:
    """Replace stored weights by some of another shape."""
    save_file({"linear.table": torch.zeros(2, 1)}, path)
