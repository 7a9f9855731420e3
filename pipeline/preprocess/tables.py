"""Anybody's files as tables, block by block: text with separators, or Parquet.

Values of text lose the white space around them, and so do column names. Whatever type a Parquet column
has, its values can be had as texts (an integer in decimals, 12.0 as `12`), and as numbers, times or
lists where that makes sense.
"""

import codecs
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as is_

from pipeline.common.errors import PipelineError, unknown
from pipeline.preprocess.rejects import RejectLog
from pipeline.preprocess.text import Dialect, Lines, first_line, records

TEXT = (".csv", ".tsv", ".tab", ".txt", ".dat", ".data", ".log")
PARQUET = (".parquet", ".pq", ".parq")
PACKED = ("", ".gz", ".bz2", ".zst")
SUFFIXES = (*(name + packed for name in TEXT for packed in PACKED), *PARQUET)
SEPARATORS = (",", ";", "\t", "|", "::", "\x01")  # those a wrong one is compared with
BETWEEN = "\x1f"  # between the values of a list, once it is one text
CELLS = 1 << 22  # values of a Parquet file held at a time
ROWS = (1 << 14, 1 << 18)  # at least and at most so many rows of it
_NO_TEXT = {  # first bytes of what people take for a table
    b"PK\x03\x04": "a zip archive or an Excel file: unpack it, or save the sheet as CSV",
    b"\xd0\xcf\x11\xe0": "an old Excel file: save the sheet as CSV",
    b"ARROW1": "an Arrow file: save it as Parquet",
    b"ORC": "an ORC file: save it as Parquet",
    b"Obj\x01": "an Avro file: save it as Parquet",
    b"SQLite format 3": "a database: save the table as CSV",
    b"\x1f\x8b": "packed with gzip: its name must end in .gz",
    b"BZh": "packed with bzip2: its name must end in .bz2",
    b"\x28\xb5\x2f\xfd": "packed with zstandard: its name must end in .zst",
}


@dataclass(frozen=True)
class Layout:
    """How text files are written.

    Attributes:
        separator: between fields; None: a tab in .tsv and .tab files, else a comma.
        encoding: a name that Python knows.
        quote: around a field that holds separators, line ends or doubled quotes; separators of several
            characters go without.
        escape: before a character that stands for itself.
        names: of the columns, where the file's first line does not say them.
    """

    separator: str | None = None
    encoding: str = "utf-8"
    quote: str | None = '"'
    escape: str | None = None
    names: tuple[str, ...] | None = None

    def check(self) -> None:
        """Refuse what no file can be read with.

        Raises:
            PipelineError: it names the key.
        """
        separator = self.separator or ","
        if self.separator == "" or set(separator) & set("\r\n"):
            raise PipelineError(f"separator {self.separator!r} must be a character (or some) within a line")
        if len(separator) == 1 and not separator.isascii():
            raise PipelineError(f"separator {separator!r} is not an ASCII character")
        for key, value in (("quote", self.quote), ("escape", self.escape)):
            if value is not None and (len(value) != 1 or not value.isascii() or value in "\r\n"):
                raise PipelineError(f"{key} {value!r} must be one ASCII character, or null for none")
        if len(separator) > 1 and self.escape is not None:
            raise PipelineError(f"escape {self.escape!r} goes with a separator of one character alone")
        signs = [sign for sign in (separator, self.quote, self.escape) if sign is not None]
        if len(set(signs)) < len(signs):
            raise PipelineError(
                f"separator, quote and escape must differ (they are {', '.join(map(repr, signs))})"
            )
        try:
            codecs.lookup(self.encoding)
            plain = "a,\n".encode(self.encoding) == b"a,\n"
        except (LookupError, UnicodeError):
            raise PipelineError(
                f"encoding {self.encoding!r} is not known; utf-8, latin-1, cp1252, ... are"
            ) from None
        if not plain:
            raise PipelineError(
                f"encoding {self.encoding!r} cannot be read in lines: convert the file to utf-8"
            )

    def dialect(self, file: str) -> Dialect:
        """Return how a file of this name is read."""
        tabs = any(file.endswith(name + packed) for name in (".tsv", ".tab") for packed in PACKED)
        separator = self.separator or ("\t" if tabs else ",")
        quote = self.quote if len(separator) == 1 else None
        return Dialect(separator, codecs.lookup(self.encoding).name, quote, self.escape)


