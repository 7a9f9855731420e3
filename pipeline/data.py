"""Encoded rows on their way to the model: memory map -> device -> batches."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pipeline.files import read_json
from pipeline.schema import Part, Schema


class Batch(NamedTuple):
    """B rows: ids into the table, labels 0.0 or 1.0, and seconds where the log has times."""

    ids: Int[Tensor, "B S"]
    label: Float[Tensor, " B"]
    time: Int[Tensor, " B"] | None = None


@dataclass(frozen=True)
class Split:
    """One part of a dataset, whole on one device."""

    schema: Schema
    ids: Int[Tensor, "N S"]
    label: Float[Tensor, " N"]
    time: Int[Tensor, " N"] | None = None

    @classmethod
    def load(cls, folder: Path, part: Part, device: torch.device | str = "cpu") -> "Split":
        """Read a part of a processed folder.

        That is `<part>.ids.npy` (N, S) int32, `<part>.label.npy` (N,) uint8 and, where the log has times,
        `<part>.time.npy` (N,) int64.
        """
        ids = np.load(folder / f"{part}.ids.npy", mmap_mode="r")
        label = np.load(folder / f"{part}.label.npy", mmap_mode="r")
        times = folder / f"{part}.time.npy"
        return cls(
            schema=Schema.from_json(read_json(folder / "schema.json")),
            ids=torch.from_numpy(np.array(ids)).to(device),
            label=torch.from_numpy(np.array(label)).to(device, torch.float32),
            time=torch.from_numpy(np.load(times)).to(device) if times.exists() else None,
        )

    def __len__(self) -> int:
        return len(self.label)

    def batches(
        self, size: int, generator: torch.Generator | None = None, *, skip: int = 0
    ) -> Iterator[Batch]:
        """Yield batches of `size` rows (the last may be smaller), leaving out the first `skip` ones.

        With a CPU `generator` the rows come in a random order that depends on the generator alone
        and not on the device. The permuted copy is made once, so a batch is a slice. A single row
        left over joins the batch before it: batch norm cannot train on one row.
        """
        ids, label, time = self.ids, self.label, self.time
        if generator is not None:
            order = torch.randperm(len(self), generator=generator).to(ids.device)
            ids, label = ids[order], label[order]
            time = None if time is None else time[order]
        count = self.count(size)
        for i in range(skip, count):
            end = (i + 1) * size if i + 1 < count else len(self)
            rows = slice(i * size, end)
            yield Batch(ids[rows], label[rows], None if time is None else time[rows])

    def count(self, size: int) -> int:
        """Number of batches of `size` rows."""
        whole, rest = divmod(len(self), size)
        return whole + (rest > (1 if whole else 0))
