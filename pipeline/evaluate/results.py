"""The entries of a report's `results`: the champion's, and their order in every table."""

from collections.abc import Iterable
from typing import Any

Block = dict[str, Any]


def leader(report: Block) -> Block:
    """Return the champion's entry."""
    chosen = report["champion"]["model"], report["champion"]["variant"]
    return next(r for r in report["results"] if (r["model"], r["variant"]) == chosen)


def ordered(results: Iterable[Block]) -> list[Block]:
    """Return entries by mean test AUC, best first; ties by name.

    Args:
        results: or `refits`.
    """
    return sorted(results, key=lambda r: (-r["mean"]["auc"], r["model"], r["variant"]))
