"""Encoded rows on their way to the model: memory map -> device -> batches."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from pipeline.common.files import read_json, require_file
from pipeline.data.storage import open_array
from pipeline.schema import Schema, SplitName

# A longer part is streamed. A fixed number of rows, never what a machine has free: it decides the order.
ROWS_IN_MEMORY = 50_000_000
# Rows of a streamed part that are read in one go, and that are mixed with each other.
BLOCK, WINDOW = 2**10, 2**20


class Batch(NamedTuple):
    """B rows: ids into the table, labels 0.0 or 1.0, and seconds where the log has times."""

    ids: Int[Tensor, "B S"]
    label: Float[Tensor, " B"]
    time: Int[Tensor, " B"] | None = None

    def rows(self, index: slice | Tensor) -> "Batch":
        """Return some of the rows."""

        def pick(column: Tensor) -> Tensor:  # three times as fast as column[index]
            return column.index_select(0, index) if isinstance(index, Tensor) else column[index]

        return Batch(pick(self.ids), pick(self.label), None if self.time is None else pick(self.time))


@dataclass(frozen=True)
class Split:
    """One part of a dataset: whole on one device or, where it is too long for that, streamed to it.

    Attributes:
        schema: what the columns of ids mean.
        ids, label, time: the rows. Of a streamed part they are read-only views of the files; who reads
            them whole reads the files whole.
        stream_to: the device of a streamed part's batches; None where the part is whole on its device.
    """

    schema: Schema
    ids: Int[Tensor, "N S"]
    label: Float[Tensor, " N"] | UInt8[Tensor, " N"]
    time: Int[Tensor, " N"] | None = None
    stream_to: torch.device | None = None

    @classmethod
    def load(
        cls,
        folder: Path,
        part: SplitName,
        device: torch.device | str = "cpu",
        *,
        rows_in_memory: int = ROWS_IN_MEMORY,
    ) -> "Split":
        """Read a part of a processed folder, or open it if it has more than `rows_in_memory` rows.

        That is `<part>.ids.npy` (N, S) int32, `<part>.label.npy` (N,) uint8 and, where the log has times,
        `<part>.time.npy` (N,) int64.

        Raises:
            PipelineError: one of them is missing or damaged.
        """
        schema = Schema.from_json(read_json(require_file(folder / "schema.json", "split")))
        ids, label = (
            _tensor(require_file(folder / f"{part}.{what}.npy", "split")) for what in ("ids", "label")
        )
        times = folder / f"{part}.time.npy"
        time = _tensor(times) if times.exists() else None
        if len(label) > rows_in_memory:
            return cls(schema, ids, label, time, torch.device(device))
        return cls(
            schema=schema,
            ids=ids.to(device, copy=True),
            label=label.to(device, torch.float32),
            time=None if time is None else time.to(device, copy=True),
        )

    def __len__(self) -> int:
        return len(self.label)

    @property
    def device(self) -> torch.device:
        """Where the batches are."""
        return self.ids.device if self.stream_to is None else self.stream_to

    def whole(self) -> Batch:
        """Return all rows, a streamed part's as views of the files (only the labels are a copy)."""
        label = self.label if self.stream_to is None else self.label.float()
        return Batch(self.ids, label, self.time)

    def batches(
        self, size: int, generator: torch.Generator | None = None, *, skip: int = 0
    ) -> Iterator[Batch]:
        """Yield batches of `size` rows (the last may be smaller), leaving out the first `skip` ones.

        With a CPU `generator` the rows come in a random order that depends on the generator alone
        and not on the device. The permuted copy is made once, so a batch is a slice. A single row
        left over joins the batch before it: batch norm cannot train on one row.

        The order of a streamed part is random within bounds. Its blocks of BLOCK consecutive rows are
        shuffled, WINDOW rows of them are read at a time (it takes the memory of three windows) and
        permuted; windows with no row to come are not read. So every window draws from WINDOW / BLOCK =
        1024 places spread over the whole file, and a batch of B rows has about B * BLOCK / WINDOW rows of
        each place (one at B = 1024). In a file sorted by time or by user, where rows of a block are alike
        to the degree rho (their correlation), the mean of a batch has the variance of independent rows
        times 1 + rho * B * BLOCK / WINDOW: even with constant blocks at most twice that at B = 1024. What
        is lost against a full permutation: rows of one block meet again in the same window only.
        """
        left = len(self) - skip * size
        rest: Batch | None = None
        for window in self._windows(generator, skip * size):
            start = 0
            while left > 0:
                take = left if left <= size + (size > 1) else size
                end = start + take - (0 if rest is None else len(rest.label))
                batch = window.rows(slice(start, end))
                batch = batch if rest is None else _joined(rest, batch)
                if len(batch.label) < take:  # it goes on in the next window
                    rest = batch
                    break
                yield batch
                rest, start, left = None, end, left - take

    def _windows(self, generator: torch.Generator | None, start: int) -> Iterator[Batch]:
        """Yield the rows of an epoch from number `start` on: all at once, or window by window."""
        if self.stream_to is None:
            rows = self.whole()
            if generator is not None:
                order = torch.randperm(len(self), generator=generator)[start:]
                yield rows.rows(order.to(self.device))
            else:
                yield rows.rows(slice(start, None))
            return
        blocks = torch.arange(0, len(self), BLOCK)
        if generator is not None:
            blocks = blocks[torch.randperm(len(blocks), generator=generator)]
        windows = blocks.split(WINDOW // BLOCK)
        # a seed of its own for each window: one that is left out need not be permuted
        seeds = torch.randint(2**62, (len(windows),), generator=generator or torch.Generator())
        for window, seed in zip(windows, seeds.tolist(), strict=True):
            size = int(((window + BLOCK).clamp(max=len(self)) - window).sum())
            if start < size:
                order = torch.arange(size)
                if generator is not None:
                    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
                yield self._read(window.tolist()).rows(order[start:].to(self.device))
            start = max(start - size, 0)

    def _read(self, blocks: list[int]) -> Batch:
        """Read the blocks that begin at these rows, onto the device."""
        ids, label, time = (
            None if rows is None else torch.cat([rows[i : i + BLOCK] for i in blocks]).to(self.device)
            for rows in (self.ids, self.label, self.time)
        )
        assert ids is not None and label is not None
        return Batch(ids, label.float(), time)

    def count(self, size: int) -> int:
        """Number of batches of `size` rows."""
        whole, rest = divmod(len(self), size)
        return whole + (rest > (1 if whole else 0))


def _tensor(path: Path) -> Tensor:
    """Return a view of a file's array; see `storage.open_array`."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(open_array(path))


def _joined(first: Batch, second: Batch) -> Batch:
    time = None if first.time is None or second.time is None else torch.cat([first.time, second.time])
    return Batch(torch.cat([first.ids, second.ids]), torch.cat([first.label, second.label]), time)
