"""A small project as the stages leave it, without running them: what MLflow is to be a view of."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from safetensors.torch import save_file

from pipeline import metrics
from pipeline.common.files import digest, seal, write_json, write_text
from pipeline.data.batches import Split
from pipeline.data.storage import digests
from pipeline.models import build
from pipeline.schema import SPLITS, Field, Schema
from pipeline.train.loop import fit
from pipeline.train.predict import predict

mpl.use("Agg")
TOY = Schema(
    (
        Field("user", 30, domain="user", role="user"),
        Field("item", 20, domain="item", role="item"),
        Field("tags", 8, slots=3),
    )
)
VOCABULARY = [
    {
        "name": field.name,
        "kind": "bag" if field.slots > 1 else "category",
        "domain": field.domain,
        "role": field.role,
        "values": [f"{field.name}-{value}" for value in range(1, field.size)],
        **({"slots": field.slots, "separator": "|"} if field.slots > 1 else {}),
    }
    for field in TOY.fields
]
MODEL = {
    "lr": {},
    "fm": {"embedding_size": 4},
    "deepfm": {"embedding_size": 4, "hidden": [8], "batch_norm": True},
}
TRAIN = {"lr": 0.01, "batch_size": 64, "epochs": 4, "patience": 4}
ROWS = {"train": 600, "valid": 200, "test": 200}


def write_project(
    root: Path,
    *,
    models: tuple[str, ...] = ("lr", "fm"),
    dataset: str = "toy",
    seeds: int = 2,
    trials: int = 3,
) -> None:
    """Write processed data, a default and a tuned run of every model, and the report."""
    processed = write_data(root, dataset)
    for model in models:
        for variant in ("default", "tuned"):
            write_run(root, processed, model, variant, seeds=seeds, trials=trials)
    write_report(root, dataset)


def write_data(root: Path, dataset: str) -> Path:
    """Write rows whose label depends on user and item."""
    rng = np.random.default_rng(7)
    folder = root / "data/processed" / dataset
    folder.mkdir(parents=True)
    taste = rng.normal(size=1000)
    for part, rows in ROWS.items():
        ids = np.stack(
            [
                TOY.offsets[field] + rng.integers(TOY.fields[field].size, size=rows)
                for field in TOY.field_of_slot
            ],
            axis=1,
        )
        click = rng.random(rows) < 1 / (1 + np.exp(-taste[ids].sum(1)))
        np.save(folder / f"{part}.ids.npy", ids.astype(np.int32))
        np.save(folder / f"{part}.label.npy", click.astype(np.uint8))
    write_json(folder / "schema.json", TOY.to_json())
    write_json(folder / "vocabulary.json", VOCABULARY)
    write_json(root / "data/interim" / dataset / "reading.json", {"source": "toys"})
    seal(root / "data/interim" / dataset)
    origin = {"source": "toys", "matches_publisher": False, "differs": ["log.csv"], "missing": ["items.csv"]}
    write_json(folder / "report.json", {"dataset": dataset, "origin": origin})
    seal(folder)
    return folder


def write_run(
    root: Path, processed: Path, model: str, variant: str, *, seeds: int, trials: int, lr: float = 0.01
) -> dict[str, Any]:
    """Train a toy model and write its run folder; return what run.json says."""
    params = {"model": MODEL[model], "train": {**TRAIN, "lr": lr if variant == "default" else 2 * lr}}
    run: dict[str, Any] = {
        "stage": "train" if variant == "default" else "tune",
        "variant": variant,
        "dataset": processed.name,
        "model": model,
        "architecture": model,
        "input": digest(digests(processed)),
        "params": {**params, "seeds": list(range(1, seeds + 1))},
    }
    if variant == "tuned":
        run["tune"] = {"trials": trials, "metric": "auc"}
    run["key"] = digest(run)
    folder = root / "data/runs" / processed.name / model / variant
    folder.mkdir(parents=True, exist_ok=True)
    train, valid = (Split.load(processed, part) for part in SPLITS[:2])
    run["seeds"] = []
    for seed in range(1, seeds + 1):
        network = build(model, TOY, params["model"], seed=seed)
        state = fit(network, train, valid, seed=seed, **params["train"])
        save_file(network.state_dict(), folder / f"seed-{seed}.safetensors")
        run["seeds"].append({"seed": seed, "best": state.curve[state.best], "curve": state.curve})
    run["weights"] = sum(weights.numel() for weights in network.parameters())
    if variant == "tuned":
        run["search"] = search(run, trials)
        write_json(folder / "best.json", {"trial": 0, **params})
        write_text(folder / "trials.csv", "number,state,value\n0,COMPLETE,0.7\n")
    write_json(folder / "run.json", run)
    seal(folder)
    return run


def search(run: dict[str, Any], trials: int) -> dict[str, Any]:
    """Make up a search whose last trial was pruned after one evaluation."""
    rows = []
    for number in range(trials):
        pruned = number == trials - 1
        curve = run["seeds"][0]["curve"]
        curve = [
            {**row, "valid_auc": row["valid_auc"] - number / 100} for row in curve[: 1 if pruned else None]
        ]
        rows.append(
            {
                "number": number,
                "state": "PRUNED" if pruned else "COMPLETE",
                "value": None if pruned else max(row["valid_auc"] for row in curve),
                "params": {"model": run["params"]["model"], "train": {**TRAIN, "lr": 0.01 * (number + 1)}},
                "curve": curve,
            }
        )
    return {"study": f"toy-{run['model']}", "metric": "auc", "best": 0, "trials": rows}


def write_report(root: Path, dataset: str) -> dict[str, Any]:
    """Write the report on all runs of a dataset; return what report.json says."""
    from pipeline.common.files import read_json

    test = Split.load(root / "data/processed" / dataset, "test")
    results = []
    for path in sorted((root / "data/runs" / dataset).glob("*/*/run.json")):
        run = read_json(path)
        seeds = [
            {"seed": each["seed"], **measure(path.parent, run, each["seed"], test)} for each in run["seeds"]
        ]
        figures = [name for name in seeds[0] if name != "seed"]
        results.append(
            {
                "model": run["model"],
                "variant": run["variant"],
                "key": run["key"],
                "valid_auc": float(np.mean([each["best"]["valid_auc"] for each in run["seeds"]])),
                "seeds": seeds,
                "mean": {name: float(np.mean([row[name] for row in seeds])) for name in figures},
                "std": {name: float(np.std([row[name] for row in seeds], ddof=1)) for name in figures},
                "relaimpr": None,
                "auc_standard_error": 0.01,
                "valid_normalised_entropy": 1.2 if run["model"] == "lr" else 0.9,
                "warning": "NE 1.200" if run["model"] == "lr" else None,
            }
        )
    top = max(results, key=lambda result: result["valid_auc"])
    run = read_json(root / "data/runs" / dataset / top["model"] / top["variant"] / "run.json")
    best = max(run["seeds"], key=lambda each: each["best"]["valid_auc"])["seed"]
    report = {
        "dataset": dataset,
        "rows": len(test),
        "base_rate": float(test.label.mean()),
        "bayes": {"auc": 0.9, "logloss": 0.4},
        "results": results,
        "champion": {
            "model": top["model"],
            "variant": top["variant"],
            "key": top["key"],
            "seed": best,
            "metric": "auc",
        },
    }
    folder = root / "data/reports" / dataset
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "report.json", report)
    lines = [f"| {r['model']} | {r['variant']} | {r['mean']['auc']:.4f} |" for r in results]
    write_text(
        folder / "leaderboard.md",
        "\n".join([f"# {dataset}: test part", "", "| model | variant | AUC |", "|---|---|---|", *lines, ""]),
    )
    figure = Figure(figsize=(4, 3))
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1])
    axes.set_title("ROC")
    figure.savefig(folder / "roc.png", metadata={"Software": None})
    seal(folder)
    return report


def measure(folder: Path, run: dict[str, Any], seed: int, test: Split) -> dict[str, float]:
    """Return AUC and logloss of one seed on the test part."""
    probability = probabilities(folder, run, seed, test).numpy()
    label = test.label.numpy()
    return {"auc": metrics.auc(label, probability), "logloss": metrics.logloss(label, probability)}


def probabilities(folder: Path, run: dict[str, Any], seed: int, split: Split) -> torch.Tensor:
    """Return what the model of one seed predicts, straight from its files."""
    from safetensors.torch import load_file

    network = build(run["model"], TOY, run["params"]["model"], seed=seed)
    network.load_state_dict(load_file(folder / f"seed-{seed}.safetensors"))
    return predict(network, split)
