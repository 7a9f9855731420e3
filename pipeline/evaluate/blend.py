"""Blends: the mean of the logits of several trainings, over the seeds of a run and then over models.

`equal` are the models that params.yaml names, with equal weights. `greedy` takes, again and again, whichever
of all models makes the blend's validation logloss best, a model maybe several times (Caruana et al.,
"Ensemble Selection from Libraries of Models", ICML 2004). Of each model it is the variant that is better on
validation rows. Nothing is chosen on test rows. report.json has the keys of the runs in a blend, their seeds
and weights: all that a package of it needs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import special

from pipeline import metrics
from pipeline.common.files import digest
from pipeline.common.text import with_interval
from pipeline.evaluate import calibration
from pipeline.evaluate.predictions import Holdout, Scores, read_predictions
from pipeline.evaluate.runs import AGAIN, Block, Run, better
from pipeline.metrics import Array
from pipeline.statistics.significance import Estimate, compare, estimate

PICKS = 12  # of a greedy blend


@dataclass(frozen=True)
class Member:
    """A run with the mean over its seeds of its logits, of validation and of test rows.

    Attributes:
        again: those of test rows by the run's refit, if it has one.
    """

    run: Run
    valid: Array
    test: Array
    again: Array | None = None


def members(runs: Sequence[Run], tests: Mapping[str, Path], valids: Mapping[str, Path]) -> list[Member]:
    """Return one member for each model: its variant that is better on validation rows.

    Args:
        runs: as `load_runs` returns them.
        tests, valids: the files of each model's predictions.
    """
    found = []
    for run in better(runs):
        valid, test = (_logits(run, read_predictions(files[run.model])) for files in (valids, tests))
        refit = run.again
        again = None if refit is None else _logits(refit, read_predictions(tests[run.model]))
        found.append(Member(run, valid, test, again))
    return found


def greedy(candidates: Sequence[Array], label: Array) -> list[int]:
    """Return how often each candidate is taken, until none makes the logloss better.

    Args:
        candidates: logits (N,) of validation rows.
        label: of these rows.
    """
    counts, total, best = [0] * len(candidates), np.zeros(len(label)), np.inf
    for pick in range(1, PICKS + 1):
        losses = [metrics.logloss(label, _sigmoid((total + each) / pick)) for each in candidates]
        chosen = int(np.argmin(losses))
        if losses[chosen] >= best:
            break
        best, total = losses[chosen], total + candidates[chosen]
        counts[chosen] += 1
    return counts


def summarise(
    found: Sequence[Member], named: Sequence[str], holdout: Holdout, leading: Estimate, group: Array | None
) -> list[Block]:
    """Return the entries of `blends` in report.json.

    Args:
        named: models of the blend with equal weights.
        leading: of the champion, which every blend is compared with.
        group: the clusters of the test rows, if they have some.
    """
    label = holdout.valid.label.cpu().numpy()
    weights = {
        "equal": [int(member.run.model in named) for member in found],
        "greedy": greedy([member.valid for member in found], label),
    }
    blends = [_blend(kind, found, counts, label, holdout, leading, group) for kind, counts in weights.items()]
    again = [
        replace(each, run=refit, test=each.again)
        for each in found
        if each.again is not None and (refit := each.run.again)
    ]
    if len(again) == len(found):  # the same members with the same weights
        blends += [_blend(kind, again, n, label, holdout, leading, group) for kind, n in weights.items()]
    return blends


def table(blends: Sequence[Block]) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of the leaderboard's table."""
    rows = []
    for blend in blends:
        parts = ", ".join(
            f"{part['weight']} x {part['model']} ({part['variant']})" for part in blend["members"]
        )
        gap = with_interval(blend["against_champion"])
        rows.append(
            [
                blend["kind"],
                parts,
                blend["reads"],
                *(f"{blend[key]:.4f}" for key in ("auc", "logloss")),
                gap,
                "" if blend["valid_auc"] is None else f"{blend['valid_auc']:.4f}",
                str(blend["trainings"]),
                f"{blend['weights']:,}",
            ]
        )
    header = ["blend", "members", "reads", "AUC", "logloss", "minus the champion", "valid AUC"]
    return [*header, "trainings", "parameters"], rows


def explanation() -> str:
    """Explain the table."""
    return (
        "Means of logits, over all seeds of a run and then over runs: a row costs as many trainings as it "
        "says, in prediction, too. *Equal* are the models named beforehand (`evaluate.blend`), *greedy* is "
        "chosen among all on validation rows, by logloss and with repetition. Differences from the champion "
        "(mean over its seeds) with 95 % intervals, as above, not corrected. *+ valid*: the same members "
        "with the same weights, each trained again on train and validation rows."
    )


def _blend(
    kind: str,
    found: Sequence[Member],
    counts: Sequence[int],
    label: Array,
    holdout: Holdout,
    leading: Estimate,
    group: Array | None,
) -> Block:
    used = [(member, count) for member, count in zip(found, counts, strict=True) if count]
    valid, test = (
        _sigmoid(
            np.average([getattr(member, part) for member, _ in used], axis=0, weights=[n for _, n in used])
        )
        for part in ("valid", "test")
    )
    error = estimate(holdout.label, [test], group)
    low, high = error.interval()
    runs = [member.run for member, _ in used]
    refit = runs[0].refit
    return {
        "kind": f"{kind}{AGAIN if refit else ''}",
        "members": [
            {
                "model": member.run.model,
                "variant": member.run.variant,
                "key": member.run.info["key"],
                "seeds": [int(result["seed"]) for result in member.run.seeds],
                "weight": count,
            }
            for member, count in used
        ],
        "key": digest([kind, refit, [[member.run.info["key"], count] for member, count in used]]),
        "calibration": calibration.validate(label, valid).calibration,
        "reads": " + ".join(
            dict.fromkeys(word for run in runs for word in run.reads.removesuffix(AGAIN).split(" + "))
        )
        + (AGAIN if refit else ""),
        "trainings": sum((1 + refit) * len(run.seeds) * run.info.get("trainings", 1) for run in runs),
        "weights": sum(len(run.seeds) * run.info["weights"] for run in runs),
        "valid_auc": None if refit else metrics.auc(label, valid),
        "valid_logloss": None if refit else metrics.logloss(label, valid),
        "auc": metrics.auc(holdout.label, test),
        "logloss": metrics.logloss(holdout.label, test),
        "normalised_entropy": metrics.normalised_entropy(holdout.label, test),
        "auc_standard_error": error.error,
        "auc_low": low,
        "auc_high": high,
        "against_champion": compare(error, leading),
    }


def _logits(run: Run, scores: Scores) -> Array:
    each = [calibration.logit(scores[run.variant, result["seed"]]) for result in run.seeds]
    mean: Array = np.mean(each, axis=0)
    return mean


def _sigmoid(logit: Array) -> Array:
    probability: Array = special.expit(logit)
    return probability
