"""The only training loop, and prediction."""

import ctypes
import math
import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from tqdm import tqdm

from pipeline import metrics, parallel
from pipeline.data import Batch, Split
from pipeline.errors import Diverged, PipelineError
from pipeline.files import writing
from pipeline.optimizer import Adam, clip, parameter_groups

Log = Callable[[dict[str, float], int], None]


@dataclass
class State:
    """Where a training stands, and in the end what it arrived at.

    Attributes:
        curve: one dict per evaluation: step, epoch, lr, train_logloss, valid_auc, valid_logloss.
        best: index in `curve` of the best evaluation; the model ends with its weights.
        epoch, batch, step: whole epochs done, batches done in the current one, batches in all.
        bad, lr_bad: evaluations without a gain, in a row and since the rate was last cut.
    """

    curve: list[dict[str, float]] = field(default_factory=list)
    best: int = -1
    epoch: int = 0
    batch: int = 0
    step: int = 0
    bad: int = 0
    lr_bad: int = 0

    def record(self, row: dict[str, float], monitor: Literal["auc", "logloss"]) -> bool:
        """Append an evaluation; return whether it is the best so far."""
        sign, key = (1, "valid_auc") if monitor == "auc" else (-1, "valid_logloss")
        gain = self.best < 0 or sign * row[key] > sign * self.curve[self.best][key]
        self.curve.append(row)
        if gain:
            self.best, self.bad, self.lr_bad = len(self.curve) - 1, 0, 0
        else:
            self.bad, self.lr_bad = self.bad + 1, self.lr_bad + 1
        return gain


def pick_device(name: str = "auto") -> torch.device:
    """Return the device to train on: `auto` takes a GPU where there is one.

    Raises:
        PipelineError: the named device is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise PipelineError(f"device {name!r} cannot be used here: {reason}") from None
    return torch.device(name)


def reproducible(threads: int) -> None:
    """Make the same seed give the same bits: deterministic kernels, a fixed number of threads.

    Sums are split over threads, so their last bits depend on how many there are. The process also keeps
    the memory that it frees from now on.
    """
    torch.set_num_threads(threads)
    _keep_memory()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # what torch.use_deterministic_algorithms(True) sets, without the second that its imports take
    torch.set_deterministic_debug_mode("error")
    # new memory is written before it is read here: filling it with NaN would cost a tenth of a step
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def _keep_memory() -> None:
    """Let glibc keep what is freed: else every step of a large batch asks the system for fresh pages."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return
    trim_threshold, mmap_threshold = -1, -3  # as in malloc.h
    mallopt(trim_threshold, 2**30)
    mallopt(mmap_threshold, 2**25)  # its largest


def is_timed(model: nn.Module) -> bool:
    """Whether a model is told the time of a row besides its ids."""
    return bool(getattr(model, "timed", False))


def logits(model: nn.Module, batch: Batch) -> Float[Tensor, " B"]:
    """Return the model's logit of every row; a model that is `timed` is told the rows' times, too.

    Raises:
        PipelineError: such a model, and rows without times.
    """
    inputs = [batch.ids]
    if is_timed(model):
        inputs.append(_times(model, batch.time))
    result: Tensor = model(*inputs)
    return result


def _times(model: nn.Module, time: Tensor | None) -> Tensor:
    if time is None:
        raise PipelineError(
            f"{type(model).__name__} looks at what came before a row, and the rows of this dataset have no "
            "time: take the model off `models`, or give the dataset a time column"
        )
    return time


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
        _times(model, train.time)
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
    seed: int,
    epochs: int = 100,
    batch_size: int = 1024,
    lr: float = 1e-3,
    embedding_l2: float = 0.0,
    network_l2: float = 0.0,
    clip_norm: float = 10.0,
    lazy_rows: int = 100_000,
    precision: Literal["float32", "bfloat16"] = "float32",
    evaluations_per_epoch: int = 1,
    monitor: Literal["auc", "logloss"] = "auc",
    lr_factor: float = 0.1,
    lr_patience: int = 1,
    patience: int = 2,
    log: Log | None = None,
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
    parallel.check(batch_size)
    device = train.device
    optimizer = Adam(parameter_groups(model, embedding_l2, network_l2, lazy_rows), lr)
    torch.manual_seed(seed)
    if checkpoint is not None and parallel.agreed(checkpoint.exists()):
        state, best_weights = _load(checkpoint, model, optimizer)
        for past in state.curve:
            _tell(log, past)
    else:
        prepare(model, train, valid, **settings)
        torch.manual_seed(parallel.own_seed(seed))
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
                share, weight = parallel.share(batch)
                with narrow:
                    score = logits(model, share)
                loss = binary_cross_entropy_with_logits(score.float(), share.label)
                optimizer.zero_grad()
                parallel.backward(model, loss, weight)
                if clip_norm:
                    clip(parameters, clip_norm)
                optimizer.step()
                loss_sum += loss.detach() * (weight * len(batch.label))
                rows += len(batch.label)
                state.step, state.batch = state.step + 1, state.batch + 1
                bar.update(len(batch.label))
                if state.batch not in marks:
                    continue

                parallel.share_buffers(model)
                row = {
                    "step": state.step,
                    "epoch": state.epoch + state.batch / batches,
                    "lr": optimizer.lr,
                    "train_logloss": parallel.total(loss_sum).item() / rows,
                    **{f"valid_{key}": value for key, value in evaluate(model, valid).items()},
                }
                row = parallel.agreed(row)
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
                    _save(checkpoint, model, optimizer, state, best_weights)
                bar.set_postfix_str(_standing(state), refresh=False)
                _tell(log, row)
                if state.bad >= patience or state.batch == 0:
                    break
    model.load_state_dict(best_weights)
    model.eval()
    return state


