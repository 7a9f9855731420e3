"""The clean table between preprocess and split: one Parquet file, read by blocks of rows or by column.

Categories and bags are dictionary-encoded; a bag (multi-valued field) is one string, its values separated
by the separator of its column.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from dataclasses import field as attribute
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.common.engine import ahead, map_ordered
from pipeline.common.errors import PipelineError, unknown
from pipeline.common.files import read_json, require_file, seal, write_json
from pipeline.common.ranges import Count, Share
from pipeline.preprocess.parse import chunk, encoded, filled
from pipeline.preprocess.rejects import RejectLog
from pipeline.preprocess.vectors import Gathered, Keyed
from pipeline.schema import Column, Role

EXTRA_COLUMNS = ("label", "group", "time", "truth", "grade")  # see ClickLog
ROWS_PER_BLOCK = 1 << 20  # at least; a block is a row group of Parquet and has its own dictionaries
MAX_REJECTED = 0.001  # share of corrupted records that is accepted unless another one is given
DICTIONARY_BYTES = 1 << 30  # above this Parquet would no longer encode a column by a dictionary


@dataclass(frozen=True)
class ClickLog:
    """What a dataset's `read` returns: its fields, and its rows as tables in the order of the log.

    A table has a column per field, `label` (uint8) and, where the data have them, `group` (strings, none
    missing: rows with the same one form a group of gAUC; default: the user's field), `time` (int64, seconds
    since 1970), `truth` (float64, the true click probability), `grade` (uint8, an ordered grade behind the
    label, which is one of its thresholds: every click has a higher one than every other row) and further
    columns that a split may use.

    `vectors` are those of the fields that are `given` some, whole when the last table was read.
    """

    columns: tuple[Column, ...]
    tables: Iterator[pa.Table]
    vectors: Mapping[str, Gathered] = attribute(default_factory=dict)


def write(
    folder: Path,
    log: ClickLog,
    rejects: RejectLog,
    name: str,
    origin: dict[str, Any] | None = None,
    *,
    fields: Sequence[str] | None = None,
    user: str | None = None,
    item: str | None = None,
    rows: Count | None = None,
    max_rejected: Share = MAX_REJECTED,
    unverified_times: bool = False,
) -> dict[str, Any]:
    """Write `table.parquet`, `columns.json` and `report.json`, seal the folder; return the report.

    The given vectors of field n, counted from 0, are in `vectors-<n>.parquet`: a `key` and a `vector` a row.

    Args:
        origin: where the raw files come from (`download.manifest.origin`), copied into the report.
        fields: the fields to keep, in this order (default: all).
        user: the field that identifies the user of a row, for models that need one, and the groups of gAUC
            where the log has none (default: as the dataset declares, if it does).
        item: the field that identifies the item of a row (default: the same).
        rows: how many of the first rows to keep (default: all); the blocks after them are not read.
        max_rejected: the largest fraction of a file's records that may be corrupted.
        unverified_times: use the times of a copy that are not known to be the publisher's; the column `time`
            and the fields made from it are left out otherwise.

    Raises:
        PipelineError: an unknown field, a user or item that is none, too many corrupted records, a row
            without a group, no rows, or times asked for that are left out.
    """
    doubt = "" if unverified_times else (origin or {}).get("doubtful_times")
    columns = _selected(log.columns, fields, name)
    columns = [column for column in columns if not (doubt and column.dated)]
    if fields and len(columns) < len(fields):
        raise PipelineError(f"{name}: preprocess.fields: of the row's time: {doubt}")
    for role, field in zip(get_args(Role), (user, item), strict=True):
        columns = _declared(columns, role, field, name)
    rows_out = clicks = 0
    highest, lowest = -1, 256  # grade of a row without a click, and of one with
    writer = None
    try:
        kept = _kept(log, columns, rows, rejects, name, ["time"] if doubt else [])
        for block in ahead(_in_blocks(kept)):  # made while the one before is compressed
            if writer is None:
                writer = pq.ParquetWriter(
                    folder / "table.parquet",
                    block.schema,
                    write_statistics=False,
                    use_dictionary=_coded(block.schema),  # to look for one of numbers takes long
                    dictionary_pagesize_limit=DICTIONARY_BYTES,
                )
            writer.write_table(block, row_group_size=len(block))
            rows_out += len(block)
            clicks += pc.sum(block["label"]).as_py()
            if "grade" in block.column_names and all(column.name != "grade" for column in columns):
                click, grade = (block[name].to_numpy() for name in ("label", "grade"))
                highest = max(highest, int(grade[click == 0].max(initial=0)))
                lowest = min(lowest, int(grade[click == 1].min(initial=255)))
            del block  # its memory, before the next one is read
    finally:
        if writer is not None:
            writer.close()
    if lowest <= highest:
        raise PipelineError(
            f"{name}: a row with a click has the grade {lowest}, one without {highest}: the label must be a "
            "threshold of the grade, in the dataset's `read`"
        )
    report = rejects.check(rows_out, max_rejected=max_rejected, name=name)
    write_json(folder / "columns.json", [column.to_json() for column in columns])
    report = {"dataset": name, "clicks": clicks, "origin": origin, **report}
    if vectors := _write_vectors(folder, columns, log.vectors):
        report["vectors"] = vectors
    write_json(folder / "report.json", report)
    seal(folder)
    return report


class CleanTable:
    """The clean table of a dataset.

    Attributes:
        columns: the fields.
        names: of all columns.
        block_rows: the number of rows of each block.
        origin: where the raw files come from.

    Raises:
        PipelineError: a file is missing or not as preprocess left it.
    """

    def __init__(self, folder: Path) -> None:
        path, report, columns = (
            require_file(folder / name, "preprocess")
            for name in ("table.parquet", "report.json", "columns.json")
        )
        self._folder = folder
        self.origin: dict[str, Any] | None = read_json(report)["origin"]
        self.columns = [Column(**column) for column in read_json(columns)]
        schema = pq.read_schema(path)
        coded = _coded(schema)
        metadata = pq.read_metadata(path)
        # opened for each block: several threads cannot read by one
        self._open = partial(pq.ParquetFile, path, metadata=metadata, read_dictionary=coded, memory_map=False)
        self.names: list[str] = schema.names
        self.block_rows = [metadata.row_group(block).num_rows for block in range(metadata.num_row_groups)]

    def __len__(self) -> int:
        return sum(self.block_rows)

    def column_blocks(self, name: str) -> Iterator[pa.Array]:
        """Yield one column, an array per block."""
        for block in range(len(self.block_rows)):
            yield chunk(self._open().read_row_group(block, columns=[name])[name])

    def field_blocks(self) -> Iterator[pa.Table]:
        """Yield the columns of the fields, a table per block."""
        names = [column.name for column in self.columns]
        for block in range(len(self.block_rows)):
            yield self._open().read_row_group(block, columns=names)

    def vectors(self) -> dict[str, Keyed]:
        """Load the keys (N,) and the vectors (N, K) of each field that is given some."""
        found = {}
        for place, column in enumerate(self.columns):
            if column.given is not None:
                path = require_file(self._folder / _vectors_file(place), "preprocess")
                table = pq.read_table(path, memory_map=False)
                vectors = chunk(table["vector"])
                values = vectors.flatten().to_numpy().reshape(len(vectors), -1)
                found[column.name] = chunk(table["key"]), values
        return found

    def load_extra(self, *named: str) -> pa.Table:
        """Load those of `EXTRA_COLUMNS` that the table has, and of `named`, in full.

        Groups are codes (int32), numbered in the order of their first rows.
        """
        fields = {column.name for column in self.columns}
        extra = [name for name in EXTRA_COLUMNS if name not in fields]
        names = dict.fromkeys(name for name in (*extra, *named) if name in self.names)
        columns = map_ordered(lambda name: pa.chunked_array(list(self.column_blocks(name))), names)
        table = dict(zip(names, columns, strict=True))
        if "group" in table and "group" in extra:
            table["group"] = pa.chunked_array([_codes_by_first_row(table["group"])])
        return pa.table(table)


def _coded(schema: pa.Schema) -> list[str]:
    """Return the names of the dictionary-encoded columns."""
    return [field.name for field in schema if pa.types.is_dictionary(field.type)]


def _vectors_file(place: int) -> str:
    return f"vectors-{place}.parquet"


def _write_vectors(
    folder: Path, columns: Sequence[Column], found: Mapping[str, Gathered]
) -> dict[str, dict[str, int]]:
    """Write the given vectors of each field; return how many there are, and their length.

    Raises:
        PipelineError: a field has none.
    """
    counts = {}
    for place, column in enumerate(columns):
        if column.given is None:
            continue
        values, keys = found[column.name].values, found[column.name].keys
        if not keys:
            raise PipelineError(f"preprocess.fields.{column.name}: there is no vector in any row")
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
        table = pa.table({"key": pa.array(keys, pa.string()), "vector": vectors})
        pq.write_table(table, folder / _vectors_file(place), write_statistics=False)
        counts[column.name] = {"values": len(keys), "width": values.shape[1]}
    return counts


def _selected(columns: Sequence[Column], fields: Sequence[str] | None, name: str) -> list[Column]:
    """Return the columns that `preprocess.fields` names."""
    if fields is None:
        return list(columns)
    known = {column.name: column for column in columns}
    for field in fields:
        if field not in known:
            raise PipelineError(f"{name}: preprocess.fields: {unknown('field', field, known)}")
    if not fields or len(set(fields)) < len(fields):
        raise PipelineError(
            f"{name}: preprocess.fields: must name at least one field, and none more than once"
        )
    return [known[field] for field in fields]


def _declared(columns: list[Column], role: Role, field: str | None, name: str) -> list[Column]:
    """Return the columns with the role given to `field` alone; None leaves the dataset's declaration."""
    if field is None:
        return columns
    possible = [column.name for column in columns if column.kind == "category"]
    where = f"{name}: preprocess.{role}"
    if field not in possible:
        raise PipelineError(f"{where}: {unknown('field of the type category', field, possible)}")
    if any(column.name == field and column.role not in (None, role) for column in columns):
        raise PipelineError(f"{where}: {field!r} cannot be both the user and the item: name two fields")
    return [
        replace(column, role=role if column.name == field else None)
        if column.name == field or column.role == role
        else column
        for column in columns
    ]


