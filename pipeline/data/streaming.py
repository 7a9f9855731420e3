"""Splits that are longer than memory: their rows stay on disk, and windows of them are read."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.data.batches import Batch, Split, permuted

ROWS_PER_BLOCK = 2**10  # consecutive rows that stay together when the file is shuffled
ROWS_PER_WINDOW = 2**20  # rows that are in memory at a time, and permuted among each other


@dataclass(frozen=True)
class StreamedSplit(Split):
    """A split whose `ids`, `label`, `time` and `grade` are read-only views of files.

    Whoever reads these reads the files in full; read it by `batches`.

    The order of the rows is random within bounds. The blocks of the file are shuffled, and the rows of
    one window of blocks at a time are permuted; this takes the memory of three windows. So every window
    draws from ROWS_PER_WINDOW / ROWS_PER_BLOCK = 1024 places spread over the whole file, and a batch of
    B rows has about B * ROWS_PER_BLOCK / ROWS_PER_WINDOW rows of each place (one at B = 1024). In a file
    sorted by time or by user, where rows of a block have the correlation rho, the mean of a batch has
    the variance of independent rows times 1 + rho * B * ROWS_PER_BLOCK / ROWS_PER_WINDOW: even with
    constant blocks at most twice that at B = 1024. What is lost against a full permutation: rows of one
    block meet again in the same window only.

    Attributes:
        target: the device of the batches.
    """

    streamed: ClassVar[bool] = True

    target: torch.device = field(kw_only=True)

    @property
    def device(self) -> torch.device:
        """The device of the batches."""
        return self.target

    def whole(self) -> Batch:
        """Return all rows as views of the files; only the labels are a copy."""
        return Batch(self.ids, self.label.float(), self.time, self.grade)

    def batches(
        self,
        size: int,
        generator: torch.Generator | None = None,
        *,
        skip: int = 0,
        grouped: int | None = None,
    ) -> Iterator[Batch]:
        """Yield batches as `Split.batches` does; a window whose rows are all skipped is not read."""
        left = len(self) - skip * size
        rest: Batch | None = None
        for window in self._windows(generator, skip * size, grouped):
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

    def _windows(self, generator: torch.Generator | None, start: int, grouped: int | None) -> Iterator[Batch]:
        """Yield the rows of an epoch from number `start` on, window by window."""
        blocks = torch.arange(0, len(self), ROWS_PER_BLOCK)
        if generator is not None:
            blocks = blocks[torch.randperm(len(blocks), generator=generator)]
        windows = blocks.split(ROWS_PER_WINDOW // ROWS_PER_BLOCK)
        # each window has its own seed, so that a skipped one need not be permuted
        seeds = torch.randint(2**62, (len(windows),), generator=generator or torch.Generator())
        for window, seed in zip(windows, seeds.tolist(), strict=True):
            size = int(((window + ROWS_PER_BLOCK).clamp(max=len(self)) - window).sum())
            if start < size:
                rows, order = self._read(window.tolist()), torch.arange(size)
                if generator is not None:
                    order = permuted(rows.ids, torch.Generator().manual_seed(seed), grouped)
                yield rows.rows(order[start:].to(self.device))
            start = max(start - size, 0)

    def _read(self, blocks: list[int]) -> Batch:
        """Read the blocks that begin at these rows, onto the device."""

        def read(rows: Tensor) -> Tensor:
            return torch.cat([rows[i : i + ROWS_PER_BLOCK] for i in blocks]).to(self.device)

        rows = Batch(self.ids, self.label, self.time, self.grade).each(read)
        return rows._replace(label=rows.label.float())


def _joined(first: Batch, second: Batch) -> Batch:
    time, grade = (
        None if a is None or b is None else torch.cat([a, b])
        for a, b in ((first.time, second.time), (first.grade, second.grade))
    )
    return Batch(torch.cat([first.ids, second.ids]), torch.cat([first.label, second.label]), time, grade)
