"""From runs and stored predictions to the values of report.json.

Every metric is computed from the float32 probabilities in the Parquet files, so anyone can recompute it
exactly. Nothing is chosen on the test split: the champion, the better variant of a model and the calibrations
are decided by validation metrics.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from pipeline import metrics
from pipeline.evaluate import blend, budget, calibration, mechanisms, refits, seeds, slices
from pipeline.evaluate.calibration import Calibration, Validation, complaint
from pipeline.evaluate.predictions import Holdout, Key, Scores, read_predictions
from pipeline.evaluate.runs import Block, Run, better
from pipeline.metrics import Array
from pipeline.schema import Role
from pipeline.statistics.ranking import Ranking, reliability
from pipeline.statistics.significance import (
    LEVEL,
    Estimate,
    clusters,
    compare,
    error_by_counts,
    estimate_ranked,
    holm,
)

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
    dataset: str,
    runs: Sequence[Run],
    holdout: Holdout,
    predictions: dict[str, Path],
    validations: dict[str, dict[Key, Validation]],
    bins: int,
    negatives_kept: float = 1.0,
    blends: Sequence[str] = (),
    valids: dict[str, Path] | None = None,
    train_rows: Mapping[Role, Array] | None = None,
) -> tuple[Block, dict[Entry, Curves]]:
    """Compute every metric from the stored predictions.

    Args:
        runs: as `load_runs` returns them.
        predictions, validations: of each model the Parquet file, and what `write_predictions` returned.
        bins: of the calibration error and its plot.
        negatives_kept: of the dataset's entry.
        blends: models to blend with equal weights, if any.
        valids: of each model the Parquet file of validation rows, for blends.
        train_rows: of the user and the item of each test row; see `slices.train_rows`.

    Returns:
        the values of report.json, and what the plots draw for each model and variant.
    """
    label = holdout.label
    entropy = metrics.logloss(label, np.full(len(label), float(np.mean(label))))
    count = clusters(label, holdout.group)
    group = None if count is None else holdout.group
    leader, seed = champion(runs)
    results, curves, sliced, again = [], {}, [], []
    estimates: dict[Entry, Estimate] = {}
    for model, variants in groupby(runs, key=lambda run: run.model):
        pair = {run.variant: run for run in variants}
        scores = read_predictions(predictions[model])
        for variant, run in pair.items():
            by_seed = _by_seed(run, scores)
            valid = [validations[model][variant, result["seed"]] for result in run.seeds]
            settings = ([each.calibration for each in valid], holdout.group, bins, entropy)
            rankings, figures = _measured(label, by_seed, *settings)
            estimates[model, variant] = error = estimate_ranked(rankings, group)
            results.append(_result(run, figures, valid, error))
            curves[model, variant] = _curves(rankings, by_seed, bins)
            if refit := run.again:
                rankings, figures = _measured(label, _by_seed(refit, scores), *settings)
                again.append(refits.summarise(refit, figures, estimate_ranked(rankings, group), error))
        (best,) = better(list(pair.values()))
        of = slices.measure(label, _by_seed(best, scores), train_rows or {})
        sliced.append({"model": model, "variant": best.variant, "slices": of})
    comparisons = _comparisons(runs, leader, estimates)
    correct(comparisons)
    _add_distance(results, comparisons, leader)
    bayes = _bayes(holdout)
    _add_relative(results, next((run for run in better(runs) if run.model == BASELINE), None), bayes)
    report = {
        "dataset": dataset,
        "origin": holdout.origin,
        "rows": len(label),
        "copies": holdout.copies,
        "base_rate": float(label.mean()),
        "negatives_kept": negatives_kept,
        "splits": holdout.splits,
        "test_rows": rows_digest(holdout.row, label),
        "clusters": count,
        "gauc_coverage": (None if holdout.group is None else metrics.group_coverage(label, holdout.group)),
        "bayes": bayes,
        "results": results,
        "comparisons": comparisons,
        "slices": {"sizes": slices.describe(label, train_rows or {}), "results": sliced},
        "mechanisms": mechanisms.summarise(runs),
        "budget": budget.summarise(runs),
        "champion": {
            "model": leader.model,
            "variant": leader.variant,
            "seed": seed,
            "key": leader.info["key"],
            "metric": leader.metric,
            "valid_auc_error": _valid_error(leader, holdout.splits),
        },
    }
    if again:
        report["refits"] = again
    if blends:
        candidates = blend.members(runs, predictions, valids or {})
        leading = estimates[leader.model, leader.variant]
        report["blends"] = blend.summarise(candidates, blends, holdout, leading, group)
    return report, curves


def rows_digest(row: Array, label: Array) -> str:
    """Return a digest of test rows, by which two reports are seen to be of the same ones.

    Args:
        row: the number of each in the clean table, (N,) int64.
        label: 0 or 1, (N,) uint8.
    """
    return hashlib.sha256(row.tobytes() + label.tobytes()).hexdigest()[:16]


def champion(runs: Sequence[Run]) -> tuple[Run, int]:
    """Return the run with the best validation metric (mean over seeds) and its best seed on validation."""
    run = min(runs, key=lambda run: run.rank)
    return run, int(run.best_seed["seed"])


def correct(comparisons: list[Block]) -> None:
    """Add `p_holm`, corrected for all comparisons of the table; equal scores are no comparison."""
    tests = [comparison for comparison in comparisons if not same_scores(comparison)]
    for comparison in comparisons:
        comparison["p_holm"] = 1.0
    for comparison, p in zip(tests, holm([test["p"] for test in tests]), strict=True):
        comparison["p_holm"] = p


def same_scores(comparison: Block) -> bool:
    """Whether both sides predicted the same: a search that kept the default."""
    return bool(comparison["low"] == comparison["high"] == 0)


def is_close(report: Block, result: Block) -> bool:
    """Whether a model was compared with the champion and cannot be distinguished from it."""
    other = result["model"] != report["champion"]["model"]
    return bool(other and result["p_holm"] is not None and result["p_holm"] >= LEVEL)


def measure(
    ranking: Ranking,
    probability: Array,
    fitted: Calibration,
    group: Array | None,
    bins: int,
    entropy: float,
) -> dict[str, float]:
    """Return the metrics of one prediction (N,), `calibrated_*` of its calibrated probabilities.

    A metric that is not defined is left out: `gauc` if no group has both classes.

    Args:
        ranking: of the rows by `probability`.
        entropy: the logloss of the base rate, what normalised entropy is relative to.
    """
    label, calibrated = ranking.positive, calibration.apply(fitted, calibration.logit(probability))
    loss, calibrated_loss = metrics.logloss(label, probability), metrics.logloss(label, calibrated)
    values = {
        "auc": ranking.auc(),
        "logloss": loss,
        "normalised_entropy": loss / entropy,
        "ece": ranking.calibration_error(probability, bins),
        "mean_prediction_ratio": metrics.mean_prediction_ratio(label, probability),
        "calibrated_logloss": calibrated_loss,
        "calibrated_normalised_entropy": calibrated_loss / entropy,
        "calibrated_ece": ranking.calibration_error(calibrated, bins),
    }
    if group is not None:
        values["gauc"] = ranking.group_auc(group)
    return {key: value for key, value in values.items() if not math.isnan(value)}


def _measured(
    label: Array,
    scores: Sequence[Array],
    fitted: Sequence[Calibration],
    group: Array | None,
    bins: int,
    entropy: float,
) -> tuple[list[Ranking], list[dict[str, float]]]:
    """Return ranking and metrics of the predictions of each seed."""
    rankings = [Ranking.of(label, score) for score in scores]
    return rankings, [
        measure(ranking, score, each, group, bins, entropy)
        for ranking, score, each in zip(rankings, scores, fitted, strict=True)
    ]


def _result(run: Run, figures: list[dict[str, float]], valid: list[Validation], error: Estimate) -> Block:
    """The entry of `results`: every metric seed by seed, their mean and standard deviation."""
    return {
        "model": run.model,
        "variant": run.variant,
        "key": run.info["key"],
        "reads": run.reads,
        "weights": run.info["weights"],
        "trainings": run.info.get("trainings", 1),
        "trials": len(run.info.get("search", {}).get("trials", [])),
        "dead_networks": sorted({name for seed in run.seeds for name in seed.get("dead_networks", [])}),
        **budget.counts(run),
        "valid_auc": run.valid("auc"),
        "valid_logloss": run.valid("logloss"),
        **seeds.summarise(run, figures, error),
        "calibrations": [each.calibration for each in valid],
        "valid_normalised_entropy": float(np.mean([each.normalised_entropy for each in valid])),
        "valid_mean_prediction_ratio": float(np.mean([each.mean_prediction_ratio for each in valid])),
        "warning": complaint(valid),
    }


def _valid_error(run: Run, splits: Block | None) -> float | None:
    """Return the standard error of a run's validation AUC by its rows; None if they are not recorded."""
    if splits is None:
        return None
    rows, clicks = splits["valid"]["rows"], splits["valid"]["clicks"]
    return error_by_counts(run.valid("auc"), clicks, rows - clicks)


