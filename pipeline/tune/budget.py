"""What a search reached for what it spent: curves over trials and over rows trained.

Rows (passes over the train split times its rows) are the measure of cost that is the same in every execution.
"""

from collections.abc import Sequence
from typing import Any

from pipeline.config.metric import reached, sign
from pipeline.tune.finals import Finalist
from pipeline.tune.finished import Finished

Block = dict[str, Any]


def budget(trials: Sequence[Finished], finalists: Sequence[Finalist], metric: str, rows: int) -> Block:
    """Return the `budget` of a search in run.json.

    Args:
        rows: of the train split.

    Returns:
        trials: how many there were, and `completed`, how many of them came to their end.
        best: value of the best complete trial after 1, 2, ... trials, in their order; None before the first.
        expected: expected best of 1, 2, ... trials drawn from these: see `expected_best`.
        rows: train rows seen after 1, 2, ... trials; and `final_rows`, those of the finals on top, though
            trainings that both contain are trained once.
    """
    pick = max if sign(metric) > 0 else min
    best, spent, used = list[float | None](), list[int](), 0.0
    for trial in trials:
        found = [value for value in (*best[-1:], _value(trial)) if value is not None]
        best.append(pick(found, default=None))
        used += trial.curve[-1]["epoch"] if trial.curve else 0
        spent.append(round(used * rows))
    return {
        "trials": len(trials),
        "completed": sum(trial.state == "COMPLETE" for trial in trials),
        "best": best,
        "expected": expected_best(
            [reached(trial.value, trial.curve, metric) for trial in trials], maximise=sign(metric) > 0
        ),
        "rows": spent,
        "final_rows": round(sum(sum(finalist.epochs) for finalist in finalists) * rows),
    }


def expected_best(values: Sequence[float | None], *, maximise: bool) -> list[float]:
    """Return the expected best of n = 1, 2, ... draws with replacement from the values found.

    E[max of n] = sum_i v_i ((i / N)^n - ((i - 1) / N)^n) over the N values v_1 <= ... <= v_N. As if the
    trials were independent draws: a search that learns does better later, which `best` shows.

    Source: Dodge et al., "Show Your Work: Improved Reporting of Experimental Results", EMNLP 2019,
    https://arxiv.org/abs/1909.03004.

    Args:
        values: one for each trial, None where there is none (it diverged at once): as bad as the worst.
        maximise: whether more is better.
    """
    found = [value for value in values if value is not None]
    if not found:
        return []
    worst = (min if maximise else max)(found)
    ranked = sorted((worst if value is None else value for value in values), reverse=not maximise)
    count = len(ranked)
    return [
        sum(v * ((i / count) ** n - ((i - 1) / count) ** n) for i, v in enumerate(ranked, 1))
        for n in range(1, count + 1)
    ]


def _value(trial: Finished) -> float | None:
    return trial.value if trial.state == "COMPLETE" else None
