"""Whether a model's mechanisms live: how much their weights vary, and what they are worth.

A mechanism is whatever a model weighs its parts with: attention, gates, masks, thresholds, experts. A model
passes it through a `layers.mechanism.Mechanism`; here hooks look at it, or put something in its place.
Kernels bypass the bodies of layers, so they are off meanwhile. Only validation rows are looked at.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline import metrics
from pipeline.data.batches import Split
from pipeline.layers import accelerated
from pipeline.layers.mechanism import Mechanism
from pipeline.layers.mlp import MLP
from pipeline.train.predict import logits

SAMPLE_ROWS = 4096  # the first of the validation split
BATCH_ROWS = 1024
DIGITS = 6  # of every figure
DEAD = 1e-6  # a standard deviation below it is none
DEAD_NETWORK = 1e-4  # that of a network's output over rows: .009 to .06 where it lives (synthetic log)
CURE = "try less L2 (network_l2, network_decay, embedding_l2; down to 0) or a larger embedding_std"
CURE_OF_NETWORKS = (
    "a penalty is too strong for so deep a network (lower `network_l2`, or take `network_decay` in its "
    "place), or it has hardly been trained"
)

Block = dict[str, Any]
Array = NDArray[np.float64]
Values = dict[str, Array]
Replace = Callable[[str, Mechanism, Tensor, Tensor | None], Tensor | None]


def mechanisms_of(model: nn.Module) -> dict[str, Mechanism]:
    """Return a model's mechanisms by their dotted names."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Mechanism)}


