"""The training loop: batch, loss, step; `evaluations_per_epoch` times an epoch the validation split."""

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt, Le, Lt
from torch import nn

from pipeline.common.ranges import Count, CountOrZero, NonNegative, Positive, Seed
from pipeline.data.batches import Split
from pipeline.layers.columns import column_of
from pipeline.train import ranks
from pipeline.train.adam import Adam, L2Tables, clip, mark_lazy, parameter_groups
from pipeline.train.base_rate import BaseRate
from pipeline.train.checkpoint import State
from pipeline.train.course import Course, LogFn
from pipeline.train.device import tiny_is_zero
from pipeline.train.grades import Thresholds
from pipeline.train.loss import training_loss
from pipeline.train.refit import Refit
from pipeline.train.start import check, check_l2, effective_batch_size, penalties, prepare

# arguments of `fit` that are not passed on where `prepare` trains another model (FNN's factorization machine)
NOT_PASSED_ON = ("model", "train", "valid", "log", "checkpoint", "progress", "refit")


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
    network_decay: NonNegative = 0.0,
    l2_rows: CountOrZero = 0,
    l2_tables: L2Tables = "batch",
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
    """Train `model` in place with Adam on the mean logloss; it then has its best weights, in eval mode.

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
        embedding_l2, linear_l2, network_l2, network_decay: see `adam.parameter_groups`; linear_l2 None is
            embedding_l2.
        l2_rows: number of train rows that these four were chosen for; with N they are multiplied by
            l2_rows / N, so that they stay the same Gaussian prior on the weights (0: taken as they are).
        l2_tables: which rows of a table pay its penalty in a step: those of the batch, for all the steps
            that they missed, or those of the whole table, as DeepCTR's and FuxiCTR's regularizers and
            torch's `weight_decay` have it. See `adam.parameter_groups`.
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
        PipelineError: an empty train split, a validation split without both classes, `grades` without any, or
            `l2_tables: whole` with lazy tables.
        Diverged: the loss became infinite or NaN.
    """
    # before anything else is a local
    settings = {key: value for key, value in locals().items() if key not in NOT_PASSED_ON}
    first, train = train, train if refit is None else refit.rows
    size = effective_batch_size(len(train), batch_size, min_steps_per_epoch)
    check(first, valid, size)
    mark_lazy(model, lazy := train.schema.rows >= lazy_rows)
    check_l2(l2_tables, lazy)
    l2 = penalties(len(train), embedding_l2, linear_l2, network_l2, network_decay, l2_rows)
    thresholds = Thresholds(train, grades) if grades else None
    learner = model if thresholds is None else nn.ModuleList([model, thresholds])
    groups = parameter_groups(learner, *l2, l2_tables=l2_tables)
    optimizer = Adam(groups, lr, average=average_epochs * train.count(size))
    shown: dict[str, Any] = {"log": log, "checkpoint": checkpoint, "progress": progress, "refit": refit}
    base_rate = BaseRate(train, len(valid))
    course = Course(model, learner, optimizer, base_rate, train, size, valid, settings, **shown)
    torch.manual_seed(seed)
    if not course.resume():
        prepare(model, first, valid, fit, rows=train, **settings)
        base_rate.start(model)
        torch.manual_seed(ranks.seed_of_rank(seed))

    order, parameters = torch.Generator(), list(learner.parameters())
    autocast = torch.autocast(train.device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()
    role = getattr(model, "grouped", None)
    grouped = None if role is None else column_of(train.schema, role)
    model.train()
    with course, tiny_is_zero():
        while not course.over():
            order.manual_seed(seed * 1_000_003 + course.state.epoch)
            for batch in train.batches(size, order, skip=course.state.batch, grouped=grouped):
                share, weight = ranks.share(batch)  # the whole batch and 1, unless several processes train
                loss, logloss = training_loss(model, share, autocast, thresholds)
                optimizer.zero_grad()
                ranks.backward(learner, loss, weight)
                clip(parameters, clip_norm)
                optimizer.step()
                if course.step(logloss, weight, len(batch.label)):  # which evaluates, if it is time
                    break
    return course.end()