def _add_distance(results: list[Block], comparisons: list[Block], leader: Run) -> None:
    """Add `p` and `p_holm` of the comparison with the champion, where there is one."""
    first = {"model": leader.model, "variant": leader.variant}
    for result in results:
        entry = {"model": result["model"], "variant": result["variant"]}
        pair = next((c for c in comparisons if first in _sides(c) and entry in _sides(c)), None)
        for key in ("p", "p_holm"):
            result[key] = pair[key] if pair and entry != first else None


def _sides(comparison: Block) -> tuple[Block, Block]:
    return comparison["first"], comparison["second"]


def _add_relative(results: list[Block], baseline: Run | None, bayes: dict[str, float] | None) -> None:
    """Add RelaImpr over the baseline and, for generated data, the share of the learnable AUC.

    Args:
        baseline: the better variant of it on validation data, one for all rows: so that equal AUCs get equal
            figures.
    """
    key = (baseline.model, baseline.variant) if baseline else None
    base = next((r["mean"]["auc"] for r in results if (r["model"], r["variant"]) == key), float("nan"))
    for result in results:
        auc = result["mean"]["auc"]
        gain = metrics.relative_improvement(auc, base)
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


def _comparisons(runs: Sequence[Run], leader: Run, estimates: Mapping[Entry, Estimate]) -> list[Block]:
    """Return, model by model, its two variants compared, and the better one with the champion."""
    found = []
    for model, variants in groupby(runs, key=lambda run: run.model):
        pair = {run.variant: run for run in variants}
        error = {variant: estimates[model, variant] for variant in pair}
        found.append(_compare(pair["tuned"], pair["default"], error["tuned"], error["default"]))
        if model != leader.model:
            (best,) = better(list(pair.values()))
            leading = estimates[leader.model, leader.variant]
            found.append(_compare(leader, best, leading, error[best.variant]))
    return found


def _compare(first: Run, second: Run, a: Estimate, b: Estimate) -> Block:
    names = [{"model": run.model, "variant": run.variant} for run in (first, second)]
    return {"first": names[0], "second": names[1], **compare(a, b)}


def _curves(rankings: list[Ranking], scores: list[Array], bins: int) -> Curves:
    predicted, observed = reliability(rankings, bins)
    counts = [np.histogram(score, bins=HISTOGRAM_BINS, range=(0, 1))[0] for score in scores]
    histogram = np.sum(counts, axis=0) / sum(map(len, scores))
    return Curves(np.mean([each.roc(GRID) for each in rankings], axis=0), predicted, observed, histogram)


def _by_seed(run: Run, scores: Scores) -> list[Array]:
    return [scores[run.variant, result["seed"]] for result in run.seeds]