def observed(model: nn.Module, split: Split, rows: int = SAMPLE_ROWS) -> Values:
    """Return what passes through each mechanism, by dotted name: (rows, ...), or (1, ...) if not `per_row`.

    A weight that weighs nothing, such as that of an empty place of a history, is NaN.

    Args:
        split: its first `rows` are scored, in evaluation mode.
    """
    found: dict[str, list[Array]] = {}

    def note(name: str, mechanism: Mechanism, x: Tensor, used: Tensor | None) -> None:
        if mechanism.per_row or name not in found:
            values = x if used is None else x.masked_fill(~used, torch.nan)
            found.setdefault(name, []).append(values.double().cpu().numpy())

    with _hooked(model, note):
        scored = len(_scores(model, split, rows))
    for name, mechanism in mechanisms_of(model).items():
        calls = [len(values) for values in found.get(name, [])]
        assert sum(calls) >= (scored if mechanism.per_row else 1), f"{name} has rows {calls}: is it called?"
        assert len(calls) <= -(-scored // BATCH_ROWS), f"{name} is called twice: give each place its own"
    return {name: np.concatenate(parts)[:rows] for name, parts in found.items()}


def spread(values: Array) -> dict[str, float]:
    """Return how much the weights of a mechanism vary, each figure rounded to `DIGITS` digits.

    `mean`, `std`: over all rows and channels.
    `std_over_rows`: the standard deviation of each channel over the rows, averaged over the channels. Zero
        means that the weights do not depend on the row.
    `std_over_channels`: that of each row over its channels, averaged over the rows. Zero means that no part
        is weighed more than another.
    `share_of_zeros`: the share of weights that are exactly 0.

    Args:
        values: one of `observed`, (rows, ...); NaN does not count.
    """
    x = values.reshape(len(values), -1)
    is_used = ~np.isnan(x)
    x = x[is_used.any(1)][:, is_used.any(0)]  # rows and channels that weigh something
    if not x.size:
        x = np.zeros((1, 1))
    figures = {
        "mean": np.nanmean(x),
        "std": np.nanstd(x),
        "std_over_rows": np.nanstd(x, axis=0).mean(),
        "std_over_channels": np.nanstd(x, axis=1).mean(),
        "share_of_zeros": (x == 0).sum() / (~np.isnan(x)).sum(),
    }
    return {key: _rounded(value) for key, value in figures.items()}


def frozen(model: nn.Module, values: Values) -> AbstractContextManager[None]:
    """Let every mechanism return its mean over rows, channel by channel, so that it depends on no row.

    Args:
        values: of the rows to average over, from `observed`. A channel that none of them uses is 0.
    """
    counts = {name: (~np.isnan(x)).sum(0) for name, x in values.items()}
    means = {
        name: torch.from_numpy(np.nansum(x, 0) / np.maximum(counts[name], 1)) for name, x in values.items()
    }
    return _hooked(model, lambda name, _mechanism, x, _used: means[name].to(x).expand_as(x))


def removed(model: nn.Module) -> AbstractContextManager[None]:
    """Let every mechanism return its neutral value, see `layers.mechanism.Mechanism`."""
    return _hooked(model, lambda _name, mechanism, x, used: mechanism.removed(x, used))


def measure(model: nn.Module, valid: Split) -> Block | None:
    """Return what run.json says of the mechanisms of a trained model; None if it has none.

    Returns:
        `weights`: for each mechanism its kind, whether it is `per_row`, and its `spread` on the first
        `SAMPLE_ROWS` validation rows. `auc`: on all validation rows `with` the mechanisms, with all of them
        `frozen` at their means over that sample, and with all `removed`.
    """
    mechanisms = mechanisms_of(model)
    if not mechanisms:
        return None
    values = observed(model, valid)
    states: dict[str, Callable[[], AbstractContextManager[None]]] = {
        "with": accelerated.off,  # the same sums in all three
        "frozen": partial(frozen, model, values),
        "removed": partial(removed, model),
    }
    auc = {}
    for name, state in states.items():
        with state():
            score = _scores(model, valid)
        auc[name] = _rounded(metrics.auc(valid.label.cpu().numpy(), score))
    weights = {
        name: {"kind": mechanism.kind, "per_row": mechanism.per_row, **spread(values[name])}
        for name, mechanism in mechanisms.items()
    }
    return {"weights": weights, "auc": auc}


def dead_networks(model: nn.Module, valid: Split) -> list[str]:
    """Return the dotted names of the `MLP`s whose output is the same for every row of the sample.

    A penalty on deep networks can drive them there, and the rest of the model goes on without them: no figure
    of the model tells.
    """
    spreads: dict[str, float] = {}

    def note(name: str, _network: nn.Module, _args: tuple[Any, ...], x: Tensor) -> None:
        if x.ndim > 1 and len(x) > 1:  # a gate whose input is learnt reads no row, and is not dead
            over_rows = float(x.float().flatten(1).std(0, correction=0).mean())
            spreads[name] = max(over_rows, spreads.get(name, 0.0))

    networks = {name: each for name, each in model.named_modules() if isinstance(each, MLP) and len(each)}
    with accelerated.off(), ExitStack() as hooks:
        for name, network in networks.items():
            hooks.callback(network.register_forward_hook(partial(note, name)).remove)
        if networks:
            _scores(model, valid, SAMPLE_ROWS)
    return [name for name, over_rows in spreads.items() if over_rows < DEAD_NETWORK]


def remarks(measured: Block | None, networks: Sequence[str] = ()) -> list[str]:
    """Return a sentence for every mechanism that is dead, or that is the same for every row.

    Args:
        measured: from `measure`.
        networks: from `dead_networks`.
    """
    same = "its output is the same for every row"
    lines = [f"{name} (network) is dead: {same}; {CURE_OF_NETWORKS}" for name in networks]
    for name, weights in (measured or {"weights": {}})["weights"].items():
        constant = weights["per_row"] and weights["std_over_rows"] < DEAD
        if weights["std"] < DEAD:
            what = f"dead: every weight is {weights['mean']:g}, for every row and every part"
        elif constant:
            what = "dead: its weights are the same for every row"
        else:
            continue
        lines.append(f"{name} ({weights['kind']}) is {what}; {CURE}")
    return lines


@contextmanager
def _hooked(model: nn.Module, replace: Replace) -> Iterator[None]:
    """Call `replace(name, mechanism, weights, used)` at each mechanism; a tensor takes their place.

    Inside another such context the weights are those that the outer one put there.
    """

    def hook(name: str, module: nn.Module, args: tuple[Any, ...], x: Tensor) -> Tensor | None:
        assert isinstance(module, Mechanism)
        used = args[1] if len(args) > 1 else None
        return replace(name, module, x, used)

    with accelerated.off(), ExitStack() as hooks:
        for name, mechanism in mechanisms_of(model).items():
            hooks.callback(mechanism.register_forward_hook(partial(hook, name)).remove)
        yield


@torch.inference_mode()
def _scores(model: nn.Module, split: Split, rows: int | None = None) -> NDArray[np.float32]:
    """Return the logits of the first rows of a split, by this process alone, in evaluation mode."""
    was_training = model.training
    model.eval()
    n = -(-min(len(split), rows or len(split)) // BATCH_ROWS)
    found = [logits(model, batch).float().cpu().numpy() for batch in islice(split.batches(BATCH_ROWS), n)]
    model.train(was_training)
    return np.concatenate(found)[:rows]


def _rounded(value: float) -> float:
    return round(float(value), DIGITS)
