"""The report's table of mechanisms: how much the weights vary, and what they are worth."""

from collections.abc import Container, Sequence
from typing import Any

import numpy as np

from pipeline.evaluate import variants
from pipeline.evaluate.runs import Run
from pipeline.train.mechanisms import SAMPLE_ROWS

Block = dict[str, Any]
FIGURES = ("mean", "std", "std_over_rows", "std_over_channels", "share_of_zeros")
AUCS = ("with", "frozen", "removed")


def summarise(runs: Sequence[Run]) -> list[Block]:
    """Return the means over the seeds of what each run measured of its mechanisms, on validation rows.

    Args:
        runs: those without mechanisms, or of older code, have no entry.

    Returns:
        for each run its model and variant, the AUC `with` its mechanisms, with all of them `frozen` and
        with all `removed`, and for each mechanism its name, kind, `per_row` and the figures of its spread.
    """
    found = []
    for run in runs:
        seeds = [seed["mechanisms"] for seed in run.seeds if "mechanisms" in seed]
        if not seeds:
            continue
        weights = [
            {
                "name": name,
                "kind": first["kind"],
                "per_row": first["per_row"],
                **{key: _mean(seed["weights"][name][key] for seed in seeds) for key in FIGURES},
            }
            for name, first in seeds[0]["weights"].items()
        ]
        auc = {key: _mean(seed["auc"][key] for seed in seeds) for key in AUCS}
        found.append({"model": run.model, "variant": run.variant, "weights": weights, "auc": auc})
    return found


def table(found: Sequence[Block], kept: Container[str] = ()) -> tuple[list[str], list[list[str]]]:
    """Return header and rows: a row per mechanism, the AUC in the first of its model's.

    Args:
        kept: models whose search kept the default, which have one row for both variants.
    """
    header = ["model", "variant", "mechanism", "mean", "std over rows", "std over channels", "zeros"]
    header += [f"AUC {key}" for key in AUCS]
    rows = []
    for run, name in variants.named(found, kept):
        auc = [f"{run['auc'][key]:.4f}" for key in AUCS]
        for weights in run["weights"]:
            over_rows = f"{weights['std_over_rows']:.2g}" if weights["per_row"] else "-"
            rows.append(
                [
                    *(run["model"], name, f"{weights['name']} ({weights['kind']})"),
                    *(f"{weights['mean']:.3g}", over_rows, f"{weights['std_over_channels']:.2g}"),
                    *(f"{weights['share_of_zeros']:.0%}", *auc),
                ]
            )
            auc = [""] * len(AUCS)
    return header, rows


def explanation() -> str:
    """Explain the table in a paragraph."""
    return (
        "What each model weighs its parts with, on validation rows, mean over seeds. The spread is that on "
        f"the first {SAMPLE_ROWS:,} rows: the standard deviation of a channel over the rows, averaged over "
        "the channels (0: the same for every row; - where the equation has one weight for all rows), and "
        "that of a row over its channels (0: no part counts more than another). The AUC, on all validation "
        "rows and without training again, is that of the model as it is, with all its mechanisms frozen at "
        "their means over rows, and with all of them removed (factors 1, thresholds 0, attention uniform)."
    )


def _mean(values: Any) -> float:
    return float(np.mean(list(values)))
