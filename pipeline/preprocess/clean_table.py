"""The clean table between preprocess and split: one Parquet file, read block by block or by the column.

Columns of categories and bags are dictionary-encoded; a bag is a string of values with a separator.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.common.errors import PipelineError, unknown
from pipeline.common.files import read_json, require_file, write_json
from pipeline.preprocess.parse import chunk, encoded
from pipeline.preprocess.rejects import RejectLog
from pipeline.schema import Column

EXTRA = ("label", "group", "time", "truth")  # what the columns that are no field may mean
BLOCK = 1 << 20  # rows of a block (a row group): each has its own dictionaries
DICTIONARY = 1 << 30  # bytes a dictionary may have before Parquet would give up encoding


@dataclass(frozen=True)
class ClickLog:
    """What a source reads: the fields, and tables of rows in the order of the click log.

    A table has a column per field, `label` (uint8) and, where the data has them, `group` (strings, none
    missing: whose rows form a group of gAUC), `time` (int64, seconds), `truth` (float64: the true click
    probability) and other columns that a split may go by.
    """

    columns: tuple[Column, ...]
    tables: Iterator[pa.Table]


def write(
    folder: Path,
    log: ClickLog,
    rejects: RejectLog,
    name: str,
    origin: dict[str, Any] | None = None,
    *,
    fields: Sequence[str] | None = None,
    rows: int | None = None,
    max_rejected: float = 0.001,
) -> dict[str, Any]:
    """Write `table.parquet`, `columns.json` and `report.json`; return the report.

    Args:
        origin: of the raw files (`download.origin`), to go along with the data.
        fields: the fields to keep, in their order (default: all).
        rows: how many of the first rows to keep (default: all); nothing behind them is read.
        max_rejected: the largest fraction of a file's records that may be corrupted.

    Raises:
        PipelineError: a field the source does not have, too many corrupted records, a row without its
            group, or no rows.
    """
    columns = _chosen(log.columns, fields, name)
    written = clicks = 0
    writer, held = None, []
    try:
        for table in _first(log.tables, rows, rejects):
            _check_group(table, written, name)
            extra = [c for c in table.column_names if c not in {column.name for column in log.columns}]
            if len(table):
                held.append(_typed(table.select([*(column.name for column in columns), *extra])))
            written, clicks = written + len(table), clicks + int(table["label"].to_numpy().sum())
            if sum(map(len, held)) >= BLOCK:
                writer = _flush(writer, held, folder)
        if held:
            writer = _flush(writer, held, folder)
    finally:
        if writer:
            writer.close()
    report = rejects.check(written, max_rejected=max_rejected, name=name)
    write_json(folder / "columns.json", [asdict(column) for column in columns])
    report = {"dataset": name, "clicks": clicks, "origin": origin, **report}
    write_json(folder / "report.json", report)
    return report


class CleanTable:
    """The clean table of a dataset.

    Raises:
        PipelineError: it is not there.
    """

    def __init__(self, folder: Path) -> None:
        path, report, columns = (
            require_file(folder / name, "preprocess")
            for name in ("table.parquet", "report.json", "columns.json")
        )
        self.origin: dict[str, Any] | None = read_json(report)["origin"]
        self.columns = [Column(**column) for column in read_json(columns)]
        schema = pq.read_schema(path)
        coded = [name for name in schema.names if pa.types.is_dictionary(schema.field(name).type)]
        self._file = pq.ParquetFile(path, read_dictionary=coded, memory_map=False)
        self.names: list[str] = schema.names
        groups = range(self._file.num_row_groups)
        self.sizes = [self._file.metadata.row_group(group).num_rows for group in groups]

    def __len__(self) -> int:
        return sum(self.sizes)

    def column(self, name: str) -> Iterator[pa.Array]:
        """Yield one column, an array per block."""
        for block in range(len(self.sizes)):
            yield chunk(self._file.read_row_group(block, columns=[name])[name])

    def blocks(self) -> Iterator[pa.Table]:
        """Yield the fields' columns, a table per block."""
        names = [column.name for column in self.columns]
        for block in range(len(self.sizes)):
            yield self._file.read_row_group(block, columns=names)

    def rest(self, *more: str) -> pa.Table:
        """Return the columns `EXTRA` and those named, whole, as far as there are such.

        The groups come as codes (int32) in the order of their first rows.
        """
        fields = {column.name for column in self.columns}
        extra = [name for name in EXTRA if name not in fields]
        names = dict.fromkeys(name for name in (*extra, *more) if name in self.names)
        table = {name: pa.chunked_array(list(self.column(name))) for name in names}
        if "group" in table and "group" in extra:
            table["group"] = pa.chunked_array([_by_first_row(table["group"])])
        return pa.table(table)


def _chosen(columns: Sequence[Column], fields: Sequence[str] | None, name: str) -> list[Column]:
    if fields is None:
        return list(columns)
    known = {column.name: column for column in columns}
    for field in fields:
        if field not in known:
            raise PipelineError(f"{name}: preprocess.fields: {unknown('field', field, known)}")
    if not fields or len(set(fields)) < len(fields):
        raise PipelineError(f"{name}: preprocess.fields: must name each field that is wanted once")
    return [known[field] for field in fields]


def _first(tables: Iterator[pa.Table], rows: int | None, rejects: RejectLog) -> Iterator[pa.Table]:
    """Yield tables with so many rows in all; what the last block read beyond them counts as dropped."""
    left = rows
    for table in tables:
        if left is None or len(table) < left:
            left = left if left is None else left - len(table)
            yield table
            continue
        yield table.slice(0, left)
        last = [file for file, tally in rejects.files.items() if tally.log][-1]
        rejects.drop(last, len(table) - left)
        return


def _check_group(table: pa.Table, start: int, name: str) -> None:
    """Refuse a missing group; `start`: rows before the table."""
    if "group" not in table.column_names or not table["group"].null_count:
        return
    row = start + int(pc.index(pc.is_null(table["group"]), True).as_py())
    raise PipelineError(
        f"{name}: the column 'group' has no value in row {row} (counted from 0) and maybe in more; every row "
        "must belong to a group (a user): let the source refuse such rows, or give it no group"
    )


def _typed(table: pa.Table) -> pa.Table:
    """Encode what is still plain strings."""
    plain = [name for name in table.column_names if pa.types.is_string(table.schema.field(name).type)]
    for name in plain:
        column = encoded(chunk(table[name]))
        table = table.set_column(table.column_names.index(name), name, column)
    return table


def _flush(writer: pq.ParquetWriter | None, held: list[pa.Table], folder: Path) -> pq.ParquetWriter:
    table = pa.concat_tables(held).unify_dictionaries().combine_chunks()
    held.clear()
    writer = writer or pq.ParquetWriter(
        folder / "table.parquet", table.schema, write_statistics=False, dictionary_pagesize_limit=DICTIONARY
    )
    writer.write_table(table, row_group_size=max(len(table), 1))
    return writer


def _by_first_row(column: pa.ChunkedArray) -> NDArray[np.int32]:
    """Codes of the values, numbered in the order in which they first occur."""
    whole = chunk(column.unify_dictionaries())
    codes = whole.indices.to_numpy()
    first = np.full(len(whole.dictionary), len(codes))
    first[codes[::-1]] = np.arange(len(codes))[::-1]
    rank = np.empty(len(first), np.int32)
    rank[np.argsort(first, kind="stable")] = np.arange(len(first), dtype=np.int32)
    ranked: NDArray[np.int32] = rank[codes]
    return ranked
