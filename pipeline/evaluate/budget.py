"""The report's account of the searches: what each cost, what it reached, which trainings were cut short."""

from collections.abc import Sequence
from typing import Any

from pipeline.common.text import counted, with_error
from pipeline.config.metric import NAMES
from pipeline.evaluate import variants
from pipeline.evaluate.runs import Run
from pipeline.statistics import chance

Block = dict[str, Any]


def counts(run: Run) -> dict[str, int]:
    """Return how many trials of a run came to their end, and how many of its trainings are capped."""
    trials = run.info.get("search", {}).get("trials", [])
    return {
        "completed": sum(trial["state"] == "COMPLETE" for trial in trials),
        "capped": sum(seed.get("capped", False) for seed in run.seeds),
    }


def summarise(runs: Sequence[Run]) -> list[Block]:
    """Return the budget of every search: its model and metric, its winner, and what run.json has of it.

    Args:
        runs: those without a search, or of older code, have no entry.
    """
    return [
        {
            "model": run.model,
            "metric": run.info["search"]["metric"],
            "winner": run.info["search"]["best"],
            "margin": run.info.get("tune", {}).get("margin", 0.0),
            "against_default": run.info["search"].get("against_default"),
            **run.info["search"]["budget"],
        }
        for run in runs
        if "budget" in run.info.get("search", {})
    ]


def table(found: Sequence[Block]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows: the expected best after 1, 2, 4, ... trials, and what was found in fact."""
    longest = max(len(search["expected"]) for search in found)
    draws = [n for n in (1, 2, 4, 8, 16, 32, 64) if n < longest] + [longest]
    header = ["model", "came to their end", "winner", "less the default, in the finals", "million rows"]
    header += [f"after {n}" for n in draws] + ["best trial"]
    rows = []
    for search in found:
        winner = "default" if search["winner"] == 0 else f"trial {search['winner']}"
        spent = (search["rows"][-1] + search["final_rows"]) / 1e6
        expected, best = search["expected"], search["best"][-1]
        rows.append(
            [
                search["model"],
                f"{search['completed']} of {search['trials']}",
                winner,
                _against_default(search.get("against_default"), search["winner"]),
                f"{spent:.1f}",
                *(f"{expected[n - 1]:.4f}" if n <= len(expected) else "" for n in draws),
                "" if best is None else f"{best:.4f}",
            ]
        )
    return header, rows


def _against_default(found: Block | None, winner: int) -> str:
    """Return the difference of the winner, or of the best of the others, which is named then."""
    if found is None:
        return ""
    who = "" if found["trial"] == winner else f" (trial {found['trial']})"
    return with_error(found["difference"], found["error"]) + who


def margins(report: Block) -> list[float]:
    """Return the margin of every search; none where all are of older code, whose finals asked for none."""
    return [search["margin"] for search in report.get("budget", [])]


def enough(margins: Sequence[float], error: str = "standard error") -> str:
    """Say what a gain over the default has to be larger than in the finals; nothing where any gain will do.

    >>> enough([1.0, 1.0]), enough([2.5], "error"), enough([0.0])
    ('its standard error', '2.5 of its errors', '')
    """
    match sorted(set(margins)):
        case [] | [0.0]:
            return ""
        case [1.0]:
            return f"its {error}"
        case [margin]:
            return f"{margin:g} of its {error}s"
        case _:
            return f"so many of its {error}s as `tune.margin` says"


def _rule(margins: Sequence[float]) -> str:
    """Say who wins the finals, by the margins of the searches."""
    if not (much := enough(margins)):
        return "and the best mean won (`tune.margin: 0`)."
    return (
        f"and of those whose gain over the default is larger than {much} (`±`, by validation rows and, if "
        f"there are several, seeds; none where a class has fewer than {chance.FEW} validation rows) the best "
        "mean won, else the default: with few clicks the best of some trials is the luckiest."
    )


def explanation(report: Block) -> str:
    """Explain the table, and name the models with trainings that `epochs` ended and not their patience."""
    metrics = {search["metric"] for search in report["budget"]}
    name = " and ".join(NAMES[metric] for metric in sorted(metrics))
    text = (
        "Every search had the same number of trials on one seed; its best trials and the default were then "
        f"trained on all seeds, {_rule(margins(report))} Rows are those of "
        "the train split times the epochs of "
        f"all trials and finals. *After n* is the expected best validation {name} of n trials drawn from "
        "those of the search (Dodge et al. 2019), as if they were drawn at random, pruned trials with the "
        "best that they had; *best trial* is what the search found. All of it is of validation data."
    )
    named = variants.named(report["results"], variants.kept_default(report))
    ended = [(result, variant) for result, variant in named if result["capped"]]
    capped = [f"{result['model']} ({variant}, {result['capped']})" for result, variant in ended]
    if capped:
        total = sum(result["capped"] for result, _ in ended)
        text += (
            f" **{counted(total, 'training')} ended at the last of `epochs` and not by patience, and might "
            f"have become better: {', '.join(capped)}.**"
        )
    return text
