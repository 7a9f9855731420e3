"""What a processed folder contains; the split stage writes it, all later stages read it.

    vocabulary.json     the vocabularies; see pipeline/split/vocabulary.py
    schema.json         the fields, in the order of the columns of ids; see `Schema`
    report.json         name and origin of the dataset; rows, clicks and unseen ids of each split; values of
                        bags that were truncated; of `repeated` rows: the `copies` of earlier ones, how many
                        were `dropped`, how many rows of valid and test have one `in_train`, and the
                        `agreement` of rows alike (split/repeats.py)
    vectors.safetensors of each field whose values are given vectors, that of each id (size, width) float32,
                        zero for an id without one; not there if no field is given any
    start/<model>/      files of the package that the model's training begins from, if any; see split/warm.py
    SHA256SUMS          the SHA-256 of every other file
    <split>.ids.npy     (N, S) int32
    <split>.label.npy   (N,) uint8
    <split>.row.npy     (N,) int64, the number of the row in the clean table
    <split>.group.npy   (N,) int32, the code of the row's group (its user), where the log has groups
    <split>.time.npy    (N,) int64, seconds, where the log has times
    <split>.truth.npy   (N,) float64, the true click probability, where it is known
    <split>.grade.npy   (N,) uint8, the grade behind the label of train and valid rows, where the log has
                        grades (see `ClickLog`); those of valid rows are read by `train/refit.py` alone, those
                        of test rows are not kept, so that nothing can read them

<split> is train, valid or test; its N rows are in the order of the clean table.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.common.engine import map_ordered
from pipeline.common.files import check_folder, how_to_recreate, read_json, require_file, sealed_digests
from pipeline.schema import SPLITS, Schema, SplitName

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.split.assign import Assignment
    from pipeline.split.vocabulary import Encoder, Ids

Column = Literal["ids", "label", "row", "group", "time", "truth", "grade"]
OPTIONAL: tuple[Column, ...] = ("group", "time", "truth")
REPORT, VECTORS = "report.json", "vectors.safetensors"

# ---- reading ----


def column_file(folder: Path, split: SplitName, column: Column) -> Path:
    """Return the path of a column of a split."""
    return folder / f"{split}.{column}.npy"


def has_column(folder: Path, split: SplitName, column: Column) -> bool:
    """Whether a split has a column."""
    path = column_file(folder, split, column)
    return folder.exists() and path.name in sealed_digests(folder, how_to_recreate(path, "split"))


def open_column(folder: Path, split: SplitName, column: Column) -> NDArray[Any]:
    """Return a memory map of a column of a split.

    It is shared and read-only: nothing may write to it, and unlike a writable map it may be larger than
    the memory.

    Raises:
        PipelineError: the file is missing, or another one than the split stage wrote.
    """
    array: NDArray[Any] = np.load(require_file(column_file(folder, split, column), "split"), mmap_mode="r")
    return array


def read_schema(folder: Path) -> Schema:
    """Return what the columns of ids mean, with the vectors that values are given.

    Raises:
        PipelineError: a file is missing.
    """
    schema = Schema.from_json(read_json(require_file(folder / "schema.json", "split")))
    if all(field.given is None for field in schema.fields):
        return schema
    from safetensors.numpy import load_file  # a benchmark runs where torch alone is installed

    return replace(schema, vectors=load_file(require_file(folder / VECTORS, "split")))


def read_report(folder: Path) -> dict[str, Any]:
    """Return what the split stage recorded: the origin of the raw files, rows and clicks of each split.

    It is empty where the folder is not there, as in a clone that only looks at results.
    """
    if not folder.exists():
        return {}
    report: dict[str, Any] = read_json(require_file(folder / REPORT, "split"))
    return report


def read_origin(folder: Path) -> dict[str, Any] | None:
    """Return the origin of the raw files, where it is known; see `download.manifest.origin`."""
    return read_report(folder).get("origin")


def read_copies(folder: Path, split: SplitName) -> int:
    """Return how many rows of valid or test are copies of train rows, as far as it is known."""
    repeated = read_report(folder).get("repeated")
    return int(repeated["in_train"][split]) if repeated else 0


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file by its name, after checking each.

    Raises:
        PipelineError: a file is missing, or was changed after the split stage wrote it.
    """
    return check_folder(folder, how_to_recreate(folder / REPORT, "split"))


# ---- writing ----


def write_vectors(folder: Path, tables: Mapping[str, NDArray[np.float32]]) -> None:
    """Write the given vectors of fields, if there are any."""
    if tables:
        from safetensors.numpy import save_file

        save_file(dict(tables), folder / VECTORS)


