"""Vectors of values, such as pre-trained embeddings of items: lists of numbers, one for each key.

They are a property of the key and not of a row, so that each is kept once. A list that is missing or empty is
no vector. All others have the same length, and two of one key are equal.
"""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as is_
from numpy.typing import NDArray

from pipeline.common.errors import PipelineError
from pipeline.preprocess.parse import chunk, codes_of
from pipeline.preprocess.units import Lines

Matrix = NDArray[np.float32]
_ONE_LENGTH = "all vectors of a field have the same length. Leave one that is not there empty (null)"
Keyed = tuple[pa.Array, Matrix]  # keys (N,), all different, and a vector each (N, K)


class Found(NamedTuple):
    """The vectors of some rows, once for each key.

    Attributes:
        keys: strings (N,), all different.
        values: (N, K).
        lines: of the rows that they were found in (N,).
        file: of those rows.
    """

    keys: pa.Array
    values: Matrix
    lines: Lines
    file: str


def in_rows(keys: pa.DictionaryArray, lists: pa.Array, lines: Lines, file: str, column: str) -> Found:
    """Return the vectors of rows that have a key and a list.

    Args:
        keys: a text per row.
        lists: numbers per row.
        lines, file: where the rows are, for messages.
        column: that of the lists.

    Raises:
        PipelineError: a list has another length than the first, a number that is missing or not finite, or
            two rows of one key have different ones; it names both rows.
    """
    length = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    there = (length > 0) & keys.is_valid().to_numpy(zero_copy_only=False)
    where = pa.array(there)
    keys, lists, lines, length = keys.filter(where), lists.filter(where), lines[there], length[there]
    if not len(lines):
        return Found(pa.array([], pa.string()), np.empty((0, 0), np.float32), lines, file)
    if len(odd := np.flatnonzero(length != length[0])):
        raise PipelineError(
            f"{file}:{lines[odd[0]]}: {column!r} is a list of {length[odd[0]]} numbers, and that of "
            f"{file}:{lines[0]} has {length[0]}: {_ONE_LENGTH}"
        )
    numbers = pc.list_flatten(lists)
    if is_.is_float16(numbers.type):
        numbers = pc.cast(numbers, pa.float32())
    with np.errstate(over="ignore"):
        flat = pc.fill_null(pc.cast(numbers, pa.float64()), np.nan).to_numpy().astype(np.float32)
    values = flat.reshape(len(lines), -1)
    if len(wrong := np.argwhere(~np.isfinite(values))):
        row, place = wrong[0].tolist()
        raise PipelineError(
            f"{file}:{lines[row]}: {column!r}: number {place + 1} of the list is {values[row, place]}, and "
            "vectors take finite numbers (of float32) alone. Mend it, or leave the vector empty (null)"
        )
    codes = codes_of(keys, len(keys.dictionary))
    _, first, place = np.unique(codes, return_index=True, return_inverse=True)
    if len(other := np.flatnonzero((values != values[first][place]).any(1))):
        _refuse_two(
            str(keys[other[0]].as_py()),
            column,
            file,
            int(lines[other[0]]),
            file,
            int(lines[first[place[other[0]]]]),
        )
    first = np.sort(first)
    return Found(chunk(keys.take(pa.array(first)).dictionary_decode()), values[first], lines[first], file)


class Gathered:
    """The vectors of the values of one field, from all files.

    Args:
        column: that of the lists, for messages.

    Attributes:
        keys: in the order in which they were found.
    """

    def __init__(self, column: str) -> None:
        self.column = column
        self.keys: list[str] = []
        self._place: dict[str, int] = {}
        self._room = np.empty((0, 0), np.float32)
        self._at: list[tuple[str, int]] = []

    @property
    def values(self) -> Matrix:
        """The vector of each key (N, K)."""
        return self._room[: len(self.keys)]

    def add(self, some: Found) -> None:
        """Add the vectors of some rows.

        Raises:
            PipelineError: their length is another one, or a key has another vector already.
        """
        if not len(some.lines):
            return
        if not self.keys:
            self._room = np.empty((0, some.values.shape[1]), np.float32)
        if self._room.shape[1] != some.values.shape[1]:
            file, line = self._at[0]
            raise PipelineError(
                f"{some.file}:{some.lines[0]}: {self.column!r} is a list of {some.values.shape[1]} numbers, "
                f"and that of {file}:{line} has {self._room.shape[1]}: {_ONE_LENGTH}"
            )
        keys: list[str] = some.keys.to_pylist()
        place = np.array([self._place.get(key, -1) for key in keys])
        known = np.flatnonzero(place >= 0)
        if len(other := known[(some.values[known] != self._room[place[known]]).any(1)]):
            file, line = self._at[place[other[0]]]
            _refuse_two(keys[other[0]], self.column, some.file, int(some.lines[other[0]]), file, line)
        for row in (new := np.flatnonzero(place < 0)).tolist():
            self._place[keys[row]] = len(self.keys)
            self.keys.append(keys[row])
            self._at.append((some.file, int(some.lines[row])))
        before, count = len(self.keys) - len(new), len(self.keys)
        if count > len(self._room):
            room = np.empty((max(count, 2 * len(self._room)), self._room.shape[1]), np.float32)
            room[:before] = self._room[:before]
            self._room = room
        self._room[before:count] = some.values[new]


def _refuse_two(key: str, column: str, file: str, line: int, other_file: str, other_line: int) -> None:
    raise PipelineError(
        f"{file}:{line}: {key!r} has another vector in {column!r} than in {other_file}:{other_line}: a "
        "vector belongs to the value of `key` and is the same wherever that is. Mend the file, or let `key` "
        "name the column that it belongs to"
    )
