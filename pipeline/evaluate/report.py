"""From runs and stored predictions to the values of report.json.

Every metric is computed from the float32 probabilities in the Parquet files, so anyone can recompute it
exactly. Nothing is chosen on the test split: the champion and the better variant of a model are decided by
validation metrics.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from pipeline import metrics
from pipeline.evaluate import mechanisms
from pipeline.evaluate.predictions import Holdout, Scores, read_predictions
from pipeline.evaluate.runs import Block, Run
from pipeline.evaluate.significance import Placements, delong, placements, standard_error
from pipeline.metrics import Array

Entry = tuple[str, str]  # model and variant
BASELINE = "lr"  # the model that RelaImpr is relative to
GRID = np.linspace(0, 1, 101)  # false positive rates at which ROC curves are kept
HISTOGRAM_BINS = 40


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


def build_report(
    dataset: str, runs: Sequence[Run], holdout: Holdout, predictions: dict[str, Path], bins: int
) -> tuple[Block, dict[Entry, Curves]]:
    """Compute every metric from the stored predictions.

    Args:
        runs: as `load_runs` returns them.
        predictions: the Parquet file of each model.
        bins: of the calibration error and its plot.

    Returns:
        the values of report.json, and what the plots draw for each model and variant.
    """
    leader, seed = champion(runs)
    leading = placements(holdout.label, _by_seed(leader, read_predictions(predictions[leader.model])))
    results, comparisons, curves = [], [], {}
    for model, variants in groupby(runs, key=lambda run: run.model):
        pair = {run.variant: run for run in variants}
        scores = read_predictions(predictions[model])
        components = {}
        for variant, run in pair.items():
            components[variant] = placements(holdout.label, _by_seed(run, scores))
            results.append(_result(run, scores, holdout, bins, standard_error(components[variant])))
            curves[model, variant] = _curves(holdout.label, _by_seed(run, scores), bins)
        comparisons.append(
            _compare(pair["tuned"], pair["default"], components["tuned"], components["default"])
        )
        if model != leader.model:
            better = min(pair.values(), key=lambda run: run.rank)
            comparisons.append(_compare(leader, better, leading, components[better.variant]))
    bayes = _bayes(holdout)
    _add_relative(results, bayes)
    report = {
        "dataset": dataset,
        "origin": holdout.origin,
        "rows": len(holdout.label),
        "copies": holdout.copies,
        "base_rate": float(holdout.label.mean()),
        "bayes": bayes,
        "results": results,
        "comparisons": comparisons,
        "mechanisms": mechanisms.summarise(runs),
        "champion": {
            "model": leader.model,
            "variant": leader.variant,
            "seed": seed,
            "key": leader.info["key"],
        },
    }
    return report, curves


def champion(runs: Sequence[Run]) -> tuple[Run, int]:
    """Return the run with the best validation AUC (mean over seeds) and its best seed on validation."""
    run = min(runs, key=lambda run: run.rank)
    best = min(run.seeds, key=lambda r: (-r["best"]["valid_auc"], r["best"]["valid_logloss"], r["seed"]))
    return run, int(best["seed"])


def measure(label: Array, probability: Array, group: Array | None, bins: int) -> dict[str, float]:
    """Return the metrics of one prediction; `gauc` only if some group has both classes."""
    values = {
        "auc": metrics.auc(label, probability),
        "logloss": metrics.logloss(label, probability),
        "normalised_entropy": metrics.normalised_entropy(label, probability),
        "ece": metrics.calibration_error(label, probability, bins),
    }
    if group is not None:
        values["gauc"] = metrics.group_auc(label, probability, group)
    return {key: value for key, value in values.items() if not math.isnan(value)}


def reliability(label: Array, probability: Array, bins: int) -> tuple[Array, Array]:
    """Return mean probability and share of positives in each of `bins` bins of equally many rows."""
    order = np.argsort(probability, kind="stable")
    p = np.array_split(probability[order].astype(np.float64), min(bins, len(order)))
    y = np.array_split(label[order].astype(np.float64), min(bins, len(order)))
    return np.array([part.mean() for part in p]), np.array([part.mean() for part in y])


def roc(label: Array, score: Array, grid: Array = GRID) -> Array:
    """Return the true positive rate at each false positive rate of `grid`; ties give a sloped line."""
    order = np.argsort(-score, kind="stable")
    ranked, positive = score[order], label[order] > 0.5
    ends = np.r_[np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1]
    hits, false_alarms = np.cumsum(positive)[ends], np.cumsum(~positive)[ends]
    return np.interp(grid, np.r_[0, false_alarms / false_alarms[-1]], np.r_[0, hits / hits[-1]])


def _result(run: Run, scores: Scores, holdout: Holdout, bins: int, error: float) -> Block:
    """The entry of `results`: every metric seed by seed, their mean and standard deviation."""
    seeds = [
        {"seed": seed, **measure(holdout.label, scores[run.variant, seed], holdout.group, bins)}
        for seed in (result["seed"] for result in run.seeds)
    ]
    columns = {key: [row[key] for row in seeds] for key in seeds[0] if key != "seed"}
    std = {key: float(np.std(values, ddof=1)) for key, values in columns.items()} if len(seeds) > 1 else None
    return {
        "model": run.model,
        "variant": run.variant,
        "key": run.info["key"],
        "weights": run.info["weights"],
        "trials": len(run.info.get("search", {}).get("trials", [])),
        "valid_auc": run.valid("auc"),
        "valid_logloss": run.valid("logloss"),
        "seeds": seeds,
        "mean": {key: float(np.mean(values)) for key, values in columns.items()},
        "std": std,
        "auc_standard_error": error,
    }


def _add_relative(results: list[Block], bayes: dict[str, float] | None) -> None:
    """Add RelaImpr over the baseline and, for generated data, the share of the learnable AUC."""
    base = {r["variant"]: r["mean"]["auc"] for r in results if r["model"] == BASELINE}
    for result in results:
        auc = result["mean"]["auc"]
        gain = metrics.relative_improvement(auc, base.get(result["variant"], float("nan")))
        result["relaimpr"] = None if math.isnan(gain) else gain
        if bayes is not None:
            result["learned"] = (auc - 0.5) / (bayes["auc"] - 0.5)


def _bayes(holdout: Holdout) -> dict[str, float] | None:
    """What the true click probabilities reach on the test rows."""
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
    histogram = np.histogram(pooled, bins=HISTOGRAM_BINS, range=(0, 1))[0] / len(pooled)
    return Curves(np.mean([roc(label, s) for s in scores], axis=0), predicted, observed, histogram)


def _by_seed(run: Run, scores: Scores) -> list[Array]:
    return [scores[run.variant, result["seed"]] for result in run.seeds]
