"""Finished trainings, so that none is computed twice.

The first trial of a search is the default configuration on the first seed, which `train` has trained
before; the winner's first seed is the trial that won; a stage that runs again after a change that
touches no bit of a training would train everything again. So each training that came to its end is
kept under a digest of all that decides its bits, and is taken from here the next time.

It is a cache: deleting it costs nothing but time, a damaged entry is computed again, and the least
recently used ones go when it is full. CTR_STORE=off does without it.
"""

import hashlib
import inspect
import json
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from pipeline import models
from pipeline.common.errors import PipelineError
from pipeline.common.files import canonical, digest, writing
from pipeline.models import MODELS
from pipeline.train import device as device_module
from pipeline.train import loop
from pipeline.train.checkpoint import State
from pipeline.train.code_digest import code_digest

Block = dict[str, Any]
FOLDER = Path("data/trainings")
LIMIT = 4 * 2**30  # bytes of all entries together
SEAL = 64  # hexadecimal digits


class Trained(NamedTuple):
    """What a training came to.

    Attributes:
        state: as `fit` returned it.
        tensors: the model's state_dict, on the CPU.
        weights: how many numbers were learnt.
    """

    state: State
    tensors: dict[str, Tensor]
    weights: int

    @classmethod
    def of(cls, network: nn.Module, state: State) -> "Trained":
        """Take what is to be kept from a model that was fitted."""
        tensors = {key: value.cpu().contiguous() for key, value in network.state_dict().items()}
        return cls(state, tensors, sum(p.numel() for p in network.parameters()))


def enabled() -> bool:
    """Whether trainings are kept: CTR_STORE=off switches it off.

    Processes that train one model together (torchrun) do without: each would decide for itself.

    Raises:
        PipelineError: CTR_STORE is neither `on` nor `off`.
    """
    value = os.environ.get("CTR_STORE", "on")
    if value not in ("on", "off"):
        raise PipelineError(f"CTR_STORE={value!r}: give it the value `off` or `on` (or none)")
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
    """Return the files that a training runs; what they import is followed."""
    own = Path(inspect.getfile(MODELS[architecture]))
    return *(Path(inspect.getfile(module)) for module in (loop, device_module, models)), own


def environment(architecture: str, device: torch.device) -> Block:
    """Return what decides the bits of a training besides its settings: code, libraries, machine."""
    cuda = device.type == "cuda"
    return {
        "code": code_digest(*code_of(architecture)),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "processor": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "device": torch.cuda.get_device_name(device) if cuda else device.type,
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "precision": torch.get_float32_matmul_precision(),
    }


def path_of(what: Block) -> Path:
    """Return where the training lies, or would lie, that `what` decides."""
    return FOLDER / f"{digest(what)}.safetensors"


def has(what: Block) -> bool:
    """Whether the training that `what` decides is kept; `find` may yet tell that it is damaged."""
    return enabled() and path_of(what).exists()


def get(what: Block) -> Trained | None:
    """Return the training that `what` decides; None where it is not kept, or damaged."""
    if not has(what):
        return None
    path = path_of(what)
    try:
        with safe_open(path, "pt") as file:
            told = file.metadata()["training"]
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  not a dict
        seal, text = told[:SEAL], told[SEAL:]
        if seal != _seal(text, tensors):
            raise ValueError("the seal is of another content")
        told = json.loads(text)
        trained = Trained(State(**told["state"]), tensors, told["weights"])
        os.utime(path)  # entries that are used stay
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        print(f"warning: {path} is damaged ({error}); the training runs again", file=sys.stderr)
        return None
    return trained


def put(what: Block, trained: Trained) -> None:
    """Keep a training that is done. That it cannot be kept, as on a full disk, stops nobody."""
    size = sum(tensor.nbytes for tensor in trained.tensors.values())
    if not enabled() or size > LIMIT:
        return
    # the rows of the curve in the order they had: who hears them again hears the same
    text = json.dumps({"of": what, "state": asdict(trained.state), "weights": trained.weights})
    # one entry: of several it would be chance which comes first in the file
    metadata = {"training": _seal(text, trained.tensors) + text}
    try:
        with writing(path_of(what)) as file:
            file.write(save(trained.tensors, metadata))
        _make_room()
    except OSError as error:
        print(f"warning: a finished training is not kept for later: {error}", file=sys.stderr)


def _seal(text: str, tensors: Mapping[str, Tensor]) -> str:
    total = hashlib.sha256(text.encode())
    for key, value in sorted(tensors.items()):
        total.update(canonical([key, str(value.dtype), list(value.shape)]).encode())
        total.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def _make_room() -> None:
    """Remove the least recently used entries until the rest is within the limit."""
    files = []
    for path in FOLDER.iterdir():
        try:
            found = path.stat()
        except FileNotFoundError:  # another process was quicker
            continue
        files.append((found.st_mtime_ns, found.st_size, path))
    left = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if left <= LIMIT:
            break
        path.unlink(missing_ok=True)
        left -= size