def _kept(
    log: ClickLog,
    columns: Sequence[Column],
    rows: int | None,
    rejects: RejectLog,
    name: str,
    left_out: Sequence[str],
) -> Iterator[pa.Table]:
    """Yield the first rows of the log, without fields that are not selected and what else is left out."""
    of_fields = {column.name for column in log.columns} | {*left_out}
    user = next((column.name for column in columns if column.role == "user"), None)
    start = 0
    for table in _first_rows(log.tables, rows, rejects):
        _check_group(table, start, name)
        start += len(table)
        extra = [column for column in table.column_names if column not in of_fields]
        kept = table.select([*(column.name for column in columns), *extra])
        if user is not None and "group" not in kept.column_names:
            kept = kept.append_column("group", filled(encoded(chunk(kept[user]))))
        yield kept


def _first_rows(tables: Iterator[pa.Table], rows: int | None, rejects: RejectLog) -> Iterator[pa.Table]:
    """Yield the first `rows` rows; further ones of the last block count as dropped."""
    left = rows
    for table in tables:
        if left is None or len(table) < left:
            left = left if left is None else left - len(table)
            yield table
            continue
        yield table.slice(0, left)
        last = [file for file, tally in rejects.files.items() if not tally.side_table][-1]
        rejects.drop(last, len(table) - left)
        return


