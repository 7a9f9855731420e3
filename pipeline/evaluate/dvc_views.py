"""What DVC's own commands show: a few metrics per dataset, and tables to plot."""

import csv
import io
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.common.files import write_json, write_text
from pipeline.evaluate.results import leader, ordered
from pipeline.evaluate.runs import Block, Run, better
from pipeline.metrics import Array

METRICS = ("auc", "logloss", "gauc", "ece")
DECIMALS = 6
CURVES = ("valid_auc", "valid_logloss", "train_logloss")


def write(data: Path, report: Block, runs: Sequence[Run]) -> None:
    """Write what DVC's commands show into metrics/<dataset>.json and plots/ of a folder.

    The plots are test AUC by row, best first, and the mean learning curve of each model's better variant.
    """
    name, shown = report["dataset"], better(runs)
    write_json(data / f"metrics/{name}.json", metrics(report, shown))
    ranked = ordered(report["results"])
    rows = ((f"{r['model']} ({r['variant']})", r["mean"]["auc"], r["valid_auc"]) for r in ranked)
    _write(data / f"plots/leaderboard/{name}.csv", ("model", "test_auc", "valid_auc"), rows)
    folder = data / "plots/curves" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for run in shown:
        columns = [mean_curve(run, each)[:2] for each in CURVES]
        points = zip(columns[0][0], *(mean for _, mean in columns), strict=True)
        _write(folder / f"{run.model}.csv", ("epoch", *CURVES), points)


def metrics(report: Block, better_runs: Sequence[Run]) -> Block:
    """Return what `dvc metrics` and `dvc exp show` compare: the champion's figures, test AUC of every model.

    Args:
        better_runs: of each model, the variant that is better on validation data.
    """
    results = {(r["model"], r["variant"]): r for r in report["results"]}
    top = leader(report)
    champion = {f"valid_{name}": top[f"valid_{name}"] for name in ("auc", "logloss")}
    champion |= {f"test_{name}": top["mean"][name] for name in METRICS if name in top["mean"]}
    auc = {run.model: results[run.model, run.variant]["mean"]["auc"] for run in better_runs}
    return {
        "champion": {"name": f"{top['model']} ({top['variant']})", **_rounded(champion)},
        "test_auc": _rounded(auc),
    }


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, DECIMALS) for name, value in values.items()}


def mean_curve(run: Run, name: str) -> tuple[Array, Array, Array]:
    """Return epoch, mean and standard deviation over seeds, for as long as half of the seeds train."""
    curves = [seed["curve"] for seed in run.seeds]
    length = sorted(map(len, curves))[len(curves) // 2]
    rows = [[curve[i] for curve in curves if i < len(curve)] for i in range(length)]
    epochs = np.array([np.mean([point["epoch"] for point in row]) for row in rows])
    mean = np.array([np.mean([point[name] for point in row]) for row in rows])
    std = np.array([np.std([point[name] for point in row]) for row in rows])
    return epochs, mean, std


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(
        [round(float(v), DECIMALS) if not isinstance(v, str) else v for v in row] for row in rows
    )
    write_text(path, text.getvalue())
