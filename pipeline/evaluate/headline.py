"""The report in a sentence: who leads, how sure its AUC is, and from how many others it cannot be told."""

from typing import Any

from pipeline.common.text import counted
from pipeline.evaluate.report import is_close
from pipeline.evaluate.results import leader

Block = dict[str, Any]


def sentence(report: Block) -> str:
    """Name the champion with its test AUC, its standard error, and what can be said of the others."""
    best = leader(report)
    apart = distance(report)
    return (
        f"{best['model']} ({best['variant']}) is the champion, chosen on validation data: its test AUC is "
        f"{best['mean']['auc']:.4f} with a standard error of {best['auc_standard_error']:.4f}"
        f"{f'; {apart}' if apart else ''}."
    )


def distance(report: Block) -> str:
    """Say how many of the other models can, or cannot, be told from the champion; nothing if it is alone."""
    close, count = not_told_apart(report)
    if count < 2:
        return f"the other model can{'not' if close else ''} be told from it" if count else ""
    if close in (0, count):
        return f"{'none' if close else 'each'} of {counted(count, 'other model')} can be told from it"
    return f"{close} of {counted(count, 'other model')} cannot be told from it"


def not_told_apart(report: Block) -> tuple[int, int]:
    """Return how many other models cannot be told from the champion, and how many were compared with it."""
    best = report["champion"]["model"]
    others = [r for r in report["results"] if r["p_holm"] is not None and r["model"] != best]
    return sum(is_close(report, result) for result in others), len(others)
