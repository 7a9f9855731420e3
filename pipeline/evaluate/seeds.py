"""What a report says of the seeds of a run, or of its refit: figures, means, deviations, an interval."""

from collections.abc import Sequence

import numpy as np

from pipeline.evaluate.runs import Block, Run
from pipeline.statistics.significance import Estimate


def summarise(run: Run, figures: Sequence[dict[str, float]], error: Estimate) -> Block:
    """Return `seeds`, `mean`, `std` (None of a single seed), and error and interval of the AUC.

    Args:
        figures: metrics, seed by seed.
        error: of the AUC.
    """
    low, high = error.interval()
    columns = {key: [row[key] for row in figures] for key in figures[0]}
    several = len(figures) > 1
    return {
        "seeds": [{"seed": int(s["seed"]), **row} for s, row in zip(run.seeds, figures, strict=True)],
        "mean": {key: float(np.mean(values)) for key, values in columns.items()},
        "std": {key: float(np.std(values, ddof=1)) for key, values in columns.items()} if several else None,
        "auc_standard_error": error.error,
        "auc_low": low,
        "auc_high": high,
    }
