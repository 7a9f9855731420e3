"""Clean columns -> int32 ids, with vocabularies and bins fitted on train rows alone.

A vocabulary is plain JSON and is all that is needed to encode new rows. Per field:

    category  `values`, ordered by (-count, value); a missing value is an entry of its own, null
    number    `edges` of the bins, fitted as quantiles; `missing`: whether some train row has no number;
              `values`: whether some has one; `steps`: whether a value has the ids of all bins up to its own,
              in as many `slots`, so that neighbouring bins share what is learnt
    bag       a multi-valued field: `values` as above, the `separator` between them in a row, and the
              number of `slots`; `slots_from: end` if longer bags keep their last values; `table`, the field
              whose values and ids its own are, if it has none of its own

A category whose values are `given` vectors has `width`, `centre` and `scale` of these (split/vectors.py), and
its `values` are those of the train rows, then all others that have a vector: what training never saw has an
id, too.

The first id of a field is its unseen id, for values that fewer than `min_count` train rows have.
An infinite number falls into the outermost bin; NaN counts as missing.

All work on strings is done once per distinct value and block. A column is an iterable of arrays, its
blocks; their sizes change nothing.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.common.engine import map_ordered
from pipeline.common.errors import PipelineError
from pipeline.common.ranges import Count
from pipeline.preprocess.parse import FEW, chunk, codes_of, encoded, few_plain
from pipeline.preprocess.vectors import Keyed
from pipeline.schema import EMPTY, Column, Field, Kind, Schema
from pipeline.split.vectors import fit as fit_vectors

Vocabulary = list[dict[str, Any]]
Ids = NDArray[np.int32]
Blocks = Callable[[str], Iterable[pa.Array]]  # name of a column -> its blocks
TYPES: dict[Kind, pa.DataType] = {
    "category": pa.string(),
    "number": pa.float64(),
    "bag": pa.string(),
}
SMALL = 4  # a lookup of this times fewer strings than the vocabulary has goes by a dict
ROWS_PER_CHUNK = 1 << 14  # whose ids are put together at a time, so that they fit into the cache


def fit_vocabulary(
    blocks: Blocks,
    columns: Iterable[Column],
    *,
    min_count: Count = 1,
    bins: Count = 20,
    numbers: Literal["bins", "steps"] = "bins",
    max_slots: Count = 8,
    slots_from: Literal["start", "end"] = "start",
    earlier: Vocabulary | None = None,
    vectors: Mapping[str, Keyed] = MappingProxyType({}),
) -> Vocabulary:
    """Fit the vocabularies on the train rows, several columns at a time.

    Args:
        blocks: the train rows of a column.
        min_count: values that fewer train rows have get the unseen id, unless they have a given vector.
        bins: number of quantile bins of a number (fewer where values repeat).
        numbers: `bins`: a number is the category of its bin; `steps`: it is the bag of all bins up to its own
            (thermometer coding), whose weights add up to a function that rises and falls by learnt steps.
            That is better where bins have few rows, and takes `bins` slots.
        max_slots: values of a bag that are kept; further ones are truncated.
        slots_from: where a longer bag keeps them: `start`, the first ones; `end`, the last ones, in their
            order: of a history that grows at its end the newest.
        earlier: a vocabulary to grow: its values keep their order and their places whether they occur or not,
            new ones of `min_count` rows follow, and numbers keep their bins and bags their slots, whatever
            the other arguments say.
        vectors: of each column whose values are given some.

    Raises:
        PipelineError: the earlier vocabulary is not one of these columns, or vectors do not belong to them.
    """
    columns = list(columns)
    before = _matched(columns, earlier) if earlier is not None else {}

    def fitted(column: Column) -> dict[str, Any]:
        if column.name in before and column.kind == "number":
            return before[column.name]
        entry: dict[str, Any] = {key: getattr(column, key) for key in ("name", "kind", "domain", "role")}
        if column.kind == "number":
            entry |= _bins([np.asarray(_floats(block)) for block in blocks(column.name)], bins)
            entry["steps"] = numbers == "steps"
            entry["slots"] = len(entry["edges"]) + 1 if entry["steps"] else 1
        elif column.given is not None:
            counted = [_counted(block) for block in blocks(column.name)]
            own = vectors[column.name]
            entry |= {"given": column.given, **_ranked(counted, min_count, own[0])}
            entry |= fit_vectors(own, entry["values"], column.name)
            known = set(entry["values"])
            entry["values"] += sorted(key for key in own[0].to_pylist() if key not in known)
            _check_width(before.get(column.name, entry), entry)
        elif column.kind == "category":
            entry |= _ranked((_counted(block) for block in blocks(column.name)), min_count)
        else:
            bags = [_bags(block, column.separator) for block in blocks(column.name)]
            entry |= _ranked(((values, counts) for values, counts, _ in bags), min_count)
            entry["separator"] = column.separator
            if column.table is not None:
                entry["table"] = column.table
            entry["slots"] = max(1, min(max_slots, max((most for _, _, most in bags), default=0)))
            if slots_from == "end":
                entry["slots_from"] = slots_from
        return _grown(before[column.name], entry) if before else entry

    vocabulary = list(map_ordered(fitted, columns))
    values = {entry["name"]: entry for entry in vocabulary}
    for entry in vocabulary:
        if shared := entry.get("table"):
            entry |= {key: values[shared][key] for key in ("values", "rare")}
    return vocabulary


# what a field has in common with its earlier self
IDENTITY = ("name", "kind", "domain", "role", "separator", "table", "given")


def _matched(columns: Sequence[Column], earlier: Vocabulary) -> dict[str, dict[str, Any]]:
    """Return the entries of an earlier vocabulary by name, which are of the same fields in the same order."""
    names, known = [column.name for column in columns], [entry["name"] for entry in earlier]
    if names != known:
        raise PipelineError(
            f"the fields are {', '.join(names)}, the earlier vocabulary has {', '.join(known)}: a vocabulary "
            "grows by values, not by fields; train without `warm_start` once"
        )
    for column, entry in zip(columns, earlier, strict=True):
        for key in IDENTITY:
            if (key in entry or key in ("table", "given")) and getattr(column, key) != entry.get(key):
                raise PipelineError(
                    f"the {key} of the field {column.name!r} is {getattr(column, key)!r}, the earlier "
                    f"vocabulary has {entry.get(key)!r}; train without `warm_start` once"
                )
    return {entry["name"]: entry for entry in earlier}


def _check_width(old: dict[str, Any], new: dict[str, Any]) -> None:
    if old["width"] != new["width"]:
        raise PipelineError(
            f"the vectors of the field {new['name']!r} have {new['width']} numbers, those of the earlier "
            f"vocabulary {old['width']}: they are of another model; train without `warm_start` once"
        )


def _grown(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Return an entry of a category or bag with the new one's values behind its own."""
    known = set(old["values"])
    return old | {
        "values": old["values"] + [value for value in new["values"] if value not in known],
        "rare": new["rare"],
    }


