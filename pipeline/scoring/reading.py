"""How raw columns become the fields of a model, as `preprocess` reads those of training."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from difflib import get_close_matches
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow.types import is_string

from pipeline.common.errors import PipelineError
from pipeline.datasets import tabular
from pipeline.preprocess import parse
from pipeline.preprocess.clean_table import MAX_REJECTED
from pipeline.preprocess.parse import chunk
from pipeline.preprocess.rejects import RejectLog
from pipeline.preprocess.tables import Layout
from pipeline.preprocess.timestamps import written
from pipeline.preprocess.units import Lines
from pipeline.split.vocabulary import Vocabulary

Settings = dict[str, Any]
OF_FILES = ("separator", "encoding", "quote", "escape", "names")  # arguments of `tabular.read`: `Layout`
OF_VALUES = ("fields", "time", "missing", "decimal")  # ... and `tabular.plan_of`
LIMIT = "max_rejected"  # of the preprocess stage
KEPT = (*OF_FILES, *OF_VALUES, LIMIT)  # what a package knows of how its log was read
EXAMPLE_TIMES = (datetime(2017, 7, 14, 2, 40, tzinfo=UTC), datetime(2017, 7, 14, 20, 5, tzinfo=UTC))
FEW_ROWS = 1024  # up to which a call of Arrow costs more than its work, so that columns share it
ROWS = "row"  # what stands for the file in messages about rows in memory


def of_clean_table(vocabulary: Vocabulary) -> Settings:
    """Return how the clean table of a dataset is read: as a log of one's own with its fields."""
    fields = {
        entry["name"]: {
            "domain": entry["domain"],
            "type": entry["kind"],
            **({"separator": entry["separator"]} if entry["kind"] == "bag" else {}),
        }
        for entry in vocabulary
    }
    return {"fields": fields, "missing": [""], "time": {"column": "time", "format": "seconds"}}


