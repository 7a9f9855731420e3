"""A model's probabilities for the rows of a split, and their AUC and logloss."""

import math
from itertools import islice

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from pipeline import metrics
from pipeline.common.errors import PipelineError
from pipeline.data.batches import Batch, Split
from pipeline.layers.neighbours import memory_of
from pipeline.models import BASE_LOGIT
from pipeline.train import ranks
from pipeline.train.sharded import is_sharded

METRICS = ("auc", "logloss", "normalised_entropy", "mean_prediction")


def is_timed(model: nn.Module) -> bool:
    """Whether a model takes the time of a row besides its ids."""
    return bool(getattr(model, "timed", False))


def needs_times(model: nn.Module) -> bool:
    """Whether a model is `timed`, or has neighbour fields of what is earlier than the row."""
    memory = memory_of(model)
    return is_timed(model) or (memory is not None and memory.earlier)


def logits(model: nn.Module, batch: Batch) -> Float[Tensor, " B"]:
    """Return the model's logit for every row; a `timed` model gets the rows' times, too.

    Raises:
        PipelineError: the model is `timed`, and the rows have no times.
    """
    return output(model, *inputs(model, batch))


def output(model: nn.Module, *arguments: Tensor) -> Float[Tensor, " B"]:
    """Call a model and add its `base_logit`: see `train.base_rate`."""
    logit: Tensor = model(*arguments)
    return logit + base_logit(model)


def base_logit(model: nn.Module) -> Tensor | float:
    """Return the constant of a model that was built by its name or trained; of any other 0."""
    base: Tensor | float = getattr(model, BASE_LOGIT, 0.0)
    return base


def inputs(model: nn.Module, batch: Batch) -> list[Tensor]:
    """Return the arguments of the model's forward: the ids and, if it is `timed`, the rows' times.

    The memory behind neighbour fields is told the times, if they matter there.

    Raises:
        PipelineError: the model needs times, and the rows have none.
    """
    memory = memory_of(model)
    if memory is not None and memory.earlier:
        memory.moment = require_times(model, batch.time)
    return [batch.ids, require_times(model, batch.time)] if is_timed(model) else [batch.ids]


def require_times(model: nn.Module, time: Tensor | None) -> Tensor:
    """Return the times of the rows that a model needs.

    Raises:
        PipelineError: the rows have none.
    """
    if time is None:
        raise PipelineError(
            f"{type(model).__name__} needs timestamps, which this dataset does not have: remove the model "
            "from `models`, or declare a time column"
        )
    return time


@torch.inference_mode()
def predict(
    model: nn.Module, split: Split, *, batch_size: int | None = None, logit: bool = False
) -> Float[Tensor, " N"]:
    """Return the click probability of every row, in order, on the split's device.

    The model is in evaluation mode meanwhile. Inside `ranks.group` each rank scores its share of the
    rows, so all ranks must call it.

    Args:
        batch_size: rows at a time. None: 2048 per thread on a CPU, so that a layer's output stays in a core's
            cache; 8192 on other devices.
        logit: return its logit instead.
    """
    was_training = model.training
    model.eval()
    if batch_size is None:
        batch_size = 2048 * torch.get_num_threads() if split.device.type == "cpu" else 8192
    size = max(1, min(batch_size, -(-len(split) // ranks.count())))
    own = ranks.own_range(split.count(size))
    # a rank may have no batch of a tiny split; its empty result needs the same type
    dtype = torch.promote_types(torch.float32, next(model.parameters()).dtype)
    none = torch.empty(0, dtype=dtype, device=split.device)
    batches = islice(split.batches(size, skip=own.start), len(own))
    scores = (logits(model, batch) for batch in batches)
    found = torch.cat([none, *(score if logit else score.sigmoid() for score in scores)])
    if is_sharded(model) and len(own) * ranks.count() < split.count(size):
        logits(model, next(iter(split.batches(size))))  # the others have a batch more, and ask for rows here
    model.train(was_training)
    return ranks.concatenated(found)


def evaluate(model: nn.Module, split: Split) -> dict[str, float]:
    """Return AUC, logloss, normalised entropy and mean prediction over all rows of a split.

    On a GPU they are computed there, and only the results are copied back.
    """
    score = predict(model, split)
    if score.is_cuda:  # other accelerators may have no float64
        values = metrics_on_device(split.label.to(score.device), score).tolist()
        return dict(zip(METRICS, values, strict=True))
    label, probability = split.label.cpu().numpy(), score.cpu().numpy()
    return {
        "auc": metrics.auc(label, probability),
        "logloss": metrics.logloss(label, probability),
        "normalised_entropy": metrics.normalised_entropy(label, probability),
        "mean_prediction": float(probability.mean(dtype="float64")),
    }


def metrics_on_device(
    label: Float[Tensor, " N"] | UInt8[Tensor, " N"], probability: Float[Tensor, " N"]
) -> Float[Tensor, " 4"]:
    """Compute what `evaluate` returns on the device of the scores, without waiting for it.

    The AUC is a ratio of integers, so up to 2^27 rows it has the bits of `metrics.auc`; the logloss,
    summed in float64 in another order, may differ in the last bits. Every operation is
    deterministic on a GPU, too (see torch.use_deterministic_algorithms): positions in the sorted scores and
    sums, no `cumsum` or `bincount` of floats, no selection by a mask (its length would have to be awaited).

    Args:
        label: 0 and 1.
        probability: on the same device.

    Returns:
        the values of `METRICS`; AUC and normalised entropy are NaN with a single class, AUC with a NaN score.
    """
    positive = label > 0.5
    ranked, order = probability.sort()
    # rows below each row + rows not above it + 1 = twice its midrank
    twice_rank = torch.searchsorted(ranked, ranked) + torch.searchsorted(ranked, ranked, right=True) + 1
    p = positive.sum()
    n = len(label) - p
    twice_u = (twice_rank * positive[order]).sum() - p * (p + 1)
    auc = twice_u.double() / (2 * p * n).double()  # with one class 0 / 0
    y, q = label.double(), probability.double().clamp(metrics.EPSILON, 1 - metrics.EPSILON)
    logloss = -(y * q.log() + (1 - y) * torch.log1p(-q)).mean()
    rate = y.mean()
    entropy = -(torch.xlogy(rate, rate) + torch.xlogy(1 - rate, 1 - rate))
    auc = auc.masked_fill(ranked.isnan().any(), math.nan)
    return torch.stack([auc, logloss, logloss / entropy, probability.double().mean()])
