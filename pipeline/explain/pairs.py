"""Which pairs of fields a model crosses: by its logit, which any model has, and by weights of its own."""

from collections.abc import Container
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from pipeline.common.permutation import permutation
from pipeline.data.batches import Split
from pipeline.explain.mixing import Together, logits_of, mixed, units
from pipeline.layers.neighbours import MEMORY
from pipeline.layers.pairs import Pairs
from pipeline.metrics import Array
from pipeline.train.mechanisms import observed

if TYPE_CHECKING:
    import pandas as pd


def pairs(
    network: nn.Module,
    rows: Split,
    *,
    together: Together = (),
    among: Container[str] | None = None,
    seed: int = 1,
) -> "pd.DataFrame":
    """Return how strongly a model crosses each pair of fields, the strongest first; no labels are needed.

    `interaction` is measured by double differences of the logit f, with a, b of a row and a', b' of another:
    sqrt(E[(f(a, b) - f(a', b) - f(a, b') + f(a', b'))^2] / 4), in logits. Of a logit that is a sum of effects
    of independent fields it is the standard deviation of those that contain both, of whatever order, and 0 if
    f is additive in them: the root of the superset importance of Liu and Owen, "Estimating Mean
    Dimensionality of Analysis of Variance Decompositions", JASA 101, 2006. (Friedman and Popescu's H,
    "Predictive Learning via Rule Ensembles", Annals of Applied Statistics 2, 2008, divides by what the pair
    has in all, and so makes much of pairs that do little.) It takes 1 + F + F (F - 1) / 2 passes over the
    rows.

    What it is not: a field may carry the cross of another that it determines, as a user's id that of his age.

    Args:
        network: a trained model.
        rows: in memory; see `spread`.
        together: fields that are one.
        among: names of the fields whose pairs are looked at (None: all).
        seed: of the permutation that pairs the rows.

    Returns:
        columns `first`, `second` and `interaction`, and one for each of `own_weights` (not with `together`).

    Raises:
        PipelineError: `together` names no field.
    """
    import pandas as pd

    every = units(network, rows.schema, together)
    parts = [part for part in every if among is None or part.name in among]
    other = torch.from_numpy(permutation(len(rows), seed)).to(rows.device)
    whole, alone = logits_of(network, rows), [logits_of(network, mixed(rows, other, part)) for part in parts]
    found = []
    for i, j in combinations(range(len(parts)), 2):
        both = logits_of(network, mixed(rows, other, parts[i], parts[j]))
        size = np.sqrt(np.mean(np.square(whole - alone[i] - alone[j] + both))) / 2
        found.append({"first": parts[i].name, "second": parts[j].name, "interaction": float(size)})
    table = pd.DataFrame(found, columns=["first", "second", "interaction"])
    if not together and len(every) == len(rows.schema.fields):  # with a time, they are not the model's pairs
        chosen = [part in parts for part in every]
        shown = [a and b for a, b in combinations(chosen, 2)]
        for name, weights in own_weights(network, rows).items():
            table[name] = weights[shown].astype(np.float64)
    return table.sort_values("interaction", ascending=False, kind="stable", ignore_index=True)


def own_weights(network: Any, rows: Split) -> dict[str, Array]:
    """Return what a model weighs its pairs with, mean over the rows, by name: each (P,), pairs as in `Pairs`.

    Attention of AFM and AutoInt (both directions), gates of FiiNet times the size of its w, r of FwFM, norms
    of FmFM's matrices. Nothing of a model without such weights, nor of one with neighbour fields.
    """
    fields, name = len(rows.schema.fields), type(network).__name__
    found: dict[str, Array] = {}
    if hasattr(network, MEMORY):
        return found
    if name == "FwFM":
        found = {"size of r": network.r.detach().abs().cpu().numpy()}
    elif name == "FmFM":
        found = {"norm of M": network.matrix.detach().norm(dim=(1, 2)).cpu().numpy()}
    elif name == "AFM":
        found = {"attention": observed(network, rows, len(rows))["attention"].mean(0)[:, 0]}
    elif name == "AutoInt":
        found = _both_ways(observed(network, rows, len(rows)), fields)
    elif name == "FiiNet":
        found = _gates(network.select, observed(network, rows, len(rows)))
    return found


def _both_ways(attention: dict[str, Array], fields: int) -> dict[str, Array]:
    """Attention of i to j plus that of j to i, mean over rows and heads, for each layer."""
    upper = Pairs(fields).upper.numpy()
    found = {}
    for number, weights in enumerate(attention.values(), 1):
        a = weights.mean((0, 1))
        found[f"attention, layer {number}"] = (a + a.T).reshape(-1)[upper]
    return found


def _gates(select: Any, values: dict[str, Array]) -> dict[str, Array]:
    """The size of each pair's w, times the mean weight of the channels that contain the pair."""
    if len(select.split[0].starts) != 1:  # the lowest order is no pair
        return {}
    w = select.split[0].weight.detach().abs().squeeze(1).cpu().numpy()
    weights = next(iter(values.values()), None)  # (N, orders, C) of attention, (N, C) of gates
    inside = getattr(select.bring[0], "inside", None)
    if weights is None or (inside is None and select.fusion != "concat"):
        return {"size of w": w}
    channels = weights.mean(0)[0] if weights.ndim == 3 else weights.mean(0)
    if inside is None:
        return {"attention": w * channels[: len(w)]}
    share = (inside / inside.sum(0)).cpu().numpy()  # of a pair in each channel
    return {"attention": w * (channels @ share)}