def schema(vocabulary: Vocabulary) -> Schema:
    """Return the schema of the ids that an `Encoder` gives."""
    return Schema(
        tuple(
            Field(
                *(entry["name"], 1 + _entries(entry), entry.get("slots", 1), entry["domain"], entry["role"]),
                table=entry.get("table"),
                given=entry.get("given"),
                width=entry.get("width"),
            )
            for entry in vocabulary
        )
    )


def apply(vocabulary: Vocabulary, table: pa.Table, *, truncated: Counter[str] | None = None) -> Ids:
    """Return the ids (N, S) of clean rows, train rows or new ones.

    Args:
        truncated: incremented, per bag, by the number of values beyond its slots.
    """
    encoder = Encoder(vocabulary, lambda name: [chunk(table[name])])
    ids = list(encoder.ids(0, table, truncated))
    return np.vstack(ids) if ids else np.empty((0, schema(vocabulary).slots), np.int32)


class Places:
    """The positions of strings in a vocabulary, counted from 1; 0 for a string that is not in it."""

    def __init__(self, values: Sequence[str | None]) -> None:
        self._values, self._array = values, pa.array(values, pa.string())

    @cached_property
    def _position(self) -> dict[str | None, int]:
        return {value: place for place, value in enumerate(self._values, 1)}

    @cached_property
    def missing(self) -> int:
        """The position of a missing string."""
        return int(self.of(pa.nulls(1, pa.string()))[0])

    def of(self, strings: pa.Array | pa.ChunkedArray) -> NDArray[np.int32]:
        """Return the position of each string."""
        # a call of Arrow costs more than the work on few strings, and hashes the whole vocabulary each time
        if len(strings) <= FEW or SMALL * len(strings) < len(self._values):
            found = (self._position.get(text, 0) for text in strings.to_pylist())
            return np.fromiter(found, np.int32, len(strings))
        places = pc.add(pc.index_in(strings, self._array), pa.scalar(1, pa.int32()))
        whole: NDArray[np.int32] = pc.fill_null(places, 0).to_numpy()
        return whole


