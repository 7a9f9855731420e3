"""A cache of finished trainings, so that none is computed twice.

The first trial of a search is the default configuration on the first seed, which `train` has trained
already; the winner's first seed is the winning trial; and a stage that runs again after a change that
affects no bit of a training would train everything again. So each finished training is kept under a digest
of everything that decides its bits.

Deleting the cache costs nothing but time, a damaged entry is computed again, and the least recently used
ones are removed when it is full. CTR_STORE=off disables it.
"""

import hashlib
import inspect
import json
import os
import platform
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from pipeline import models
from pipeline.common.errors import PipelineError
from pipeline.common.files import canonical, digest, writing
from pipeline.layers import accelerated
from pipeline.models import MODELS
from pipeline.train import device as device_module
from pipeline.train import loop
from pipeline.train.checkpoint import State
from pipeline.train.code_digest import code_digest

Block = dict[str, Any]
FOLDER = Path("data/trainings")
LIMIT_BYTES = 4 * 2**30  # of all entries together
CHECKSUM_DIGITS = 64


class Trained(NamedTuple):
    """The result of a training.

    Attributes:
        state: as `fit` returned it.
        tensors: the model's state_dict, on the CPU.
        weights: number of trained parameters.
        file: where the tensors are in place of `tensors`, if a model with sharded tables was trained.
        measured: of such a model, what `mechanisms.measure` returns.
    """

    state: State
    tensors: dict[str, Tensor]
    weights: int
    file: Path | None = None
    measured: Block | None = None

    @classmethod
    def of(cls, network: nn.Module, state: State) -> "Trained":
        """Collect the result of a model that was fitted."""
        tensors, seen = dict[str, Tensor](), set[int]()
        for key, value in network.state_dict().items():
            value = value.cpu().contiguous()
            place = value.untyped_storage().data_ptr()
            # a table under two names, a view of another one: safetensors writes no memory twice
            whole = value.nbytes == value.untyped_storage().nbytes()
            tensors[key] = value if whole and place not in seen else value.clone()
            seen.add(place)
        return cls(state, tensors, sum(p.numel() for p in network.parameters()))

    def write(self, file: IO[bytes]) -> None:
        """Write the tensors, as safetensors."""
        if self.file is None:
            file.write(save(self.tensors))
            return
        with open(self.file, "rb") as found:
            shutil.copyfileobj(found, file)


def enabled() -> bool:
    """Whether trainings are cached: CTR_STORE=off disables it.

    Processes that train one model together (torchrun) do without, since each would decide for itself.

    Raises:
        PipelineError: CTR_STORE is neither `on` nor `off`.
    """
    value = os.environ.get("CTR_STORE", "on")
    if value not in ("on", "off"):
        raise PipelineError(f"CTR_STORE={value!r}: must be `off` or `on` (or unset)")
    return value == "on" and int(os.environ.get("WORLD_SIZE", "1")) == 1


def key(architecture: str, params: Block, seed: int, rows: str, device: torch.device) -> Block:
    """Return everything that decides the bits of a training.

    Args:
        params: {"model": all arguments of the constructor, "train": all arguments of fit}.
        rows: digest of the encoded rows and their schema, whatever the dataset is called.
    """
    return {
        "architecture": architecture,
        "model": params["model"],
        "train": params["train"],
        "seed": seed,
        "rows": rows,
        **environment(architecture, device),
    }


def code_of(architecture: str) -> tuple[Path, ...]:
    """Return the files that a training runs; `code_digest` follows their imports."""
    own = Path(inspect.getfile(MODELS[architecture]))
    return *(Path(inspect.getfile(module)) for module in (loop, device_module, models)), own


def environment(architecture: str, device: torch.device) -> Block:
    """Return the environment fingerprint: what decides a training's bits besides its settings and rows."""
    cuda = device.type == "cuda"
    return {
        "code": code_digest(*code_of(architecture)),
        "class": MODELS[architecture].__name__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "processor": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "device": torch.cuda.get_device_name(device) if cuda else device.type,
        "kernels": accelerated.enabled(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "precision": torch.get_float32_matmul_precision(),
    }


def path_of(key: Block) -> Path:
    """Return the file of the training with this key, whether it exists or not."""
    return FOLDER / f"{digest(key)}.safetensors"


def contains(key: Block) -> bool:
    """Whether the training with this key is cached; `get` may still find it damaged."""
    return enabled() and path_of(key).exists()


def get(key: Block) -> Trained | None:
    """Return the training with this key; None if it is not cached, or damaged."""
    if not contains(key):
        return None
    path = path_of(key)
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata()["training"]
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dict
        checksum, text = metadata[:CHECKSUM_DIGITS], metadata[CHECKSUM_DIGITS:]
        if checksum != _checksum(text, tensors):
            raise ValueError("its checksum does not match its content")
        values = json.loads(text)
        trained = Trained(State(**values["state"]), tensors, values["weights"])
        os.utime(path)  # used now
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        print(f"warning: {path} is damaged ({error}); the training runs again", file=sys.stderr)
        return None
    return trained


def put(key: Block, trained: Trained) -> None:
    """Cache a finished training. A failure to write it (a full disk, say) is only a warning."""
    size = sum(tensor.nbytes for tensor in trained.tensors.values())
    if not enabled() or size > LIMIT_BYTES:
        return
    # the keys of each row keep their order, so that a replayed log sees the same
    text = json.dumps({"of": key, "state": asdict(trained.state), "weights": trained.weights})
    # a single metadata entry: the order of several in the file is random
    metadata = {"training": _checksum(text, trained.tensors) + text}
    try:
        with writing(path_of(key)) as file:
            file.write(save(trained.tensors, metadata))
        _evict()
    except (OSError, PipelineError) as error:  # also one of the folder's place
        print(f"warning: a finished training could not be cached: {error}", file=sys.stderr)


def _checksum(text: str, tensors: Mapping[str, Tensor]) -> str:
    total = hashlib.sha256(text.encode())
    for name, value in sorted(tensors.items()):
        total.update(canonical([name, str(value.dtype), list(value.shape)]).encode())
        total.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def _evict() -> None:
    """Remove the least recently used entries until the rest is within the limit."""
    files = []
    for path in FOLDER.iterdir():
        try:
            found = path.stat()
        except FileNotFoundError:  # another process removed it
            continue
        files.append((found.st_mtime_ns, found.st_size, path))
    left = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if left <= LIMIT_BYTES:
            break
        path.unlink(missing_ok=True)
        left -= size