class TextTable:
    """A text file of records, plain or packed (.gz, .bz2, .zst).

    Raises:
        PipelineError: it is empty or unreadable, or its header does not make names for its columns.
    """

    def __init__(self, path: Path, layout: Layout) -> None:
        self.path, self._dialect = path, layout.dialect(path.name)
        self._header = layout.names is None
        try:
            first = first_line(path, self._dialect)
        except PipelineError as error:
            raise PipelineError(f"{error}{hint(str(error))}") from None
        _hint_separator(path, first, self._dialect.delimiter)
        if layout.names is not None and len(first) != len(layout.names):
            raise PipelineError(
                f"{path.name}:1: the first line has {len(first)} fields, `names` has {len(layout.names)}"
            )
        self._raw = first if layout.names is None else list(layout.names)
        self.types: dict[str, pa.DataType] = _named(path, self._raw, dict.fromkeys(self._raw, pa.string()))

    def blocks(
        self, wanted: Collection[str], rejects: RejectLog, *, plain: Collection[str] = ()
    ) -> Iterator[tuple[pa.Table, Lines]]:
        """Yield the wanted columns of a block of rows, and the lines on which the rows begin.

        Args:
            plain: columns to be left without a dictionary, since nearly all their values differ.
        """
        names = {raw: raw.strip() for raw in self._raw}
        only = [raw for raw, name in names.items() if name in wanted]
        text = [raw for raw in only if names[raw] in plain]
        for table, lines in records(
            self.path, self._raw, rejects, self._dialect, header=self._header, text=text, only=only
        ):
            yield table.rename_columns([names[raw] for raw in table.column_names]), lines