class Index:
    """A vocabulary, made ready to look values up.

    Attributes:
        schema: what the ids mean.
        places: of the values of each category and bag.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.schema = schema(vocabulary)
        self.places = {
            entry["name"]: Places(entry["values"]) for entry in vocabulary if entry["kind"] != "number"
        }


class Encoder:
    """Turns the blocks of a table into ids by a vocabulary.

    The distinct strings of all blocks are looked up at once, so the cost is that of their number, not
    of the number of blocks times the size of the vocabulary.

    Args:
        blocks: the columns of the table, in the blocks that `ids` will be called with.
        index: of the vocabulary, where many tables are encoded one after the other.
        few: whether the table has so few rows that threads would cost more than the work that they share.
    """

    def __init__(
        self, vocabulary: Vocabulary, blocks: Blocks, index: "Index | None" = None, *, few: bool = False
    ) -> None:
        index = index or Index(vocabulary)
        self.schema = index.schema
        self._vocabulary, self._few = vocabulary, few

        def rows(place: tuple[Mapping[str, Any], Field, int]) -> list[_IdsOfStrings]:
            entry, field, first = place
            if entry["kind"] == "number":
                return []
            dictionaries = [_strings(block, few=few) for block in blocks(entry["name"])]
            make = _category_rows if entry["kind"] == "category" else _bag_rows
            return list(make(entry, index.places[entry["name"]], field, first, dictionaries))

        places = zip(vocabulary, self.schema.fields, self.schema.offsets, strict=True)
        self._rows = list(map(rows, places) if few else map_ordered(rows, places))

    def ids(
        self, block: int, table: pa.Table | pa.RecordBatch, truncated: Counter[str] | None = None
    ) -> Iterator[Ids]:
        """Yield the ids (n, S) of the rows of a block, in chunks of ROWS_PER_CHUNK.

        Args:
            block: its number.
            table: its rows.
            truncated: incremented, per bag, by the number of values beyond its slots.
        """
        sources: list[tuple[NDArray[np.int32], NDArray[np.int32]]] = []
        for entry, rows, first in zip(self._vocabulary, self._rows, self.schema.offsets, strict=True):
            column = chunk(table[entry["name"]])
            if entry["kind"] == "number":
                sources.append((np.asarray(_bin(_floats(column), entry, first)), np.empty(0, np.int32)))
                continue
            made = rows[block]
            if self._few and not pa.types.is_dictionary(column.type):
                codes = np.arange(len(column), dtype=np.int32)
            else:
                coded = encoded(column)
                codes = codes_of(coded, len(coded.dictionary))
            sources.append((codes, made.ids))
            if truncated is not None and entry["kind"] == "bag":
                counts = np.bincount(codes, minlength=len(made.truncated))
                truncated[entry["name"]] += int(counts @ made.truncated)
        for start in range(0, len(table), ROWS_PER_CHUNK):
            part = slice(start, start + ROWS_PER_CHUNK)
            ids = np.empty((min(ROWS_PER_CHUNK, len(table) - start), self.schema.slots), np.int32)
            slot = 0
            for field, first, (codes, values) in zip(
                self.schema.fields, self.schema.offsets, sources, strict=True
            ):
                if len(values):
                    ids[:, slot : slot + field.slots] = values[codes[part]]
                else:
                    ids[:, slot : slot + field.slots] = _steps(codes[part], first + field.size, field.slots)
                slot += field.slots
            yield ids


@dataclass(frozen=True)
class _IdsOfStrings:
    """The ids (D + 1, slots) of the D distinct strings of a block and of a missing one."""

    ids: Ids
    truncated: NDArray[np.int64]  # number of values of each beyond the slots


def _entries(entry: Mapping[str, Any]) -> int:
    """Return the number of ids of a field without its unseen id."""
    if entry["kind"] == "number":
        return int(entry["missing"]) + (len(entry["edges"]) + 1 if entry["values"] else 0)
    return len(entry["values"])


def _floats(column: pa.Array) -> NDArray[np.float64]:
    """Return the numbers; NaN for missing ones."""
    values: NDArray[np.float64] = column.to_numpy(zero_copy_only=False).astype(np.float64, copy=False)
    return values


def _counted(column: pa.Array) -> tuple[pa.Array, NDArray[np.int64]]:
    """Return the distinct strings of a block, null last, and the number of rows that have each."""
    coded = encoded(column)
    codes = codes_of(coded, len(coded.dictionary))
    counts = np.bincount(codes, minlength=len(coded.dictionary) + 1)
    return pa.concat_arrays([coded.dictionary, pa.nulls(1, pa.string())]), counts


def _bags(column: pa.Array, separator: str) -> tuple[pa.Array, NDArray[np.int64], int]:
    """Return the values in the bags of a block, their numbers of rows, and the largest number in one row."""
    texts, counts = _counted(column)
    row, values = _distinct(texts, separator)
    held = counts[row]
    used = held > 0
    sizes = np.bincount(row[used])
    return values, held, int(sizes.max(initial=0))


def _ranked(
    parts: Iterable[tuple[pa.Array, NDArray[np.int64]]], min_count: int, kept: pa.Array | None = None
) -> dict[str, Any]:
    """Merge counts and order the values: the most frequent first, ties alphabetically with null first.

    Args:
        kept: values that stay, however rare.
    """
    tables = []
    for values, counts in parts:
        held = counts > 0
        tables.append(pa.table({"value": values.filter(pa.array(held)), "count": counts[held]}))
    none = pa.table({"value": pa.array([], pa.string()), "count": pa.array([], pa.int64())})
    whole = pa.concat_tables([none, *tables])
    merged = whole.group_by("value").aggregate([("count", "sum")])
    stays = pc.greater_equal(merged["count_sum"], min_count)
    if kept is not None:
        stays = pc.or_(stays, pc.is_in(merged["value"], kept))
    common = merged.filter(stays)
    common = common.sort_by([("value", "ascending")])
    # the sort above puts the missing value last; a rank of its own brings it to the front of a tie
    count = common["count_sum"].to_numpy()
    absent = pc.is_null(common["value"]).to_numpy()
    order = np.lexsort((np.arange(len(count)), ~absent, -count))
    return {"values": common["value"].take(pa.array(order)).to_pylist(), "rare": len(merged) - len(common)}


def _bins(parts: list[NDArray[np.float64]], bins: int) -> dict[str, Any]:
    """Return edges at the quantiles; equal ones are merged and the first bin is never empty."""
    missing = any(bool(np.isnan(part).any()) for part in parts)
    values = np.concatenate([part[np.isfinite(part)] for part in parts]) if parts else np.empty(0)
    if not len(values):  # infinite numbers alone share one bin
        held = any(bool(np.isinf(part).any()) for part in parts)
        return {"edges": [], "values": held, "missing": missing}
    ranks = [k * len(values) // bins for k in range(1, bins)]
    values = np.partition(values, [0, *ranks])
    edges = np.unique(values[ranks])
    return {"edges": edges[edges > values[0]].tolist(), "values": True, "missing": missing}


def _category_rows(
    _entry: Mapping[str, Any], find: Places, _field: Field, first: int, dictionaries: Sequence[pa.Array]
) -> Iterator[_IdsOfStrings]:
    if not dictionaries:
        return
    places = find.of(_joined(dictionaries))
    start = 0
    for dictionary in dictionaries:
        ids = np.full((len(dictionary) + 1, 1), first + find.missing, np.int32)
        ids[:-1, 0] = first + places[start : start + len(dictionary)]
        start += len(dictionary)
        yield _IdsOfStrings(ids, np.zeros(len(ids), np.int64))


def _bag_rows(
    entry: Mapping[str, Any], find: Places, field: Field, first: int, dictionaries: Sequence[pa.Array]
) -> Iterator[_IdsOfStrings]:
    last = entry.get("slots_from") == "end"
    bags = [_distinct(dictionary, entry["separator"], last=last) for dictionary in dictionaries]
    if not bags:
        return
    places = find.of(_joined([values for _, values in bags]))
    start = 0
    for dictionary, (row, values) in zip(dictionaries, bags, strict=True):
        code = places[start : start + len(values)].astype(np.int64)
        start += len(values)
        ids = np.full((len(dictionary) + 1, field.slots), EMPTY, np.int32)
        if np.count_nonzero(code == 0) > 1:  # all unseen values have one id, which a bag contains once
            keep = _one_of_each(row, code, last=last)
            row, code = row[keep], code[keep]
        starts = np.flatnonzero(np.append(True, row[1:] != row[:-1])[: len(row)])
        sizes = np.diff(np.append(starts, len(row)))
        place = np.arange(len(row)) - np.repeat(starts, sizes)
        if last:
            place -= np.repeat(np.maximum(sizes - field.slots, 0), sizes)
        fits = (place >= 0) & (place < field.slots)
        ids[row[fits], place[fits]] = first + code[fits]
        yield _IdsOfStrings(ids, np.bincount(row[~fits], minlength=len(ids)))


def _bin(values: NDArray[np.float64], entry: Mapping[str, Any], first: int) -> NDArray[np.int32]:
    """Return ids: first the unseen one, then, if train rows have it, the missing one, then bins."""
    missing = np.isnan(values)
    start = 1 + int(entry["missing"])
    bins = start + np.searchsorted(np.array(entry["edges"]), values, side="right")
    if not entry["values"]:
        bins = np.zeros(len(values), np.int64)
    ids: NDArray[np.int32] = (first + np.where(missing, int(entry["missing"]), bins)).astype(np.int32)
    return ids


def _steps(ids: Ids, end: int, slots: int) -> Ids:
    """Return the ids (n, slots) of all bins up to that of each id (n,); a missing or unseen number has none.

    Args:
        end: one more than the field's last id; its last `slots` ids are those of its bins.
    """
    if slots == 1:
        return ids[:, None]
    bins = np.arange(end - slots, end, dtype=np.int32)
    steps = np.where(bins <= ids[:, None], bins, EMPTY).astype(np.int32)
    alone = ids < bins[0]
    steps[alone, 0] = ids[alone]
    return steps


def _strings(column: pa.Array, *, few: bool) -> pa.Array:
    """Return the strings of a column to look up: its distinct ones, or, where they are few, its own."""
    if few and not pa.types.is_dictionary(column.type):
        return column
    return encoded(column).dictionary


def _joined(arrays: Sequence[pa.Array]) -> pa.Array | pa.ChunkedArray:
    return arrays[0] if len(arrays) == 1 else pa.chunked_array(arrays)


def _distinct(texts: pa.Array, separator: str, *, last: bool = False) -> tuple[NDArray[np.int64], pa.Array]:
    """Return (row, value) of the bags' values in order, each value once a row, empty ones left out.

    Args:
        last: a repeated value stands where it is last.
    """
    if (few := few_plain(texts)) is not None:
        rows, parts = [], []
        for number, text in enumerate(few):
            each = [value for part in (text or "").split(separator) if (value := part.strip())]
            each = list(dict.fromkeys(reversed(each)))[::-1] if last else list(dict.fromkeys(each))
            rows += [number] * len(each)
            parts += each
        return np.array(rows, np.int64), pa.array(parts, pa.string())
    bags = pc.split_pattern(texts, separator)
    row, values = pc.list_parent_indices(bags), pc.utf8_trim_whitespace(pc.list_flatten(bags))
    full = pc.not_equal(values, "")
    rows, values = row.filter(full).to_numpy().astype(np.int64), values.filter(full)
    codes = values.dictionary_encode().indices.to_numpy(zero_copy_only=False).astype(np.int64)
    keep = _one_of_each(rows, codes, last=last)
    return (rows, values) if len(keep) == len(rows) else (rows[keep], values.take(pa.array(keep)))


def _one_of_each(row: NDArray[np.int64], code: NDArray[np.int64], *, last: bool) -> NDArray[np.int64]:
    """Return the positions of the first or last occurrence of each pair (row, code), ascending."""
    pairs = row * (code.max(initial=0) + 1) + code
    if last:
        return np.sort(len(pairs) - 1 - np.unique(pairs[::-1], return_index=True)[1])
    return np.sort(np.unique(pairs, return_index=True)[1])
