"""The report's account of the searches: what each cost, what it reached, which trainings were cut short."""

from collections.abc import Sequence
from typing import Any

from pipeline.common.text import counted
from pipeline.evaluate.runs import Run

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
            "gain": run.info["search"].get("gain"),
            **run.info["search"]["budget"],
        }
        for run in runs
        if "budget" in run.info.get("search", {})
    ]


def table(found: Sequence[Block]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows: the expected best after 1, 2, 4, ... trials, and what was found in fact."""
    longest = max(len(search["expected"]) for search in found)
    draws = [n for n in (1, 2, 4, 8, 16, 32, 64) if n < longest] + [longest]
    header = ["model", "came to their end", "winner", "gain in the finals", "million rows"]
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
                _gain(search.get("gain"), search["winner"]),
                f"{spent:.1f}",
                *(f"{expected[n - 1]:.4f}" if n <= len(expected) else "" for n in draws),
                "" if best is None else f"{best:.4f}",
            ]
        )
    return header, rows


def _gain(found: Block | None, winner: int) -> str:
    """Return what the best of the other finalists has over the default, and which it is unless it won."""
    if found is None:
        return ""
    error = "" if found["error"] is None else f" ± {found['error']:.4f}"
    return f"{found['gain']:+.4f}{error}" + ("" if found["trial"] == winner else f" (trial {found['trial']})")


def explanation(report: Block) -> str:
    """Explain the table, and name the models with trainings that `epochs` ended and not their patience."""
    metrics = {search["metric"] for search in report["budget"]}
    name = "AUC" if metrics == {"auc"} else " and ".join(sorted(metrics))
    text = (
        "Every search had the same number of trials on one seed; its best trials and the default were then "
        "trained on all seeds, and the best mean won, if its gain over the default is larger than "
        "`tune.margin` standard errors (`±`, by validation rows and seeds): with few clicks the best of some "
        "trials is the luckiest. Rows are those of the train split times the epochs of "
        f"all trials and finals. *After n* is the expected best validation {name} of n trials drawn from "
        "those of the search (Dodge et al. 2019), as if they were drawn at random, pruned trials with the "
        "best that they had; *best trial* is what the search found. All of it is of validation data."
    )
    capped = [f"{r['model']} ({r['variant']}, {r['capped']})" for r in report["results"] if r["capped"]]
    if capped:
        total = sum(result["capped"] for result in report["results"])
        text += (
            f" **{counted(total, 'training')} ended at the last of `epochs` and not by patience, and might "
            f"have become better: {', '.join(capped)}.**"
        )
    return text
