"""The state of a training, and the file from which a killed training resumes."""

import hashlib
import io
import os
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

import torch
from torch import Tensor, nn

from pipeline.common.files import sha256
from pipeline.train import parts, ranks, sharded
from pipeline.train.adam import Adam

DIGEST_BYTES = 32  # at the end of a checkpoint


@dataclass
class State:
    """How far a training has come and, at the end, its result.

    Attributes:
        curve: one dict per evaluation: step, epoch, lr, train_logloss, and valid_<metric> for each metric of
            `predict.evaluate`.
        best: index in `curve` of the best evaluation; the model ends with its weights.
        epoch, batch, step: completed epochs, batches done in the current epoch, batches in total.
        bad, lr_bad: evaluations in a row without improvement, and such since the rate was last cut.
    """

    curve: list[dict[str, float]] = field(default_factory=list)
    best: int = -1
    epoch: int = 0
    batch: int = 0
    step: int = 0
    bad: int = 0
    lr_bad: int = 0

    def record(self, row: dict[str, float], monitor: Literal["auc", "logloss"] | None) -> bool:
        """Append an evaluation; return whether it is the best so far: without a `monitor`, the last one."""
        sign, key = (1, "valid_auc") if monitor == "auc" else (-1, "valid_logloss")
        best = self.best < 0 or monitor is None
        improved = best or sign * row[key] > sign * self.curve[self.best][key]
        self.curve.append(row)
        if improved:
            self.best, self.bad, self.lr_bad = len(self.curve) - 1, 0, 0
        else:
            self.bad, self.lr_bad = self.bad + 1, self.lr_bad + 1
        return improved


def save(
    path: Path, model: nn.Module, optimizer: Adam, state: State, best_weights: dict[str, Tensor]
) -> None:
    """Write everything that a training needs to resume with the same bits; rank 0 writes it.

    One with sharded tables is a safetensors file, since no process has all of it; one process can read it:
    weights by the names that the plain model has for them, after `model.` and, the best so far, `best.`.
    """
    rng = [torch.get_rng_state()]
    if torch.cuda.is_available():
        rng.append(torch.cuda.get_rng_state())
    rng = [generator for of_rank in ranks.gathered(rng) for generator in of_rank]
    rest: dict[str, Any] = {"optimizer": optimizer.state_dict(), "state": asdict(state), "rng": rng}
    tables = sharded.is_sharded(model)
    if ranks.rank() and not tables:
        return
    with parts.writing(path) as file:
        if tables:
            _save_parts(file, model, best_weights, rest)
        elif file is not None:
            torch.save({"model": model.state_dict(), "best_weights": best_weights, **rest}, file)
        if file is not None:
            file.flush()
            file.write(bytes.fromhex(sha256(Path(file.name))))


def _save_parts(
    file: IO[bytes] | None, learner: nn.Module, best_weights: dict[str, Tensor], rest: dict[str, Any]
) -> None:
    content = io.BytesIO()
    torch.save(rest, content)
    current = sharded.complete(learner, learner.state_dict())
    best = sharded.complete(_model(learner), best_weights)
    parts.write(
        file,
        {f"model.{name}": value for name, value in current.items()}
        | {f"best.{name}": value for name, value in best.items()}
        | {"rest": torch.frombuffer(content.getbuffer(), dtype=torch.uint8)},
        sha256=DIGEST_BYTES,
    )


def _model(learner: nn.Module) -> nn.Module:
    """Return the model of what is trained: itself, or the first of it and its thresholds (`grades`)."""
    return learner[0] if isinstance(learner, nn.ModuleList) else learner


def usable(path: Path) -> bool:
    """Whether a training can resume from a checkpoint; a damaged one is removed, with a warning.

    It ends with the SHA-256 of the rest: a flipped bit would load, as a weight like any other.
    """
    if not path.exists():
        return False
    try:
        with open(path, "rb") as file:
            left = file.seek(-DIGEST_BYTES, os.SEEK_END)
            recorded, found = file.read(), hashlib.sha256()
            file.seek(0)
            while left:
                data = file.read(min(left, 1 << 20))
                left -= len(data)
                found.update(data)
        whole = found.digest() == recorded
    except OSError:  # it is shorter than a digest, or cannot be read
        whole = False
    if not whole:
        print(f"warning: the checkpoint {path} was damaged; this training starts anew", file=sys.stderr)
        path.unlink()
    return whole


def load(path: Path, model: nn.Module, optimizer: Adam) -> tuple[State, dict[str, Tensor]]:
    """Restore model, optimizer and random generators; return the state and the best weights so far."""
    if sharded.is_sharded(model):
        from safetensors import safe_open  # a benchmark runs where torch alone is installed

        with safe_open(path, "pt") as file:
            rest = io.BytesIO(file.get_tensor("rest").numpy().tobytes())
            saved = torch.load(rest, map_location="cpu", weights_only=True)
            saved["model"] = sharded.own(model, file, "model.")
            saved["best_weights"] = sharded.own(_model(model), file, "best.")
    else:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    own = ranks.own_range(len(saved["rng"]))
    rng = saved["rng"][own.start : own.stop]
    torch.set_rng_state(rng[0])
    if torch.cuda.is_available() and len(rng) > 1:
        torch.cuda.set_rng_state(rng[1])
    return State(**saved["state"]), saved["best_weights"]