class Reading:
    """Reads rows without a label.

    Args:
        settings: those of the arguments of `tabular.read` that are named in `OF_FILES` and `OF_VALUES`, and
            the share of bad records that training allowed, if it was not the default.
        vocabulary: of the model.
        timed: whether the model needs times.

    Attributes:
        layout: how text files are written.
        uses: raw column -> what each use of it reads it as.
        clock: the raw column of the log's times and their format, where the model reads that column.
        max_rejected: the share of bad records that training allowed.
    """

    def __init__(self, settings: Settings, vocabulary: Vocabulary, *, timed: bool) -> None:
        values = {key: settings[key] for key in OF_VALUES if key in settings}
        if not timed:
            values.pop("time", None)
        self.plan = tabular.plan_of(**values)
        names = settings.get("names")
        self.layout = Layout(**{key: settings[key] for key in OF_FILES[:-1] if key in settings}, names=names)
        self.max_rejected = float(settings.get(LIMIT, MAX_REJECTED))
        self._separators = {
            entry["name"]: entry["separator"] for entry in vocabulary if entry["kind"] == "bag"
        }
        self._fields = [entry["name"] for entry in vocabulary]
        self.uses: dict[str, list[str]] = {}
        for column, _, use in self.plan.uses:
            self.uses.setdefault(column, []).append(use)
        self.clock: tuple[str, str] | None = None
        whole = tabular.plan_of(**{key: settings[key] for key in OF_VALUES if key in settings})
        if whole.time is not None and whole.time.column in self.uses:
            self.clock = whole.time.column, whole.time_format

    @cached_property
    def plain(self) -> set[str]:
        """The columns that are read as numbers and times alone."""
        return self.plan.plain

    def fields_of(self, column: str) -> list[str]:
        """Return the fields that are made of a raw column."""
        fields = self.plan.fields.items()
        return [made for name, field in fields if field.source == column for made in field.columns(name)]

    def is_time(self, column: str) -> bool:
        """Whether the times of the rows are in a raw column."""
        return self.plan.time is not None and self.plan.time.column == column

    def examples(self, column: str, vocabulary: Mapping[str, Mapping[str, Any]]) -> list[Any]:
        """Return two values of a raw column, such as training saw.

        Args:
            vocabulary: the entry of each field.
        """
        for name, field in self.plan.fields.items():
            if field.source != column or field.type == "timestamp":
                continue
            entry = vocabulary[name]
            if field.type == "number":
                edges = entry["edges"] or [0.0]
                return [edges[len(edges) // 2], edges[0]]
            values = [value for value in entry["values"] if value is not None] or ["new"]
            return [values[0], values[min(1, len(values) - 1)]]
        formats = {field.source: field.format for field in self.plan.fields.values()}
        time_format = self.plan.time_format if self.is_time(column) else formats[column] or "iso"
        return [written(moment, time_format) for moment in EXAMPLE_TIMES]

    def check(self, types: Mapping[str, pa.DataType], where: str) -> None:
        """Raise if a column is not there, or has a type that cannot be read as it was in training.

        Raises:
            PipelineError: it names the column.
        """
        for column, uses in self.uses.items():
            if column not in types:
                raise PipelineError(
                    f"{where}: no column {column!r}, which the model reads"
                    f"{_instead(column, types, self.uses)}"
                )
            for use in uses:
                if not parse.usable(types[column], use):
                    raise PipelineError(
                        f"{where}: the column {column!r} holds {types[column]}, which is no {use}"
                    )

    def clean(
        self, table: pa.Table | pa.RecordBatch, lines: Lines, file: str, rejects: RejectLog
    ) -> tuple[pa.RecordBatch, NDArray[np.bool_]]:
        """Return the fields of all rows (and `time`), and which of the rows (n,) are not rejected."""
        check = tabular.Check(table, lines, file, rejects, alarm=False)
        made = tabular.features_of(check, self.plan, self._separators, self._texts(table))
        return pa.record_batch(
            {name: made[name] for name in self._fields} | tabular.times_of(check, self.plan)
        ), check.good

    def _texts(self, table: pa.Table | pa.RecordBatch) -> Callable[[str], pa.Array]:
        """Return what gives a column's values as `parse.texts` does; of few rows all columns at once."""
        how = self.plan.missing, self.plan.decimal
        names = [name for name in self.uses if len(table) <= FEW_ROWS and is_string(table[name].type)]
        if not names:
            return lambda name: parse.texts(chunk(table[name]), *how)
        joined = pa.concat_arrays([chunk(table[name]) for name in names])
        made = parse.texts(joined, *how).dictionary_decode()
        parts = {name: made.slice(number * len(table), len(table)) for number, name in enumerate(names)}
        return lambda name: parts[name] if name in parts else parse.texts(chunk(table[name]), *how)


def to_table(frame: Any, columns: Sequence[str], *, optional: bool = False) -> pa.RecordBatch:
    """Return columns of rows in memory.

    Args:
        frame: a DataFrame, an Arrow table, a mapping of names to lists, or a list of mappings, one a row.
        optional: a column that is not there has missing values, and is no error.

    Raises:
        PipelineError: a column is not there or twice, or its values are of several types.
    """
    if isinstance(frame, Sequence):
        frame = {
            name: [row.get(name) for row in frame] for name in dict.fromkeys(n for row in frame for n in row)
        }
    if isinstance(frame, Mapping):
        for name, values in frame.items():
            if isinstance(values, str) or not hasattr(values, "__len__"):
                raise PipelineError(
                    f"column {name!r} is one value, {values!r}: give a list, with a value a row"
                )
    given = frame.column_names if isinstance(frame, pa.Table) else frame
    names = {str(name).strip(): name for name in given}
    size = len(next(iter(frame.values()), ())) if isinstance(frame, Mapping) else len(frame)
    made: dict[str, pa.Array] = {}
    for column in columns:
        if column in names:
            made[column] = _array(frame[names[column]], column)
        elif optional:
            made[column] = pa.nulls(size)
        else:
            raise PipelineError(
                f"the rows: no column {column!r}, which the model reads{_instead(column, names, columns)}"
            )
    return pa.record_batch(_small_texts(made))


def _instead(column: str, given: Iterable[str], wanted: Iterable[str]) -> str:
    """Say which of the given columns may be meant, one that is not wanted itself, or which there are."""
    near = get_close_matches(column, sorted(set(given) - set(wanted)), n=1)
    return f"; did you mean {near[0]!r}?" if near else f" (there are: {', '.join(sorted(given)) or 'none'})"


def _array(values: Any, column: str) -> pa.Array:
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return chunk(values)
    if getattr(values, "ndim", 1) != 1:
        raise PipelineError(f"the rows have several columns {column!r}")
    own = getattr(values, "array", None)  # of a column of pandas, some of whose arrays are Arrow's
    if hasattr(own, "__arrow_array__"):
        values = own
    elif isinstance(getattr(values, "dtype", None), np.dtype):
        values = np.asarray(values)  # a column of pandas costs Arrow several times as much
    try:
        made = chunk(pa.array(values, from_pandas=True))
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise PipelineError(
            f"column {column!r}: its values are not of one type ({reason}): "
            "give all of them as texts, or all as numbers"
        ) from None
    return made


def _small_texts(columns: dict[str, pa.Array]) -> dict[str, pa.Array]:
    """Return the columns; what pandas calls str as `string`, on which readers of text are faster."""
    large = {name: column for name, column in columns.items() if pa.types.is_large_string(column.type)}
    if not large:
        return columns
    rows = len(next(iter(large.values())))
    if rows > FEW_ROWS:
        return columns | {name: pc.cast(column, pa.string()) for name, column in large.items()}
    joined = pc.cast(pa.concat_arrays(list(large.values())), pa.string())
    return columns | {name: joined.slice(number * rows, rows) for number, name in enumerate(large)}
