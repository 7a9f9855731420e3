"""What comes before the first step: the size of a batch, L2 by the number of rows, `prepare`."""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import nn

from pipeline.common.errors import PipelineError
from pipeline.data.batches import Batch, Split
from pipeline.layers.neighbours import LENT, MEMORY, Neighbours
from pipeline.train import ranks
from pipeline.train.adam import L2Tables
from pipeline.train.checkpoint import State
from pipeline.train.predict import needs_times, require_times

LEAST_BATCH = 32


def effective_batch_size(rows: int, batch_size: int, min_steps_per_epoch: int) -> int:
    """Return how many rows a step has; see `loop.fit`."""
    if not min_steps_per_epoch:
        return batch_size
    return min(batch_size, max(LEAST_BATCH, rows // min_steps_per_epoch))


def check(train: Split, valid: Split, size: int) -> None:
    """Check that a model can be trained and evaluated on these rows, in steps of so many.

    Raises:
        PipelineError: it cannot.
    """
    positive = int(valid.label.count_nonzero())
    if not len(train) or not 0 < positive < len(valid):
        raise PipelineError(
            f"training needs rows (the train split has {len(train)}) and both classes in the validation "
            f"split (it has {positive} positive rows of {len(valid)}): change the split"
        )
    ranks.check(size)


class Penalties(NamedTuple):
    """What `parameter_groups` asks for beside a learner, in its order."""

    embedding_l2: float
    linear_l2: float
    network_l2: float
    network_decay: float


def check_l2(l2_tables: L2Tables, lazy: bool) -> None:
    """Check that the tables of a training can be penalised as asked.

    Raises:
        PipelineError: every row is to pay in every step, where only those of a batch are updated.
    """
    if lazy and l2_tables == "whole":
        raise PipelineError(
            "train.l2_tables: whole penalises every row in every step, and tables this large are lazy, which "
            "updates those of the batch alone: set `l2_tables: batch`, or a higher `lazy_rows`"
        )


def penalties(
    rows: int,
    embedding_l2: float,
    linear_l2: float | None,
    network_l2: float,
    network_decay: float,
    l2_rows: int,
) -> Penalties:
    """Return the penalties of `loop.fit` for so many train rows."""
    scale = l2_rows / rows if l2_rows else 1.0
    linear = embedding_l2 if linear_l2 is None else linear_l2
    return Penalties(scale * embedding_l2, scale * linear, scale * network_l2, scale * network_decay)


def prepare(
    model: nn.Module,
    train: Split,
    valid: Split,
    fit: Callable[..., State],
    *,
    rows: Split | None = None,
    **settings: Any,
) -> None:
    """Call the model's `prepare`, if it has one, with all train rows before the first gradient step.

    A model with neighbour fields first records who met what. `prepare` also gets a function that trains
    another model on these rows (FNN's factorization machine). What is learnt is part of the model's state,
    saved and loaded like any weight. The rows of a streamed split are in host memory, so the model learns
    from them there.

    Args:
        fit: the training loop.
        rows: what the model records and learns from in place of `train`, if these are more: another model is
            trained on `train` as ever, since it is `valid` that ends its training.
        settings: keyword arguments of `fit` for that other model.

    Raises:
        PipelineError: the model is `timed`, and the rows have no times.
    """
    rows = train if rows is None else rows
    if needs_times(model):
        require_times(model, rows.time)
    memory: Neighbours | None = getattr(model, MEMORY, None)
    if memory is not None:
        memory.to(rows.ids.device).remember(rows.whole(), rows.schema)
        model.to(rows.device)
    learn: Callable[[Batch, Callable[[nn.Module], State]], None] | None = getattr(model, "prepare", None)
    if learn is not None:
        model.to(rows.ids.device)

        def train_other(other: nn.Module) -> State:
            object.__setattr__(other, LENT, memory)  # no part of it
            return fit(other.to(train.device), train, valid, **settings)

        learn(rows.whole(), train_other)
        model.to(train.device)
