"""Side tables and joins by their first column."""

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.preprocess.cleaning import Rule, screen
from pipeline.preprocess.parse import chunk, encoded
from pipeline.preprocess.rejects import RejectLog
from pipeline.preprocess.text import Dialect, records


def side_table(
    path: Path,
    names: Sequence[str],
    rules: Mapping[str, Rule],
    rejects: RejectLog,
    dialect: Dialect,
    *,
    header: bool = False,
    only: Collection[str] | None = None,
) -> pa.Table:
    """Read a side table as one chunk, without the rows that break a rule.

    Args:
        names, header, only: as in `records`.
        rules: as in `screen`.
    """
    blocks = records(path, names, rejects, dialect, header=header, only=only, side_table=True)
    parts = [screen(table, lines, path.name, rejects, rules)[0] for table, lines in blocks]
    return pa.concat_tables(parts).unify_dictionaries().combine_chunks()


class Side:
    """A side table, joined by the strings in its first column; the first row of a repeated key counts."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table.combine_chunks()
        self.key = table.column_names[0]

    @cached_property
    def _keys(self) -> pa.Array:
        return pc.cast(chunk(self._table[self.key]), pa.string())

    @cached_property
    def _columns(self) -> dict[str, pa.Array]:
        columns = {name: chunk(self._table[name]) for name in self._table.column_names[1:]}
        return {
            name: encoded(column) if _is_text(column.type) else column for name, column in columns.items()
        }

    def join(self, keys: pa.Array) -> dict[str, pa.Array]:
        """Return the column of keys and those of the side table, row by row; missing for unknown keys."""
        coded = encoded(keys)
        rows = pc.index_in(coded.dictionary, self._keys).take(coded.indices)
        joined: dict[str, pa.Array] = {self.key: coded}
        for name, column in self._columns.items():
            if pa.types.is_dictionary(column.type):
                indices = column.indices.take(rows)
                joined[name] = pa.DictionaryArray.from_arrays(indices, column.dictionary)
            else:
                joined[name] = column.take(rows)
        return joined


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_dictionary(kind))
