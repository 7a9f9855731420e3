"""The training loop: batch, loss, step; now and then an evaluation on the validation split."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor, nn

from pipeline.common.errors import Diverged, PipelineError
from pipeline.common.ranges import Count, CountOrZero, NonNegative, Positive, Seed
from pipeline.data.batches import Split
from pipeline.layers.columns import column_of
from pipeline.train import ranks, sharded
from pipeline.train.adam import Adam, clip, mark_lazy, parameter_groups
from pipeline.train.checkpoint import State, load, save, usable
from pipeline.train.grades import Thresholds
from pipeline.train.loss import training_loss
from pipeline.train.predict import evaluate
from pipeline.train.progress import progress_bar, summary
from pipeline.train.refit import Refit
from pipeline.train.start import effective_batch_size, penalties, prepare, start_at_base_rate

LogFn = Callable[[dict[str, float], int], None]
# arguments of `fit` that another model, trained on the same rows before the first step, has of its own
NO_SETTINGS = ("model", "train", "valid", "log", "checkpoint", "progress", "refit")


def fit(
    model: nn.Module,
    train: Split,
    valid: Split,
    *,
    seed: Seed,
    epochs: Count = 100,
    batch_size: Count = 1024,
    min_steps_per_epoch: CountOrZero = 0,
    lr: Positive = 1e-3,
    embedding_l2: NonNegative = 0.0,
    linear_l2: NonNegative | None = None,
    network_l2: NonNegative = 0.0,
    l2_rows: CountOrZero = 0,
    clip_norm: NonNegative = 10.0,
    lazy_rows: Count = 100_000,
    precision: Literal["float32", "bfloat16"] = "float32",
    average_epochs: NonNegative = 0.0,
    grades: Annotated[float, Ge(0), Lt(1)] = 0.0,
    evaluations_per_epoch: Count = 1,
    monitor: Literal["auc", "logloss"] = "auc",
    lr_factor: Annotated[float, Gt(0), Le(1)] = 0.1,
    lr_patience: CountOrZero = 1,
    patience: Count = 2,
    log: LogFn | None = None,
    checkpoint: Path | None = None,
    progress: str | None = None,
    refit: Refit | None = None,
) -> State:
    """Train `model` in place with Adam on the mean logloss; it ends with its best weights, in eval mode.

    A model with a loss of its own is trained on that one: see `train/loss.py`.
    Inside `ranks.group` every rank calls it with the same arguments and all train one model together;
    `log` and `progress` are then those of rank 0, and an exception from `log` stops every rank.

    Args:
        model: on the same device as `train` and `valid`.
        seed: decides the order of the rows and the dropout; same seed, same bits on the same hardware.
        epochs: maximum number of passes over the train split.
        batch_size: rows a step; fewer, down to `LEAST_BATCH`, where an epoch would have less than
            `min_steps_per_epoch` steps: a small log needs as many steps as a large one.
        lr: learning rate; multiplied by `lr_factor` after `lr_patience` evaluations in a row without
            improvement (0 disables that).
        embedding_l2, linear_l2, network_l2: see `adam.parameter_groups`; linear_l2 None is embedding_l2.
        l2_rows: number of train rows that they are meant for; with N they are multiplied by l2_rows / N,
            so that they stay the same Gaussian prior on the weights (0: taken as they are).
        clip_norm: maximum norm of the gradient (0: no clipping).
        lazy_rows: with tables of at least this many rows, all of them are lazy: see `adam.Adam`.
        precision: of the matrix products in training. Weights, gradients and every evaluation are
            float32 in any case; bfloat16 pays on processors and GPUs that support it.
        average_epochs: time constant of the average of the weights that is evaluated and kept (0: the
            weights themselves); see `average.Average`.
        grades: share in the loss of the thresholds of the grade behind the label, where the log has one
            (0: the label alone); see `grades.Thresholds`.
        evaluations_per_epoch: how often the validation split is scored.
        monitor: the validation metric that counts as improvement.
        patience: stop after this many evaluations in a row without improvement.
        log: called with (metrics, step) after every evaluation, and again for the earlier ones after a
            resume; an exception from it stops the training.
        checkpoint: file from which a killed training resumes, with the same result; written at every
            evaluation, and left for the caller to remove. Ranks with sharded tables all read it.
        progress: label of the progress bar; None for no bar.
        refit: repeat a training on its rows in place of `train`: nothing is evaluated, and the last weights
            are kept.

    Raises:
        PipelineError: an empty train split, a validation split without both classes, or `grades` without any.
        Diverged: the loss became infinite or NaN.
    """
    settings = {key: value for key, value in locals().items() if key not in NO_SETTINGS}
    _check(train, valid)
    first, train = train, train if refit is None else refit.rows
    size = effective_batch_size(len(train), batch_size, min_steps_per_epoch)
    ranks.check(size)
    mark_lazy(model, train.schema.rows >= lazy_rows)
    batches = train.count(size)
    l2 = penalties(len(train), embedding_l2, linear_l2, network_l2, l2_rows)
    thresholds = Thresholds(train, grades) if grades else None
    learner = model if thresholds is None else nn.ModuleList([model, thresholds])
    optimizer = Adam(parameter_groups(learner, *l2), lr, average=average_epochs * batches)
    torch.manual_seed(seed)
    if checkpoint is not None and ranks.on_rank_0(lambda: usable(checkpoint)):
        state, best_weights = load(checkpoint, learner, optimizer)
        sharded.follow(model, optimizer.lr / lr)
        for past in state.curve:
            _report(log, past)
    else:
        prepare(model, first, valid, fit, rows=train, **settings)
        start_at_base_rate(model, train)
        torch.manual_seed(ranks.seed_of_rank(seed))
        state, best_weights = State(), _copy(model)

    order, parameters = torch.Generator(), list(learner.parameters())
    evaluated = {round(batches * (i + 1) / evaluations_per_epoch) for i in range(evaluations_per_epoch)}
    narrow = torch.autocast(train.device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()
    mean_loss = _MeanLoss(train.device)
    role = getattr(model, "grouped", None)
    grouped = None if role is None else column_of(train.schema, role)
    done = state.epoch * len(train) + state.batch * size
    bar = progress_bar(progress, epochs * len(train), done)

    def evaluation() -> None:
        nonlocal best_weights
        ranks.broadcast_buffers(model)
        epoch, train_logloss = state.epoch + state.batch / batches, mean_loss.take()
        row = {"step": state.step, "epoch": epoch, "lr": optimizer.lr, "train_logloss": train_logloss}
        with optimizer.averaged():
            if refit is None:
                row |= {f"valid_{key}": value for key, value in evaluate(model, valid).items()}
            row = _finite(ranks.from_rank_0(row))
            if improved := state.record(row, None if refit else monitor):
                best_weights = _copy(model)
        optimizer.lr = _next_rate(optimizer.lr, state, settings, refit, improved=improved)
        sharded.follow(model, optimizer.lr / lr)
        if state.batch == batches:
            state.epoch, state.batch = state.epoch + 1, 0
        if checkpoint is not None:
            save(checkpoint, learner, optimizer, state, best_weights)
        bar.set_postfix_str(summary(state), refresh=False)
        _report(log, row)

    model.train()
    with bar:
        while not _over(state, batches, settings, refit):
            order.manual_seed(seed * 1_000_003 + state.epoch)
            for batch in train.batches(size, order, skip=state.batch, grouped=grouped):
                share, weight = ranks.share(batch)  # all of it and 1, unless several processes train
                loss, logloss = training_loss(model, share, narrow, thresholds)
                optimizer.zero_grad()
                ranks.backward(learner, loss, weight)
                clip(parameters, clip_norm)
                optimizer.step()

                mean_loss.add(logloss, weight, len(batch.label))
                bar.update(len(batch.label))
                state.step, state.batch = state.step + 1, state.batch + 1
                if state.batch in evaluated:
                    evaluation()
                    if _over(state, batches, settings, refit):
                        break
    model.load_state_dict(best_weights)
    model.eval()
    return state


def _over(state: State, batches: int, settings: dict[str, Any], refit: Refit | None) -> bool:
    """Whether a training has come to its end; see `fit`."""
    if refit is not None:
        return refit.over(state.epoch + state.batch / batches, settings["evaluations_per_epoch"])
    return bool(state.epoch >= settings["epochs"] or state.bad >= settings["patience"])


def _next_rate(
    lr: float, state: State, settings: dict[str, Any], refit: Refit | None, *, improved: bool
) -> float:
    """Return the learning rate after an evaluation, the last of `state.curve`."""
    if refit is not None:
        return refit.lr(state.curve[-1]["epoch"], settings["evaluations_per_epoch"])
    if improved or state.lr_bad != settings["lr_patience"]:
        return lr
    state.lr_bad = 0
    return lr * float(settings["lr_factor"])


def _check(train: Split, valid: Split) -> None:
    positive = int(valid.label.count_nonzero())
    if not len(train) or not 0 < positive < len(valid):
        raise PipelineError(
            f"training needs rows (the train split has {len(train)}) and both classes in the validation "
            f"split (it has {positive} positive rows of {len(valid)}): change the split"
        )


class _MeanLoss:
    """Mean logloss over the rows since the last evaluation, summed on the device."""

    def __init__(self, device: torch.device) -> None:
        self._sum, self._rows = torch.zeros((), device=device), 0

    def add(self, logloss: Tensor, weight: float, rows: int) -> None:
        self._sum += logloss * (weight * rows)
        self._rows += rows

    def take(self) -> float:
        """Return the mean over all ranks and start again."""
        mean = ranks.total(self._sum).item() / self._rows
        self._sum, self._rows = torch.zeros_like(self._sum), 0
        return mean


def _finite(row: dict[str, float]) -> dict[str, float]:
    wrong = " and ".join(key for key, value in row.items() if not math.isfinite(value))
    if wrong:
        raise Diverged(f"{wrong} not a finite number at step {row['step']}: try a lower lr")
    return row


def _report(log: LogFn | None, row: dict[str, float]) -> None:
    ranks.on_rank_0(lambda: None if log is None else log(row, int(row["step"])))


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in model.state_dict().items()}
