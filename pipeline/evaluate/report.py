"""From run folders and the test part to stored predictions, figures and a champion.

The test part is predicted once per trained model; the probabilities go to Parquet as float32, and every
figure is computed from what stands there, so anyone can recompute it exactly. Nothing is chosen by the
test part: the champion and the better variant of a model are decided by validation figures.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from pipeline import metrics
from pipeline.evaluate.predictions import (
    Array,
    Block,
    Entry,
    Holdout,
    Run,
    Scores,
    read_predictions,
)
from pipeline.evaluate.significance import Placements, delong, placements, standard_error

BASELINE = "lr"  # the model that RelaImpr counts from


@dataclass(frozen=True)
class Curves:
    """What the plots of one model and variant draw.

    Attributes:
        tpr: true positive rate at the false positive rates `GRID`, mean over seeds.
        predicted, observed: mean probability and share of positives per bin of equally many rows, over the
            rows of all seeds.
        histogram: share of rows per fortieth of [0, 1].
    """

    tpr: Array
    predicted: Array
    observed: Array
    histogram: Array


GRID = np.linspace(0, 1, 101)


def measure(label: Array, probability: Array, group: Array | None, bins: int) -> dict[str, float]:
    """Return the figures of one prediction; `gauc` only if some group has both classes."""
    figures = {
        "auc": metrics.auc(label, probability),
        "logloss": metrics.logloss(label, probability),
        "normalised_entropy": metrics.normalised_entropy(label, probability),
        "ece": metrics.calibration_error(label, probability, bins),
    }
    if group is not None:
        figures["gauc"] = metrics.group_auc(label, probability, group)
    return {key: value for key, value in figures.items() if not math.isnan(value)}


def champion(runs: Sequence[Run]) -> tuple[Run, int]:
    """Return the run with the best validation AUC (mean over seeds) and its best seed on validation."""
    run = min(runs, key=lambda run: run.rank)
    best = min(run.seeds, key=lambda r: (-r["best"]["valid_auc"], r["best"]["valid_logloss"], r["seed"]))
    return run, int(best["seed"])


def build_report(
    dataset: str, runs: Sequence[Run], holdout: Holdout, predictions: dict[str, Path], bins: int
) -> tuple[Block, dict[Entry, Curves]]:
    """Compute every figure from the stored predictions.

    Args:
        runs: as `load_runs` gives them.
        predictions: the Parquet file of each model.
        bins: of the calibration error and its plot.

    Returns:
        the values of report.json, and what the plots draw for each model and variant.
    """
    leader, seed = champion(runs)
    leading = placements(holdout.label, _of(leader, read_predictions(predictions[leader.model])))
    results, comparisons, curves = [], [], {}
    for model, variants in groupby(runs, key=lambda run: run.model):
        pair = {run.variant: run for run in variants}
        scores = read_predictions(predictions[model])
        values = {}
        for variant, run in pair.items():
            values[variant] = placements(holdout.label, _of(run, scores))
            results.append(_result(run, scores, holdout, bins, standard_error(values[variant])))
            curves[model, variant] = _curves(holdout.label, _of(run, scores), bins)
        comparisons.append(_compare(pair["tuned"], pair["default"], values["tuned"], values["default"]))
        if model != leader.model:
            better = min(pair.values(), key=lambda run: run.rank)
            comparisons.append(_compare(leader, better, leading, values[better.variant]))
    bayes = _bayes(holdout)
    _relate(results, bayes)
    values_ = {
        "dataset": dataset,
        "origin": holdout.origin,
        "rows": len(holdout.label),
        "base_rate": float(holdout.label.mean()),
        "bayes": bayes,
        "results": results,
        "comparisons": comparisons,
        "champion": {
            "model": leader.model,
            "variant": leader.variant,
            "seed": seed,
            "key": leader.info["key"],
        },
    }
    return values_, curves


def reliability(label: Array, probability: Array, bins: int) -> tuple[Array, Array]:
    """Return mean probability and share of positives in each of `bins` bins of equally many rows."""
    order = np.argsort(probability, kind="stable")
    p = np.array_split(probability[order].astype(np.float64), min(bins, len(order)))
    y = np.array_split(label[order].astype(np.float64), min(bins, len(order)))
    return np.array([part.mean() for part in p]), np.array([part.mean() for part in y])


def roc(label: Array, score: Array, grid: Array = GRID) -> Array:
    """Return the true positive rate at each false positive rate of `grid`; ties are drawn as a slope."""
    order = np.argsort(-score, kind="stable")
    ranked, positive = score[order], label[order] > 0.5
    ends = np.r_[np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1]
    hits, alarms = np.cumsum(positive)[ends], np.cumsum(~positive)[ends]
    return np.interp(grid, np.r_[0, alarms / alarms[-1]], np.r_[0, hits / hits[-1]])


def _result(run: Run, scores: Scores, holdout: Holdout, bins: int, error: float) -> Block:
    seeds = [
        {"seed": seed, **measure(holdout.label, scores[run.variant, seed], holdout.group, bins)}
        for seed in (result["seed"] for result in run.seeds)
    ]
    figures = [key for key in seeds[0] if key != "seed"]
    spread = (
        {key: float(np.std([row[key] for row in seeds], ddof=1)) for key in figures}
        if len(seeds) > 1
        else None
    )
    return {
        "model": run.model,
        "variant": run.variant,
        "key": run.info["key"],
        "weights": run.info["weights"],
        "trials": len(run.info.get("search", {}).get("trials", [])),
        "valid_auc": run.valid("auc"),
        "valid_logloss": run.valid("logloss"),
        "seeds": seeds,
        "mean": {key: float(np.mean([row[key] for row in seeds])) for key in figures},
        "std": spread,
        "auc_standard_error": error,
    }


def _relate(results: list[Block], bayes: dict[str, float] | None) -> None:
    """Add what needs the other rows or the truth: RelaImpr, and the share of the learnable AUC reached."""
    base = {r["variant"]: r["mean"]["auc"] for r in results if r["model"] == BASELINE}
    for result in results:
        auc = result["mean"]["auc"]
        gain = metrics.relative_improvement(auc, base.get(result["variant"], float("nan")))
        result["relaimpr"] = None if math.isnan(gain) else gain
        if bayes is not None:
            result["learned"] = (auc - 0.5) / (bayes["auc"] - 0.5)


def _bayes(holdout: Holdout) -> dict[str, float] | None:
    if holdout.truth is None:
        return None
    return {
        "auc": metrics.auc(holdout.label, holdout.truth),
        "logloss": metrics.logloss(holdout.label, holdout.truth),
    }


def _compare(first: Run, second: Run, a: Placements, b: Placements) -> Block:
    names = [{"model": run.model, "variant": run.variant} for run in (first, second)]
    return {"first": names[0], "second": names[1], **delong(a, b)}


def _curves(label: Array, scores: list[Array], bins: int) -> Curves:
    pooled = np.concatenate(scores)
    predicted, observed = reliability(np.tile(label, len(scores)), pooled, bins)
    histogram = np.histogram(pooled, bins=40, range=(0, 1))[0] / len(pooled)
    return Curves(np.mean([roc(label, s) for s in scores], axis=0), predicted, observed, histogram)


def _of(run: Run, scores: Scores) -> list[Array]:
    return [scores[run.variant, result["seed"]] for result in run.seeds]
