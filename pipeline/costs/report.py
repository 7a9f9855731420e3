"""What was measured as Markdown and CSV: a row for each model, and which of them are worth their price."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from pipeline.common.text import counted
from pipeline.costs.measure import Cost

Block = dict[str, Any]
PRICES = {"training": "training, s", "scoring": "scoring, s per million rows", "parameters": "parameters"}


@dataclass(frozen=True)
class Row:
    """One model: its test AUC, and its prices in the units of `PRICES`."""

    model: str
    variant: str
    auc: float
    training: float
    scoring: float
    parameters: int


def rows(costs: Sequence[Cost], report: Block) -> list[Row]:
    """Join what was measured with the figures of report.json, the best test AUC first."""
    results = {(result["model"], result["variant"]): result for result in report["results"]}
    found = []
    for cost in costs:
        result = results[cost.run.model, cost.run.variant]
        price = (cost.training, 1e6 / cost.scoring, int(result["weights"]))
        found.append(Row(cost.run.model, cost.run.variant, float(result["mean"]["auc"]), *price))
    return sorted(found, key=lambda row: (-row.auc, row.model))


def front(found: Sequence[Row], price: str) -> list[Row]:
    """Return the rows that no other one beats in AUC for at most the same price, the cheapest first."""
    best, kept = float("-inf"), []
    for row in sorted(found, key=lambda row: (getattr(row, price), -row.auc)):
        if row.auc > best:
            best = row.auc
            kept.append(row)
    return kept


def to_csv(found: Sequence[Row]) -> str:
    """Return all digits."""
    return str(pd.DataFrame(found).to_csv(index=False))


def to_markdown(found: Sequence[Row], dataset: str, rounds: int, device: str) -> str:
    """Return the table, each price also as a multiple of the lowest, and how it was measured.

    Args:
        device: what it was measured on, in words.
    """
    lowest = {price: min(getattr(row, price) for row in found) for price in PRICES}
    fronts = {price: front(found, price) for price in PRICES}
    lines = [
        f"# {dataset}: what the models cost\n",
        f"| model | variant | AUC | {' | '.join(PRICES.values())} |",
        f"| --- | --- | ---: |{' ---: |' * len(PRICES)}",
    ]
    for row in found:
        prices = []
        for price in PRICES:
            text = f"{_shown(getattr(row, price))} ({getattr(row, price) / lowest[price]:.3g})"
            prices.append(f"**{text}**" if row in fronts[price] else text)
        lines.append(f"| {row.model} | {row.variant} | {row.auc:.4f} | {' | '.join(prices)} |")
    lines.append(
        f"\nEach model with its better variant on validation data, measured in turn on {device}, medians of "
        f"{counted(rounds, 'round')}. In brackets: times the lowest. **Bold**: no other model has a higher "
        "AUC for at most this price. *Training* is one training on one seed: as many steps and evaluations "
        "as it had, and what it learns before the first step. *Scoring* starts with ids in memory. AUC is "
        "that of the test rows, as in the leaderboard.\n"
    )
    return "\n".join(lines)


def _shown(value: float) -> str:
    """Return three digits of a number, all of them of a large one."""
    return f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"
