"""Clean columns -> int32 ids, with vocabularies and bins fitted on train rows alone.

A vocabulary is plain JSON and is all that is needed to encode new rows. Per field:

    category  `values`, ordered by (-count, value); a missing value is an entry of its own, null
    number    `edges` of the bins, fitted as quantiles; `missing` and `values` say whether train rows
              lacked the number and had it
    bag       `values` as above, and the `slots` it fills

The first id of a field is its unseen id: a value that no train row holds, or fewer than `min_count`.
An infinite number falls into the outermost bin; NaN counts as missing.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.errors import PipelineError
from pipeline.schema import EMPTY, Column, Field, Kind, Schema

Vocabulary = list[dict[str, Any]]
Ids = NDArray[np.int32]
TYPES: dict[Kind, pa.DataType] = {
    "category": pa.string(),
    "number": pa.float64(),
    "bag": pa.list_(pa.string()),
}


def fit(
    tables: Iterable[pa.Table],
    columns: Iterable[Column],
    *,
    min_count: int = 1,
    bins: int = 20,
    max_slots: int = 8,
) -> Vocabulary:
    """Learn the vocabularies from the train rows, which may come in several tables.

    The result does not depend on where one table ends and the next begins.

    Args:
        min_count: a value that fewer train rows hold is left to the unseen id.
        bins: number of quantile bins of a number (fewer where values repeat).
        max_slots: a bag keeps at most so many values.

    Raises:
        PipelineError: a setting that makes no sense.
    """
    for key, value in (("min_count", min_count), ("bins", bins), ("max_slots", max_slots)):
        if value < 1:
            raise PipelineError(f"encode: {key} is {value}, it must be at least 1")
    columns = list(columns)
    parts: dict[str, list[Any]] = {column.name: [] for column in columns}
    for table in tables:
        for column in columns:
            parts[column.name].append(_gather(table[column.name], column.kind))
    vocabulary: Vocabulary = []
    for column in columns:
        entry: dict[str, Any] = {"name": column.name, "kind": column.kind, "domain": column.domain}
        found = parts.pop(column.name)
        if column.kind == "number":
            entry |= _bins([values for values, _ in found], bins)
            entry["missing"] = any(missing for _, missing in found)
        else:
            entry |= _ranked([counts for counts, _ in found], min_count)
        if column.kind == "bag":
            entry["slots"] = max(1, min(max_slots, max((most for _, most in found), default=0)))
        vocabulary.append(entry)
    return vocabulary


def schema(vocabulary: Vocabulary) -> Schema:
    """Return what the ids of `apply` mean."""
    return Schema(
        tuple(
            Field(entry["name"], 1 + _entries(entry), entry.get("slots", 1), entry["domain"])
            for entry in vocabulary
        )
    )


def apply(vocabulary: Vocabulary, table: pa.Table, *, truncated: Counter[str] | None = None) -> Ids:
    """Return the ids (N, S) of clean rows, train rows or new ones.

    Args:
        truncated: counts, per bag, the values that found no free slot.
    """
    fields = schema(vocabulary)
    ids = np.full((len(table), fields.slots), EMPTY, np.int32)
    slot = 0
    for entry, field, first in zip(vocabulary, fields.fields, fields.first, strict=True):
        column = table[entry["name"]].combine_chunks()
        if entry["kind"] == "category":
            ids[:, slot] = first + _lookup(column, entry["values"])
        elif entry["kind"] == "number":
            ids[:, slot] = first + _bin(column, entry)
        else:
            lost = _fill(ids[:, slot : slot + field.slots], column, entry["values"], first)
            if truncated is not None:
                truncated[field.name] += lost
        slot += field.slots
    return ids


def unseen(schema: Schema, ids: Ids) -> dict[str, int]:
    """Count, per field, the unseen ids in (N, S) ids."""
    counts = Counter(dict.fromkeys((field.name for field in schema.fields), 0))
    for slot, field in enumerate(schema.slot_field):
        counts[schema.fields[field].name] += int((ids[:, slot] == schema.first[field]).sum())
    return dict(counts)


def _entries(entry: dict[str, Any]) -> int:
    """Number of ids of a field, the unseen one not counted."""
    if entry["kind"] == "number":
        return int(entry["missing"]) + (len(entry["edges"]) + 1 if entry["values"] else 0)
    return len(entry["values"])


def _gather(column: pa.ChunkedArray, kind: Kind) -> tuple[Any, Any]:
    """What one table adds: numbers and whether some are missing, or counts and the longest bag."""
    if kind == "number":
        values = column.to_numpy()
        return values[np.isfinite(values)], bool(np.isnan(values).any())
    if kind == "category":
        return pc.value_counts(column.combine_chunks()), 0
    row, values = _distinct(column.combine_chunks())
    return pc.value_counts(values), int(np.bincount(row).max(initial=0))


def _ranked(parts: list[pa.StructArray], min_count: int) -> dict[str, Any]:
    """Merge counts and order the values: frequent first, then alphabetically, a missing one first."""
    values = [part.field("values").cast(pa.string()) for part in parts]
    counts = [part.field("counts") for part in parts]
    merged = (
        pa.table({"value": pa.chunked_array(values), "count": pa.chunked_array(counts)})
        .group_by("value")
        .aggregate([("count", "sum")])
        .sort_by([("value", "ascending")])
    )
    # the sort above puts the missing value last; a rank of its own brings it to the front of a tie
    count = merged["count_sum"].to_numpy()
    missing = pc.is_null(merged["value"]).to_numpy()
    order = np.lexsort((np.arange(len(count)), ~missing, -count))
    order = order[count[order] >= min_count]
    rare = len(count) - len(order)
    return {"values": merged["value"].take(pa.array(order)).to_pylist(), "rare": rare}


def _bins(parts: list[NDArray[np.float64]], bins: int) -> dict[str, Any]:
    """Edges at the quantiles; equal ones fall together and the first bin is never empty."""
    values = np.sort(np.concatenate(parts)) if parts else np.empty(0)
    if not len(values):
        return {"edges": [], "values": False}
    edges = np.unique(values[[k * len(values) // bins for k in range(1, bins)]]) if bins > 1 else values[:0]
    return {"edges": edges[edges > values[0]].tolist(), "values": True}


def _lookup(column: pa.Array, values: list[str | None]) -> NDArray[np.int64]:
    """0 for a value that is not among `values`, else its place, counted from 1."""
    found = pc.index_in(column, pa.array(values, pa.string()))
    return np.asarray(pc.fill_null(pc.add(pc.cast(found, pa.int64()), 1), 0), np.int64)


def _bin(column: pa.Array, entry: dict[str, Any]) -> NDArray[np.int64]:
    """0 unseen, then the bin of missing numbers where train rows had such, then the others."""
    values = column.to_numpy(zero_copy_only=False).astype(np.float64)
    missing = np.isnan(values)
    start = 1 + int(entry["missing"])
    bins = start + np.searchsorted(np.array(entry["edges"]), values, side="right")
    if not entry["values"]:
        bins = np.zeros(len(values), np.int64)
    return np.where(missing, int(entry["missing"]), bins).astype(np.int64)


def _distinct(bags: pa.ListArray) -> tuple[NDArray[np.int64], pa.Array]:
    """Return (row, value) of the bags' values in order, each value once a row, missing ones left out."""
    row, values = pc.list_parent_indices(bags), pc.list_flatten(bags)
    row, values = row.filter(pc.is_valid(values)), values.drop_null()
    rows = row.to_numpy().astype(np.int64)
    codes = values.dictionary_encode().indices.to_numpy(zero_copy_only=False).astype(np.int64)
    keep = _first_of_each(rows, codes)
    return rows[keep], values.take(pa.array(keep))


def _first_of_each(row: NDArray[np.int64], code: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions at which a pair (row, code) stands for the first time, ascending."""
    pairs = row * (code.max(initial=0) + 1) + code
    return np.sort(np.unique(pairs, return_index=True)[1])


def _fill(ids: Ids, bags: pa.ListArray, values: list[str | None], first: int) -> int:
    """Write the ids of the bags into their slots, in order; return how many found no slot.

    Values that were never seen share one id, so a bag holds it once.
    """
    row, value = _distinct(bags)
    code = _lookup(value, values)
    keep = _first_of_each(row, code)
    row, code = row[keep], code[keep]
    starts = np.flatnonzero(np.r_[True, row[1:] != row[:-1]]) if len(row) else np.empty(0, np.int64)
    place = np.arange(len(row)) - np.repeat(starts, np.diff(np.r_[starts, len(row)]))
    fits = place < ids.shape[1]
    ids[row[fits], place[fits]] = first + code[fits]
    return int((~fits).sum())