@torch.inference_mode()
def predict(model: nn.Module, split: Split, *, batch_size: int | None = None) -> Float[Tensor, " N"]:
    """Return the click probability of every row, in order, on the split's device.

    Dropout is off and batch norm fixed meanwhile; the model's mode is what it was before. Inside
    `parallel.group` each rank scores its share of the rows, so all must call it.

    Args:
        batch_size: rows at a time. None: 2048 a thread, so that what a layer makes of them stays in a
            core's cache; 8192 on other devices than a CPU.
    """
    was_training = model.training
    model.eval()
    if batch_size is None:
        batch_size = 2048 * torch.get_num_threads() if split.device.type == "cpu" else 8192
    size = max(1, min(batch_size, -(-len(split) // parallel.ranks())))
    mine = parallel.part_of(split.count(size))
    # a rank may have no batch of a tiny part; its scores have a type all the same
    dtype = torch.promote_types(torch.float32, next(model.parameters()).dtype)
    none = torch.empty(0, dtype=dtype, device=split.device)
    batches = islice(split.batches(size, skip=mine.start), len(mine))
    probability = torch.cat([none, *(logits(model, batch).sigmoid() for batch in batches)])
    model.train(was_training)
    return parallel.joined(probability)


def evaluate(model: nn.Module, split: Split) -> dict[str, float]:
    """Return AUC and logloss over all rows of a part.

    Scores that are on a GPU stay there: what comes back are the two results.
    """
    score = predict(model, split)
    if score.is_cuda:  # other accelerators may have no float64
        auc, logloss = auc_and_logloss(split.label.to(score.device), score).tolist()
        return {"auc": auc, "logloss": logloss}
    label, probability = split.label.cpu().numpy(), score.cpu().numpy()
    return {
        "auc": metrics.auc(label, probability),
        "logloss": metrics.logloss(label, probability),
    }


def auc_and_logloss(
    label: Float[Tensor, " N"] | UInt8[Tensor, " N"], probability: Float[Tensor, " N"]
) -> Float[Tensor, " 2"]:
    """Compute `metrics.auc` and `metrics.logloss` where the rows are, without waiting for the device.

    The AUC is a ratio of integers, so up to 2^27 rows it has the bits of `metrics.auc`; the logloss,
    summed in float64 in another order, may differ in the last ones. Every operation gives the same result
    each time on a GPU, too (see torch.use_deterministic_algorithms): positions in the sorted scores and
    sums, no `cumsum` or `bincount` of floats, and no selection by a mask, whose length has to be awaited.

    Args:
        label: 0 and 1.
        probability: on the same device.

    Returns:
        AUC, NaN with one class only or where a score is no number; and logloss.
    """
    positive = label > 0.5
    ranked, order = probability.sort()
    # the rows below each row and those not above it: with one more, twice its mean rank among its equals
    twice_rank = torch.searchsorted(ranked, ranked) + torch.searchsorted(ranked, ranked, right=True) + 1
    p = positive.sum()
    n = len(label) - p
    twice_u = (twice_rank * positive[order]).sum() - p * (p + 1)
    auc = twice_u.double() / (2 * p * n).double()  # with one class 0 / 0
    y, q = label.double(), probability.double().clamp(metrics.EPSILON, 1 - metrics.EPSILON)
    logloss = -(y * q.log() + (1 - y) * torch.log1p(-q)).mean()
    return torch.stack([auc.masked_fill(ranked.isnan().any(), math.nan), logloss])


def _tell(log: Log | None, row: dict[str, float]) -> None:
    parallel.first(lambda: None if log is None else log(row, int(row["step"])))


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in model.state_dict().items()}


def _save(
    path: Path,
    model: nn.Module,
    optimizer: Adam,
    state: State,
    best_weights: dict[str, Tensor],
) -> None:
    rng = [torch.get_rng_state()]
    if torch.cuda.is_available():
        rng.append(torch.cuda.get_rng_state())
    rng = [generator for of_rank in parallel.every(rng) for generator in of_rank]
    if parallel.rank():
        return
    with writing(path) as file:
        torch.save(
            {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "state": asdict(state),
                "best_weights": best_weights,
                "rng": rng,
            },
            file,
        )


def _load(path: Path, model: nn.Module, optimizer: Adam) -> tuple[State, dict[str, Tensor]]:
    saved = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    mine = parallel.part_of(len(saved["rng"]))
    rng = saved["rng"][mine.start : mine.stop]
    torch.set_rng_state(rng[0])
    if torch.cuda.is_available() and len(rng) > 1:
        torch.cuda.set_rng_state(rng[1])
    return State(**saved["state"]), saved["best_weights"]


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


def _standing(state: State) -> str:
    last, best = state.curve[-1], state.curve[state.best]
    return (
        f"epoch {last['epoch']:g}, valid AUC {last['valid_auc']:.4f} "
        f"(best {best['valid_auc']:.4f} at {best['epoch']:g})"
    )