class ParquetTable:
    """A Parquet file; its records are counted from 1, as lines of a text are.

    Raises:
        PipelineError: it is damaged, or two of its columns have one name.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with _readable(path):
            schema = pq.read_schema(path)
        raw = dict(zip(schema.names, schema.types, strict=True))
        self.types: dict[str, pa.DataType] = _named(path, schema.names, raw)

    def blocks(
        self, wanted: Collection[str], rejects: RejectLog, *, plain: Collection[str] = ()
    ) -> Iterator[tuple[pa.Table, Lines]]:
        """Yield blocks as `TextTable.blocks` does."""
        file, done = self.path.name, 0
        rejects.count(file, 0)
        with _readable(self.path):
            opened = pq.ParquetFile(self.path)
            raw = [name for name in opened.schema_arrow.names if name.strip() in wanted]
            coded = [
                name for name in raw if name.strip() not in plain and is_.is_string(self.types[name.strip()])
            ]
            opened = pq.ParquetFile(self.path, read_dictionary=coded, buffer_size=1 << 20, pre_buffer=False)
            rows = min(max(CELLS // len(wanted), ROWS[0]), ROWS[1])
            batches = opened.iter_batches(rows, columns=raw, use_threads=False)
        while True:
            with _readable(self.path):
                if (batch := next(batches, None)) is None:
                    return
                table = pa.Table.from_batches([batch])
                table.validate(full=True)  # else bytes that are no UTF-8 would be met later
            rejects.count(file, len(table))
            yield (
                table.rename_columns([name.strip() for name in table.column_names]),
                np.arange(done + 1, done + len(table) + 1),
            )
            done += len(table)


Table = TextTable | ParquetTable


def is_parquet(path: Path) -> bool:
    """Whether a file is Parquet, by its name or its first bytes."""
    with open(path, "rb") as file:
        return path.name.endswith(PARQUET) or file.read(4) == b"PAR1"


def open_table(path: Path, layout: Layout) -> Table:
    """Open one file, by what its first bytes say.

    Raises:
        PipelineError: it is empty, unreadable, or of another kind.
    """
    with open(path, "rb") as file:
        head = file.read(16)
    if not head:
        raise PipelineError(f"{path} is empty")
    if is_parquet(path):
        return ParquetTable(path)
    packed = path.name.endswith(PACKED[1:])
    for magic, what in _NO_TEXT.items():
        if head.startswith(magic) and not packed:
            raise PipelineError(f"{path} is no text but {what}")
    return TextTable(path, layout)


def open_folder(files: Sequence[Path], layout: Layout) -> list[Table]:
    """Open files that are parts of one table.

    Raises:
        PipelineError: as `open_table`, or a file has not the columns of the first.
    """
    tables = [open_table(path, layout) for path in files]
    for table in tables[1:]:
        first = tables[0]
        lacks, more = (sorted(a.types.keys() - b.types.keys()) for a, b in ((first, table), (table, first)))
        if lacks or more:
            differs = [f"lacks {_some(lacks)}"] * bool(lacks) + [f"has {_some(more)} more"] * bool(more)
            raise PipelineError(
                f"{table.path} has not the columns of {first.path.name}: it {' and '.join(differs)}. All "
                "files of a folder must have the same ones"
            )
    return tables


def hint(reason: str) -> str:
    """Return what to try where text is refused for this reason; nothing if there is nothing to try."""
    if " is not utf-8" in reason:
        return "; if the file is not in UTF-8, say `encoding: latin-1` (or cp1252, ...)"
    if "a quote is opened and not closed" in reason:
        return "; if quotes mean nothing in the file, say `quote: null`"
    return ""


def check_column(path: Path, key: str, name: str, types: dict[str, pa.DataType]) -> None:
    """Refuse a column that is not there.

    Raises:
        PipelineError: it names the nearest one.
    """
    if name not in types:
        raise PipelineError(f"{path}: {key}: {unknown('column', name, types)}")


def looks_like(line: str, delimiter: str) -> str | None:
    """Return the separator that a line which should have some seems to be written with."""
    counts = {other: line.count(other) for other in SEPARATORS if other != delimiter}
    best = max(counts, key=lambda other: (counts[other] * len(other), -SEPARATORS.index(other)))
    return best if counts[best] else None


def _hint_separator(path: Path, first: Sequence[str], delimiter: str) -> None:
    if len(first) == 1 and (better := looks_like(first[0], delimiter)):
        shown = '"\\t"' if better == "\t" else '"\\x01"' if better == "\x01" else f'"{better}"'
        raise PipelineError(
            f"{path.name}:1: the first line has no {delimiter!r} and is one field, {first[0][:80]!r}: its "
            f"separator looks like {better!r}, so say `separator: {shown}`"
        )


def _named(path: Path, raw: Sequence[str], types: dict[str, pa.DataType]) -> dict[str, pa.DataType]:
    """Return the types by the trimmed names; refuse names that stand twice."""
    names = [name.strip() for name in raw]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        places = {name: [i + 1 for i, other in enumerate(names) if other == name] for name in twice}
        told = "; ".join(f"{name!r} is columns {', '.join(map(str, at))}" for name, at in places.items())
        raise PipelineError(
            f"{path.name}: columns with the same name: {told}. Rename them in the file; where its first line "
            "is no header, give the names of the columns under `names`"
        )
    return {name.strip(): types[name] for name in raw}


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:5])) + (f" and {len(names) - 5} others" if len(names) > 5 else "")


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what Arrow says about a damaged file into a message."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0][:300]
        raise PipelineError(f"{path} cannot be read as Parquet ({reason}); is it whole?") from None
