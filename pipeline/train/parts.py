"""Safetensors files of tensors whose rows several processes hold: rank 0 writes them, a block at a time.

So no process ever has a whole tensor in memory, and one process reads the file as any other of its kind
(`safetensors.torch.load_file`).

Format: https://github.com/huggingface/safetensors#format.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor

from pipeline.common import files
from pipeline.train import ranks

BLOCK_BYTES = 2**22
_TYPES = {
    torch.float64: "F64",
    torch.int64: "I64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@contextmanager
def writing(path: Path) -> Iterator[IO[bytes] | None]:
    """Open a file for writing on rank 0, where it appears when it is complete; None on the others."""
    if ranks.rank():
        yield None
        return
    with files.writing(path) as file:
        yield file


class Rows(NamedTuple):
    """A tensor (V, ...) whose rows are held by the ranks, in their order.

    Attributes:
        own: the rows of this rank.
        counts: how many each rank has.
    """

    own: Shaped[Tensor, "R ..."]
    counts: Sequence[int]


def write(file: IO[bytes] | None, tensors: Mapping[str, Tensor | Rows], **later: int) -> None:
    """Write tensors by their names; all ranks call it alike.

    Args:
        file: of rank 0; None on the others.
        tensors: a plain one is written as rank 0 has it.
        later: further tensors of so many bytes, at the end, which the caller appends.
    """
    names = sorted(tensors, key=lambda name: (-_own(tensors[name]).element_size(), name))  # aligned
    if file is not None:
        file.write(_header({name: tensors[name] for name in names}, later))
    for name in names:
        for block in _blocks(tensors[name]):
            if file is not None:
                file.write(block.reshape(-1).view(torch.uint8).numpy().data)


def _header(tensors: Mapping[str, Tensor | Rows], later: Mapping[str, int]) -> bytes:
    entries, end = {}, 0
    for name, tensor in tensors.items():
        own = _own(tensor)
        shape = [sum(tensor.counts), *own.shape[1:]] if isinstance(tensor, Rows) else list(own.shape)
        start, end = end, end + torch.Size(shape).numel() * own.element_size()
        entries[name] = {"dtype": _TYPES[own.dtype], "shape": shape, "data_offsets": [start, end]}
    for name, count in later.items():
        start, end = end, end + count
        entries[name] = {"dtype": "U8", "shape": [count], "data_offsets": [start, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _own(tensor: Tensor | Rows) -> Tensor:
    return tensor.own if isinstance(tensor, Rows) else tensor


def _blocks(tensor: Tensor | Rows) -> Iterator[Tensor]:
    """Yield what rank 0 writes, on rank 0; send it there on the others."""
    if not isinstance(tensor, Rows):
        yield tensor.detach().cpu().contiguous()
        return
    own, me = tensor.own.detach(), ranks.rank()
    step = max(1, BLOCK_BYTES // max(1, own[:1].nbytes or own.element_size() * own.shape[1:].numel()))
    for rank, count in enumerate(tensor.counts):
        for first in range(0, count, step):
            rows = min(step, count - first)
            if rank == me:
                block = own[first : first + rows].contiguous()
                if me:
                    dist.send(block, 0)
                else:
                    yield block
            elif me == 0:
                block = own.new_empty(rows, *own.shape[1:])
                dist.recv(block, rank)
                yield block
