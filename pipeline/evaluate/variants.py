"""One row for both variants of a model where the search kept the default."""

from collections.abc import Container, Iterable, Iterator
from typing import Any

Block = dict[str, Any]


def kept_default(report: Block) -> set[str]:
    """Return the models whose search kept the default: both variants are the same to the last digit."""
    found = {(r["model"], r["variant"]): r["seeds"] for r in report["results"]}
    return {model for model, _ in found if found.get((model, "default")) == found.get((model, "tuned"))}


def named(results: Iterable[Block], kept: Container[str]) -> Iterator[tuple[Block, str]]:
    """Yield the rows of a table, each with what it calls the variant, without those that repeat another.

    Args:
        results: each with `model` and `variant`.
        kept: as `kept_default` returns it. Two equal rows say no more than one, and hide that they are equal.
    """
    for result in results:
        if result["model"] not in kept:
            yield result, result["variant"]
        elif result["variant"] == "default":
            yield result, "default = tuned"