class SplitWriter:
    """Writes the columns of all three splits: what a row has besides its ids at once, the ids by parts.

    Args:
        schema: what the columns of ids mean.
        extra: `label` and what else the log has; see `CleanTable.load_extra`.
        assignment: the split of every row.

    Attributes:
        report: rows and clicks of each split, and after the last part its unseen ids.
    """

    def __init__(self, folder: Path, schema: Schema, extra: "pa.Table", assignment: "Assignment") -> None:
        self.report: dict[str, dict[str, Any]] = {}
        self._schema, self._assignment, self._start = schema, assignment, 0
        self._unseen: list[Counter[str]] = []
        self._next: list[_Place] = []
        columns: list[Column] = ["label", *(column for column in OPTIONAL if column in extra.column_names)]
        values = {column: extra[column].to_numpy() for column in columns}
        for number, split in enumerate(SPLITS):
            rows = np.flatnonzero(assignment == number)
            np.save(column_file(folder, split, "row"), rows)
            for column in columns:
                np.save(column_file(folder, split, column), values[column][rows])
            if split != "test" and "grade" in extra.column_names:
                np.save(column_file(folder, split, "grade"), extra["grade"].to_numpy()[rows])
            self.report[split] = {"rows": len(rows), "clicks": int(values["label"][rows].sum())}
            self._unseen.append(Counter(dict.fromkeys((field.name for field in schema.fields), 0)))
            path = column_file(folder, split, "ids").absolute()
            with path.open("wb") as file:
                header = {"descr": "<i4", "fortran_order": False, "shape": (len(rows), schema.slots)}
                np.lib.format.write_array_header_1_0(file, header)
                self._next.append(_Place(path, file.tell()))
                file.truncate(file.tell() + 4 * len(rows) * schema.slots)

    def write(self, tables: "Iterable[pa.Table]", encoder: "Encoder") -> Counter[str]:
        """Encode and write the next rows, several blocks at a time; return how many values had no slot.

        Args:
            tables: the blocks that the encoder knows, all of them.
        """
        truncated = Counter[str]()
        for unseen_of_splits, left_out in map_ordered(partial(_encode, encoder), self._parts(tables)):
            truncated.update(left_out)
            for counts, found in zip(self._unseen, unseen_of_splits, strict=True):
                counts.update(found)
        return truncated

    def _parts(self, tables: "Iterable[pa.Table]") -> "Iterator[_Part]":
        """Yield the blocks and where their ids belong."""
        for block, table in enumerate(tables):
            split = self._assignment[self._start : self._start + len(table)]
            yield _Part(block, table, split, tuple(self._next))
            self._start += len(table)
            row = 4 * self._schema.slots
            for number, place in enumerate(self._next):
                rows = int(np.count_nonzero(split == number))
                self._next[number] = place._replace(offset=place.offset + row * rows)

    def __enter__(self) -> "SplitWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        missing = len(self._assignment) - self._start
        assert error or not missing, (
            f"{missing} rows without ids: the files are shorter than their headers say"
        )
        for split, counts in zip(SPLITS, self._unseen, strict=True):
            self.report[split]["unseen"] = dict(counts)


class _Place(NamedTuple):
    """Where in a file the next ids belong: the number of bytes before them."""

    path: Path
    offset: int


class _Part(NamedTuple):
    """A block of rows, the split of each, and the place of their ids in the file of each split."""

    block: int
    table: "pa.Table"
    split: NDArray[np.uint8]
    places: tuple[_Place, ...]


def _encode(encoder: "Encoder", part: _Part) -> tuple[list[Counter[str]], Counter[str]]:
    """Write the ids of a part; return the unseen ids of each split, and the values without slots by bag."""
    truncated, start = Counter[str](), 0
    counts = [Counter[str]() for _ in part.places]
    with ExitStack() as stack:
        files = [stack.enter_context(place.path.open("r+b", buffering=0)) for place in part.places]
        for file, place in zip(files, part.places, strict=True):
            file.seek(place.offset)
        for ids in encoder.ids(part.block, part.table, truncated):
            split = part.split[start : start + len(ids)]
            start += len(ids)
            for number, file in enumerate(files):
                chosen = ids[split == number]
                _write_all(file, chosen)
                counts[number].update(unseen(encoder.schema, chosen))
    return counts, truncated


def _write_all(file: BinaryIO, ids: "Ids") -> None:
    """Write ids to a file without buffer, which may take fewer bytes than it is given."""
    left = ids.data.cast("B") if ids.size else memoryview(b"")
    while left:
        left = left[file.write(left) :]


def unseen(schema: Schema, ids: "Ids") -> dict[str, int]:
    """Count, per field, the unseen ids in (N, S) ids."""
    first = np.array([schema.offsets[field] for field in schema.field_of_slot], np.int32)
    per_slot = (ids == first).sum(0)
    counts = Counter(dict.fromkeys((field.name for field in schema.fields), 0))
    for slot, field in enumerate(schema.field_of_slot):
        counts[schema.fields[field].name] += int(per_slot[slot])
    return dict(counts)
