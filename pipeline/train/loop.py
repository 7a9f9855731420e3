"""The only training loop."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from annotated_types import Gt, Le
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from tqdm import tqdm

from pipeline.common.errors import Diverged, PipelineError
from pipeline.common.ranges import Count, CountOrZero, NonNegative, Positive, Seed
from pipeline.data.batches import Batch, Split
from pipeline.train import ranks
from pipeline.train.adam import Adam, clip, parameter_groups
from pipeline.train.checkpoint import State, load, save
from pipeline.train.predict import evaluate, is_timed, logits, require_times

LogFn = Callable[[dict[str, float], int], None]


def prepare(model: nn.Module, train: Split, valid: Split, **settings: Any) -> None:
    """Let a model that has a `prepare` learn what it needs before the first step of gradient descent.

    It is called with all train rows and a function that trains another model on them (FNN's
    machine); what it learns is part of its state, so it is saved and loaded like any weight. The rows
    of a streamed part lie in the host's memory, so there the model learns from them.

    Args:
        settings: of `fit`, for that other model.

    Raises:
        PipelineError: the model is `timed`, and the rows have no times.
    """
    if is_timed(model):
        require_times(model, train.time)
    learn: Callable[[Batch, Callable[[nn.Module], State]], None] | None = getattr(model, "prepare", None)
    if learn is not None:
        model.to(train.ids.device)
        learn(train.whole(), lambda other: fit(other.to(train.device), train, valid, **settings))
        model.to(train.device)


def fit(  # noqa: C901  the one loop, told in one place
    model: nn.Module,
    train: Split,
    valid: Split,
    *,
    seed: Seed,
    epochs: Count = 100,
    batch_size: Count = 1024,
    lr: Positive = 1e-3,
    embedding_l2: NonNegative = 0.0,
    network_l2: NonNegative = 0.0,
    clip_norm: NonNegative = 10.0,
    lazy_rows: Count = 100_000,
    precision: Literal["float32", "bfloat16"] = "float32",
    evaluations_per_epoch: Count = 1,
    monitor: Literal["auc", "logloss"] = "auc",
    lr_factor: Annotated[float, Gt(0), Le(1)] = 0.1,
    lr_patience: CountOrZero = 1,
    patience: Count = 2,
    log: LogFn | None = None,
    checkpoint: Path | None = None,
    progress: str | None = None,
) -> State:
    """Train `model` in place with Adam on the mean logloss.

    It ends with its best weights and in evaluation mode. Inside `parallel.group` all ranks call it alike
    and train one model together; `log` and `progress` are then those of rank 0, and what `log` raises
    ends the training on every rank.

    Args:
        model: on the same device as `train` and `valid`.
        seed: decides the order of the rows and the dropout; same seed, same bits on a machine.
        epochs: at most so many passes.
        lr: learning rate; multiplied by `lr_factor` when `lr_patience` evaluations in a row brought
            no gain (0 switches that off).
        embedding_l2, network_l2: see `optimizer.parameter_groups`.
        clip_norm: the gradient's norm is cut to this (0: never).
        lazy_rows: an embedding table of so many rows or more is trained row by row, as ids occur:
            see `optimizer.Adam`.
        precision: of the matrix products in training. Weights, gradients and every evaluation are
            float32 in any case; bfloat16 pays on processors and GPUs that have it.
        evaluations_per_epoch: how often the validation part is scored.
        monitor: what a gain is measured by on the validation part.
        patience: stop after so many evaluations in a row without a gain.
        log: called with (metrics, step) after every evaluation; what it raises ends the training.
            After a resume it is called again for the evaluations that were done before.
        checkpoint: file that a killed training goes on from, with the same result; written at every
            evaluation, and left for the caller to remove.
        progress: what to call this training in a progress bar; None for no bar.

    Raises:
        PipelineError: no row to train on, or a validation part without both classes.
        Diverged: the loss became infinite or not a number.
    """
    own = ("model", "train", "valid", "log", "checkpoint", "progress")
    settings = {key: value for key, value in locals().items() if key not in (*own, "own")}
    positive = int(valid.label.count_nonzero())
    if not len(train) or not 0 < positive < len(valid):
        raise PipelineError(
            f"training needs rows (the train part has {len(train)}) and both classes in the validation "
            f"part (it has {positive} positive rows of {len(valid)}): change the split"
        )
    ranks.check(batch_size)
    device = train.device
    optimizer = Adam(parameter_groups(model, embedding_l2, network_l2, lazy_rows), lr)
    torch.manual_seed(seed)
    if checkpoint is not None and ranks.agreed(checkpoint.exists()):
        state, best_weights = load(checkpoint, model, optimizer)
        for past in state.curve:
            _report(log, past)
    else:
        prepare(model, train, valid, **settings)
        torch.manual_seed(ranks.own_seed(seed))
        state, best_weights = State(), _copy(model)

    order = torch.Generator()
    batches = train.count(batch_size)
    marks = {round(batches * (i + 1) / evaluations_per_epoch) for i in range(evaluations_per_epoch)}
    parameters = list(model.parameters())
    loss_sum, rows = torch.zeros((), device=device), 0
    narrow = torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()
    done = state.epoch * len(train) + state.batch * batch_size
    model.train()
    with _bar(progress, epochs * len(train), done) as bar:
        while state.epoch < epochs and state.bad < patience:
            order.manual_seed(seed * 1_000_003 + state.epoch)
            for batch in train.batches(batch_size, order, skip=state.batch):
                share, weight = ranks.share(batch)
                with narrow:
                    score = logits(model, share)
                loss = binary_cross_entropy_with_logits(score.float(), share.label)
                optimizer.zero_grad()
                ranks.backward(model, loss, weight)
                if clip_norm:
                    clip(parameters, clip_norm)
                optimizer.step()
                loss_sum += loss.detach() * (weight * len(batch.label))
                rows += len(batch.label)
                state.step, state.batch = state.step + 1, state.batch + 1
                bar.update(len(batch.label))
                if state.batch not in marks:
                    continue

                ranks.share_buffers(model)
                row = {
                    "step": state.step,
                    "epoch": state.epoch + state.batch / batches,
                    "lr": optimizer.lr,
                    "train_logloss": ranks.total(loss_sum).item() / rows,
                    **{f"valid_{key}": value for key, value in evaluate(model, valid).items()},
                }
                row = ranks.agreed(row)
                loss_sum, rows = torch.zeros((), device=device), 0
                if not all(map(math.isfinite, row.values())):
                    raise Diverged(
                        " and ".join(key for key, value in row.items() if not math.isfinite(value))
                        + f" not a finite number at step {state.step}: try a lower lr"
                    )
                if state.record(row, monitor):
                    best_weights = _copy(model)
                elif state.lr_bad == lr_patience:
                    state.lr_bad = 0
                    optimizer.lr *= lr_factor
                if state.batch == batches:
                    state.epoch, state.batch = state.epoch + 1, 0
                if checkpoint is not None:
                    save(checkpoint, model, optimizer, state, best_weights)
                bar.set_postfix_str(_progress(state), refresh=False)
                _report(log, row)
                if state.bad >= patience or state.batch == 0:
                    break
    model.load_state_dict(best_weights)
    model.eval()
    return state


def _report(log: LogFn | None, row: dict[str, float]) -> None:
    ranks.first(lambda: None if log is None else log(row, int(row["step"])))


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in model.state_dict().items()}


def _bar(name: str | None, total: int, done: int) -> tqdm:
    """A bar on a terminal, nothing in a log file."""
    return tqdm(
        desc=name,
        total=total,
        initial=done,
        unit=" rows",
        unit_scale=True,
        dynamic_ncols=True,
        leave=False,
        disable=True if name is None else None,
    )


def _progress(state: State) -> str:
    last, best = state.curve[-1], state.curve[state.best]
    return (
        f"epoch {last['epoch']:g}, valid AUC {last['valid_auc']:.4f} "
        f"(best {best['valid_auc']:.4f} at {best['epoch']:g})"
    )