def _check_group(table: pa.Table, start: int, name: str) -> None:
    """Raise if a group is missing; `start`: the number of rows before the table."""
    if "group" not in table.column_names or not table["group"].null_count:
        return
    row = start + int(pc.index(pc.is_null(table["group"]), True).as_py())
    raise PipelineError(
        f"{name}: the column 'group' has no value in row {row} (counted from 0) and maybe in more; every row "
        "must belong to a group (a user): let the dataset's `read` reject such rows, or give it no group"
    )


def _in_blocks(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Join tables until each has `ROWS_PER_BLOCK` rows; strings become dictionary-encoded."""
    held: list[pa.Table] = []
    for table in tables:
        if len(table):
            held.append(_encoded(table))
        if sum(map(len, held)) >= ROWS_PER_BLOCK:
            yield _take_joined(held)
    if held:
        yield _take_joined(held)


def _encoded(table: pa.Table) -> pa.Table:
    for i, field in enumerate(table.schema):
        if pa.types.is_string(field.type):
            table = table.set_column(i, field.name, encoded(chunk(table[field.name])))
    return table


def _take_joined(tables: list[pa.Table]) -> pa.Table:
    """Empty the list, so that its tables need no memory beside the joined one."""
    joined = pa.concat_tables(tables).unify_dictionaries().combine_chunks()
    tables.clear()
    return joined


def _codes_by_first_row(column: pa.ChunkedArray) -> NDArray[np.int32]:
    """Return the codes of the values, numbered in the order in which they first occur."""
    whole = chunk(column.unify_dictionaries())
    codes = whole.indices.to_numpy()
    first = np.full(len(whole.dictionary), len(codes))
    first[codes[::-1]] = np.arange(len(codes))[::-1]
    rank = np.empty(len(first), np.int32)
    rank[np.argsort(first, kind="stable")] = np.arange(len(first), dtype=np.int32)
    ranked: NDArray[np.int32] = rank[codes]
    return ranked
