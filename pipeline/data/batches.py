"""Encoded rows on their way to the model: memory map -> device -> batches."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from pipeline.data import storage
from pipeline.schema import Schema, SplitName

# Longer splits are streamed. A constant, not the free memory: it determines the row order, hence the result.
ROWS_IN_MEMORY = 50_000_000


class Batch(NamedTuple):
    """B rows: ids into the embedding table, labels 0.0 or 1.0, seconds and grades where the log has them."""

    ids: Int[Tensor, "B S"]
    label: Float[Tensor, " B"]
    time: Int[Tensor, " B"] | None = None
    grade: UInt8[Tensor, " B"] | None = None

    def each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """Return the rows with every column changed."""
        time, grade = (None if column is None else change(column) for column in (self.time, self.grade))
        return Batch(change(self.ids), change(self.label), time, grade)

    def rows(self, index: slice | Tensor) -> "Batch":
        """Return some of the rows."""

        def pick(column: Tensor) -> Tensor:  # three times as fast as column[index]
            return column.index_select(0, index) if isinstance(index, Tensor) else column[index]

        return self.each(pick)


@dataclass(frozen=True)
class Split:
    """The train, valid or test split of a dataset, in the memory of one device (on disk: `StreamedSplit`).

    Attributes:
        streamed: whether the rows stay on disk; see `StreamedSplit`.
        schema: what the columns of ids mean.
        ids, label, time, grade: the N rows; only train rows have grades.
    """

    streamed: ClassVar[bool] = False

    schema: Schema
    ids: Int[Tensor, "N S"]
    label: Float[Tensor, " N"] | UInt8[Tensor, " N"]
    time: Int[Tensor, " N"] | None = None
    grade: UInt8[Tensor, " N"] | None = None

    @classmethod
    def load(
        cls,
        folder: Path,
        name: SplitName,
        device: torch.device | str = "cpu",
        *,
        rows_in_memory: int = ROWS_IN_MEMORY,
    ) -> "Split":
        """Load a split of a processed folder; one of more than `rows_in_memory` rows is streamed.

        Raises:
            PipelineError: a file is missing or damaged.
        """
        schema = storage.read_schema(folder)
        ids, label = _open(folder, name, "ids"), _open(folder, name, "label")
        time = _open(folder, name, "time") if storage.has_column(folder, name, "time") else None
        graded = name == "train" and storage.has_column(folder, name, "grade")
        grade = _open(folder, name, "grade") if graded else None
        if len(label) > rows_in_memory:
            from pipeline.data.streaming import StreamedSplit

            return StreamedSplit(schema, ids, label, time, grade, target=torch.device(device))
        rows = Batch(ids, label, time, grade).each(lambda column: column.to(device, copy=True))
        return cls(schema, rows.ids, rows.label.float(), rows.time, rows.grade)

    def __len__(self) -> int:
        return len(self.label)

    @property
    def device(self) -> torch.device:
        """The device of the batches."""
        return self.ids.device

    def whole(self) -> Batch:
        """Return all rows."""
        return Batch(self.ids, self.label, self.time, self.grade)

    def count(self, size: int) -> int:
        """Return the number of batches of `size` rows."""
        whole, rest = divmod(len(self), size)
        return whole + (rest > (1 if whole else 0))

    def batches(
        self,
        size: int,
        generator: torch.Generator | None = None,
        *,
        skip: int = 0,
        grouped: int | None = None,
    ) -> Iterator[Batch]:
        """Yield batches of `size` rows, without the first `skip` ones.

        The last batch may be smaller; a single row left over joins the batch before it, since batch norm
        cannot train on one row. With a CPU `generator` the rows come in a random order that depends on
        the generator alone and not on the device. The permuted copy is made once, so a batch is a slice.

        Args:
            grouped: a column; rows of one id of it come one after the other, the ids in a random order.
        """
        first = skip * size
        order: slice | Tensor = slice(first, None)
        if generator is not None:
            order = permuted(self.ids, generator, grouped)[first:].to(self.device)
        rows, last = self.whole().rows(order), self.count(size) - 1
        for number in range(skip, last + 1):
            start = number * size - first
            yield rows.rows(slice(start, None if number == last else start + size))


def permuted(
    ids: Int[Tensor, "N S"], generator: torch.Generator, grouped: int | None = None
) -> Int[Tensor, " N"]:
    """Return a random order of rows; with a column, in which rows of one id of it come together."""
    order = torch.randperm(len(ids), generator=generator)
    if grouped is None:
        return order
    column = ids[:, grouped].cpu()[order].long()
    rank = torch.randperm(int(column.max()) + 1, generator=generator)
    return order[rank[column].argsort(stable=True)]


def _open(folder: Path, name: SplitName, column: storage.Column) -> Tensor:
    """Return a read-only view of a file's array."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(storage.open_column(folder, name, column))
