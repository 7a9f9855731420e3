"""How much a model lives by each field: what its AUC loses when the field is shuffled among the rows."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.special import expit
from torch import nn

from pipeline import metrics
from pipeline.common.errors import PipelineError
from pipeline.common.permutation import permutation
from pipeline.data.batches import Split
from pipeline.explain.mixing import Together, logits_of, mixed, units
from pipeline.metrics import Array
from pipeline.statistics.significance import clusters, compare, estimate

if TYPE_CHECKING:
    import pandas as pd

SHUFFLES = 3


def importance(
    network: nn.Module,
    rows: Split,
    *,
    group: Any = None,
    together: Together = (),
    rate: float | None = None,
    shuffles: int = SHUFFLES,
    seed: int = 1,
) -> "pd.DataFrame":
    """Return the importance of each field on rows that training did not see, the largest first.

    Permutation importance (Breiman, "Random Forests", Machine Learning 45, 2001; Fisher, Rudin and Dominici,
    "All Models are Wrong, but Many are Useful", JMLR 20, 2019). The interval is that of two correlated AUCs
    (`statistics.significance`): for other rows, or users where there is a group, and other shuffles. It takes
    1 + shuffles x fields passes over the rows.

    What it is not: fields that say the same share their importance or hide each other's, and shuffled rows
    may be such as no log has (a city's user with another one's age). Name fields that belong together.

    Args:
        network: a trained model.
        rows: in memory, with labels; see `spread`.
        group: of each row (N,), whose rows are alike, such as its user.
        together: fields that are shuffled as one.
        rate: share of positive rows that the logloss is of, where the rows were drawn by their labels.
        shuffles: how many; the same ones for every field.
        seed: of the first; the next has the next seed.

    Returns:
        columns `field`; `auc_lost`, with the ends `low` and `high` of its 95 % interval; `logloss_rise`.

    Raises:
        PipelineError: the rows have fewer than two of a class, or `together` names no field.
    """
    import pandas as pd

    label = rows.label.cpu().numpy() > 0.5
    if min(label.sum(), (~label).sum()) < 2:
        raise PipelineError(
            f"{label.sum()} of {len(label)} rows are positive, but an AUC and its error need at least two "
            "rows of each class: give more rows, and their labels"
        )
    code = None if group is None else np.unique(np.asarray(group), return_inverse=True)[1]
    code = None if clusters(label, code) is None else code
    weight = np.where(label, rate / label.mean(), (1 - rate) / (~label).mean()) if rate else 1.0

    def logloss(logit: Array) -> float:
        return float(np.mean(weight * metrics.losses(label, expit(logit))))

    base = logits_of(network, rows)
    whole, before = estimate(label, [base], code), logloss(base)
    orders = [torch.from_numpy(permutation(len(label), seed + i)).to(rows.device) for i in range(shuffles)]
    found = []
    for unit in units(network, rows.schema, together):
        scores = [logits_of(network, mixed(rows, order, unit)) for order in orders]
        lost = compare(whole, estimate(label, scores, code))
        rise = float(np.mean([logloss(score) for score in scores])) - before
        ends = {key: lost[key] for key in ("low", "high")}
        found.append({"field": unit.name, "auc_lost": lost["difference"], **ends, "logloss_rise": rise})
    return pd.DataFrame(found).sort_values("auc_lost", ascending=False, kind="stable", ignore_index=True)
