"""What one row's logit is made of: the share of each field in its distance from the mean."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from pipeline.common.errors import PipelineError
from pipeline.common.permutation import permutation
from pipeline.data.batches import Split
from pipeline.explain.mixing import Together, logits_of, units

if TYPE_CHECKING:
    import pandas as pd

SAMPLES = 200


@dataclass(frozen=True)
class Explained:
    """A row's logit as a sum: `logit` = `mean` + the sum of `table.effect`.

    Attributes:
        logit: of the row.
        mean: of the other rows that were drawn.
        table: columns `field`; `effect`, in logits; `error`, its standard error by the draw; largest first.
    """

    logit: float
    mean: float
    table: "pd.DataFrame"


def effects(
    network: nn.Module,
    row: Split,
    others: Split,
    *,
    together: Together = (),
    samples: int = SAMPLES,
    seed: int = 1,
) -> Explained:
    """Explain the logit of one row by Shapley values of its fields; no labels are needed.

    Another row is turned into this one field by field, in a random order and in its reverse; a field's effect
    is the mean change of the logit when its turn comes. Sources: Strumbelj and Kononenko, "Explaining
    Prediction Models and Individual Predictions with Feature Contributions", Knowledge and Information
    Systems 41, 2014; Mitchell et al., "Sampling Permutations for Shapley Value Estimation", JMLR 23, 2022,
    for the reverse orders. It takes `samples` x (fields + 1) rows.

    What it is not: the effect of a change in the world. It says what the model makes of this row beside
    others, not what would happen if the field had another value; and rows on the way may be such as no log
    has.

    Args:
        network: a trained model.
        row: one row.
        others: rows to compare it with, such as any of the log, in memory.
        together: fields that change as one.
        samples: orders, half of them drawn; each drawn one has a row of `others`.
        seed: of the first order; the next has the next seed.

    Raises:
        PipelineError: `row` is not one row, there are no others, or `together` names no field.
    """
    import pandas as pd

    if len(row) != 1 or not len(others):
        raise PipelineError(
            f"{len(row)} rows beside {len(others)} others: give one row, and at least one other"
        )
    parts = units(network, row.schema, together)
    half, device = max(samples // 2, 1), row.device
    drawn = np.stack([permutation(len(parts), seed + i) for i in range(half)])
    order = np.stack([drawn, drawn[:, ::-1]], 1)  # (half, 2, U)
    start = np.resize(permutation(len(others), seed), half)
    rank = torch.from_numpy(np.argsort(order, 2)).to(device)  # when each unit's turn comes
    unit_of = torch.stack([part.columns for part in parts]).int().argmax(0).to(device)  # of each column (S,)
    step = torch.arange(len(parts) + 1, device=device)
    here = rank[..., None, :] < step[:, None]  # (half, 2, U + 1, U)
    begin = others.whole().rows(torch.from_numpy(start).to(device))
    ids = torch.where(here[..., unit_of], row.ids[0], begin.ids[:, None, None])
    time = None
    if row.time is not None and begin.time is not None:
        timed = torch.tensor([part.time for part in parts], device=device)
        time = torch.where((here & timed).any(-1), row.time[0], begin.time[:, None, None]).reshape(-1)
    ids = ids.reshape(-1, ids.shape[-1])
    path = Split(row.schema, ids, row.label.expand(len(ids)), time)
    logit = logits_of(network, path).reshape(half, 2, -1)
    change = np.empty(order.shape)
    np.put_along_axis(change, order, np.diff(logit), 2)
    each = change.mean(1)  # of a drawn order and its reverse (half, U)
    error = each.std(0, ddof=1) / np.sqrt(half) if half > 1 else np.full(len(parts), np.nan)
    table = pd.DataFrame(
        {"field": [part.name for part in parts], "effect": each.mean(0), "error": error}
    ).sort_values("effect", key=abs, ascending=False, kind="stable", ignore_index=True)
    return Explained(float(logit[..., -1].mean()), float(logit[..., 0].mean()), table)
