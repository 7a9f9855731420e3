"""What a training does beside its steps: evaluations, best weights, learning rate, checkpoints."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.common.errors import Diverged
from pipeline.data.batches import Split
from pipeline.train import ranks, sharded
from pipeline.train.adam import Adam
from pipeline.train.base_rate import BaseRate
from pipeline.train.checkpoint import State, load, save, usable
from pipeline.train.predict import evaluate
from pipeline.train.progress import progress_bar, summary
from pipeline.train.refit import Refit

LogFn = Callable[[dict[str, float], int], None]


class Course:
    """The course of one training, from its start or its last checkpoint to its best weights.

    Inside `ranks.group` every rank has one and calls it alike; decisions are those of rank 0.

    Args:
        model: what is evaluated and kept.
        learner: what is trained and saved: the model, and the thresholds of grades if there are any.
        optimizer: of the learner, at the first learning rate.
        base_rate: of the rows: what is evaluated and kept has it as its mean prediction.
        rows: trained on.
        batch_size: rows of a step.
        valid: evaluated on.
        settings: arguments of `loop.fit`; used here are epochs, patience, lr_patience, lr_factor, monitor and
            evaluations_per_epoch.
        log, checkpoint, progress, refit: as in `loop.fit`.

    Attributes:
        state: how far the training has come.
    """

    def __init__(
        self,
        model: nn.Module,
        learner: nn.Module,
        optimizer: Adam,
        base_rate: BaseRate,
        rows: Split,
        batch_size: int,
        valid: Split,
        settings: dict[str, Any],
        *,
        log: LogFn | None,
        checkpoint: Path | None,
        progress: str | None,
        refit: Refit | None,
    ) -> None:
        self.state = State()
        self._model, self._learner, self._optimizer, self._valid = model, learner, optimizer, valid
        self._settings, self._log, self._checkpoint, self._refit = settings, log, checkpoint, refit
        self._base_rate = base_rate
        self._rows, self._batch_size, self._batches = len(rows), batch_size, rows.count(batch_size)
        self._progress, self._bar = progress, progress_bar(None, 0, 0)
        self._best_weights: dict[str, Tensor] = {}
        self._first_lr, self._loss = optimizer.lr, _MeanLoss(rows.device)
        times = settings["evaluations_per_epoch"]
        self._evaluated = {round(self._batches * (i + 1) / times) for i in range(times)}

    def resume(self) -> bool:
        """Go on from the checkpoint and report the past again; return whether there was one."""
        path = self._checkpoint
        if path is None or not ranks.on_rank_0(lambda: usable(path)):
            return False
        self.state, self._best_weights = load(path, self._learner, self._optimizer)
        self._tables_follow()
        for past in self.state.curve:
            self._report(past)
        return True

    def __enter__(self) -> "Course":
        """Show the progress of the steps that follow."""
        done = self.state.epoch * self._rows + self.state.batch * self._batch_size
        self._bar = progress_bar(self._progress, self._settings["epochs"] * self._rows, done)
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def over(self) -> bool:
        """Whether the training has come to its end."""
        state, settings = self.state, self._settings
        if self._refit is not None:
            epoch = state.epoch + state.batch / self._batches
            return self._refit.over(epoch, settings["evaluations_per_epoch"])
        return bool(state.epoch >= settings["epochs"] or state.bad >= settings["patience"])

    def step(self, logloss: Tensor, weight: float, rows: int) -> bool:
        """Count a step, and evaluate if it is time; return whether the training is over.

        Args:
            logloss: mean over this rank's rows of the batch.
            weight: of these rows in it.
            rows: of the batch.
        """
        self._loss.add(logloss, weight, rows)
        self._bar.update(rows)
        self.state.step, self.state.batch = self.state.step + 1, self.state.batch + 1
        if self.state.batch not in self._evaluated:
            return False
        self._evaluate()
        return self.over()

    def end(self) -> State:
        """Leave the model with its best weights, in evaluation mode; return the result."""
        self._model.load_state_dict(self._best_weights)
        self._model.eval()
        return self.state

    def _evaluate(self) -> None:
        """Score the validation rows, keep the best weights, set the next rate and write the checkpoint."""
        state, optimizer, refit = self.state, self._optimizer, self._refit
        ranks.broadcast_buffers(self._model)
        epoch, train_logloss = state.epoch + state.batch / self._batches, self._loss.take()
        row = {"step": state.step, "epoch": epoch, "lr": optimizer.lr, "train_logloss": train_logloss}
        with optimizer.averaged(), self._base_rate.held(self._model):
            if refit is None:
                metrics = evaluate(self._model, self._valid)
                row |= {f"valid_{key}": value for key, value in metrics.items()}
            row = _finite(ranks.from_rank_0(row))
            improved = state.record(row, None if refit else self._settings["monitor"])
            if improved:
                self._best_weights = _copy(self._model)
        optimizer.lr = self._next_rate(improved=improved)
        self._tables_follow()
        if state.batch == self._batches:
            state.epoch, state.batch = state.epoch + 1, 0
        if self._checkpoint is not None:
            save(self._checkpoint, self._learner, optimizer, state, self._best_weights)
        self._bar.set_postfix_str(summary(state), refresh=False)
        self._report(row)

    def _next_rate(self, *, improved: bool) -> float:
        """Return the learning rate after an evaluation, the last of `state.curve`."""
        lr, state, settings = self._optimizer.lr, self.state, self._settings
        if self._refit is not None:
            return self._refit.lr(state.curve[-1]["epoch"], settings["evaluations_per_epoch"])
        if improved or state.lr_bad != settings["lr_patience"]:
            return lr
        state.lr_bad = 0
        return lr * float(settings["lr_factor"])

    def _tables_follow(self) -> None:
        """Let the rates of sharded tables fall with that of the rest."""
        sharded.follow(self._model, self._optimizer.lr / self._first_lr)

    def _report(self, row: dict[str, float]) -> None:
        ranks.on_rank_0(lambda: None if self._log is None else self._log(row, int(row["step"])))


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


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in model.state_dict().items()}
