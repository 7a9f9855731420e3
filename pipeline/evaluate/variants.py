"""One row for both variants of a model where the search kept the default."""

from collections.abc import Container
from typing import Any

Block = dict[str, Any]


def kept_default(report: Block) -> set[str]:
    """Return the models whose search kept the default: both variants are the same to the last digit."""
    found = {(r["model"], r["variant"]): r["seeds"] for r in report["results"]}
    return {model for model, _ in found if found.get((model, "default")) == found.get((model, "tuned"))}


def name(result: Block, kept: Container[str]) -> str | None:
    """Return what a table calls the variant of a row, or None for a row that only repeats the one above.

    Args:
        result: with `model` and `variant`.
        kept: as `kept_default` returns it. Two equal rows say no more than one, and hide that they are equal.
    """
    if result["model"] not in kept:
        return str(result["variant"])
    return "default = tuned" if result["variant"] == "default" else None
