"""Files of any layout as tables, block by block: text with separators, or Parquet.

The names of columns lose the white space around them. What the values mean is the business of `parse.py`.
"""

import codecs
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as is_

from pipeline.common.errors import PipelineError, unknown
from pipeline.common.text import counted, listed
from pipeline.preprocess.kinds import PACKED, check_text
from pipeline.preprocess.rejects import RejectLog
from pipeline.preprocess.text import Dialect, TextFile, first_line
from pipeline.preprocess.units import Clean, Done, Lines, Unit, as_it_is, cleaned

COMPRESSED = ("", *PACKED)
TEXT_SUFFIXES = (".csv", ".tsv", ".tab", ".txt", ".dat", ".data", ".log")
PARQUET_SUFFIXES = (".parquet", ".pq", ".parq")
SUFFIXES = (*(text + packed for text in TEXT_SUFFIXES for packed in COMPRESSED), *PARQUET_SUFFIXES)
LIST_SEPARATOR = "\x1f"  # between the values of a Parquet list that has become one text
VALUES_PER_BLOCK = 1 << 22  # of a Parquet file
CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
ROWS_PER_BLOCK = (1 << 14, 1 << 18)  # at least and at most


@dataclass(frozen=True)
class Layout:
    """How text files are written.

    Attributes:
        separator: between fields; None: a tab in .tsv and .tab files, else a comma.
        encoding: as Python calls it.
        quote: around a field that contains separators, line ends or doubled quotes; ignored with a
            separator of several characters.
        escape: before a character that loses its meaning.
        names: of the columns, for files without a header.
    """

    separator: str | None = None
    encoding: str = "utf-8"
    quote: str | None = '"'
    escape: str | None = None
    names: tuple[str, ...] | None = None

    def check(self) -> None:
        """Raise if no file can be read in this layout.

        Raises:
            PipelineError: it names the key.
        """
        separator = self.separator or ","
        if self.separator == "" or set(separator) & set("\r\n"):
            raise PipelineError(
                f"separator {self.separator!r} must be one or more characters, and no line end"
            )
        if len(separator) == 1 and not separator.isascii():
            raise PipelineError(f"separator {separator!r} is not an ASCII character")
        for key, value in (("quote", self.quote), ("escape", self.escape)):
            if value is not None and (len(value) != 1 or not value.isascii() or value in "\r\n"):
                raise PipelineError(f"{key} {value!r} must be one ASCII character, or null")
        if len(separator) > 1 and self.escape is not None:
            raise PipelineError(f"escape {self.escape!r} needs a separator of one character")
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
                f"encoding {self.encoding!r} is not known; known are utf-8, latin-1, cp1252, ..."
            ) from None
        if not plain:
            raise PipelineError(
                f"encoding {self.encoding!r} does not contain ASCII: convert the file to utf-8"
            )

    def dialect(self, file: str) -> Dialect:
        """Return how a file of this name is read."""
        tabs = file.endswith(tuple(name + packed for name in (".tsv", ".tab") for packed in COMPRESSED))
        separator = self.separator or ("\t" if tabs else ",")
        quote = self.quote if len(separator) == 1 else None
        return Dialect(separator, codecs.lookup(self.encoding).name, quote, self.escape)


class _Table(ABC):
    """What text and Parquet have in common."""

    path: Path

    @abstractmethod
    def units(self, wanted: Collection[str], *, plain: Collection[str] = ()) -> Iterator[Unit]:
        """Yield what is read at a time, of the wanted columns; see `units.cleaned`.

        Args:
            plain: columns that stay without a dictionary, since nearly all their values differ.
        """

    def blocks(
        self, wanted: Collection[str], rejects: RejectLog, *, plain: Collection[str] = ()
    ) -> Iterator[tuple[pa.Table, Lines]]:
        """Yield the wanted columns of each block, and the line on which each row begins."""
        rejects.count(self.path.name, 0)
        yield from cleaned(((unit, as_it_is) for unit in self.units(wanted, plain=plain)), rejects)


class TextTable(_Table):
    """A text file of records, plain or compressed.

    Attributes:
        types: column -> Arrow type.

    Raises:
        PipelineError: the file is empty or unreadable, or its header does not name its columns.
    """

    def __init__(self, path: Path, layout: Layout) -> None:
        self.path, self._dialect = path, layout.dialect(path.name)
        self._header = layout.names is None
        try:
            first = first_line(path, self._dialect)
        except PipelineError as error:
            raise PipelineError("; ".join(filter(None, (str(error), hint(str(error)))))) from None
        _check_separator(path, first, self._dialect.delimiter)
        if layout.names is not None and len(first) != len(layout.names):
            raise PipelineError(
                f"{path.name}:1: the first line has {len(first)} fields, `names` has {len(layout.names)}"
            )
        self._raw = first if layout.names is None else list(layout.names)
        self.types: dict[str, pa.DataType] = _named(path, self._raw, dict.fromkeys(self._raw, pa.string()))

    def units(self, wanted: Collection[str], *, plain: Collection[str] = ()) -> Iterator[Unit]:
        """Yield pieces of text."""
        only = [raw for raw in self._raw if raw.strip() in wanted]
        text = [raw for raw in only if raw.strip() in plain]
        of = TextFile.of(
            self.path, self._raw, self._dialect, text=text, only=only, header=self._header, strip=True
        )
        return of.pieces()


@dataclass(frozen=True)
class Rows:
    """Some rows of a Parquet file: what is read at a time.

    Attributes:
        batch: the rows.
        start: the number of rows before them.
    """

    path: Path
    batch: pa.RecordBatch
    start: int

    def read(self, clean: Clean, before: bytes = b"") -> Done:
        """Check the rows and clean them."""
        assert not before
        table, rejects = pa.Table.from_batches([self.batch]), RejectLog()
        with _readable(self.path):
            table.validate(full=True)  # bytes that are not UTF-8 would raise anywhere later
        rejects.count(self.path.name, len(table))
        table = table.rename_columns([name.strip() for name in table.column_names])
        lines = np.arange(self.start + 1, self.start + len(table) + 1)
        return Done(clean(table, lines, rejects), rejects)


class ParquetTable(_Table):
    """A Parquet file; its rows are numbered from 1, as the lines of a text are.

    Attributes:
        types: column -> Arrow type.

    Raises:
        PipelineError: the file is damaged, or two of its columns have the same name.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with _readable(path):
            schema = pq.read_schema(path)
        raw = dict(zip(schema.names, schema.types, strict=True))
        self.types: dict[str, pa.DataType] = _named(path, schema.names, raw)

    def units(self, wanted: Collection[str], *, plain: Collection[str] = ()) -> Iterator[Unit]:
        """Yield batches of rows."""
        with _readable(self.path):
            opened = pq.ParquetFile(self.path)
            raw = [name for name in opened.schema_arrow.names if name.strip() in wanted]
            coded = [
                name for name in raw if name.strip() not in plain and is_.is_string(self.types[name.strip()])
            ]
            opened = pq.ParquetFile(self.path, read_dictionary=coded, buffer_size=1 << 20, pre_buffer=False)
            rows = min(max(VALUES_PER_BLOCK // len(wanted), ROWS_PER_BLOCK[0]), ROWS_PER_BLOCK[1])
            batches = opened.iter_batches(rows, columns=raw, use_threads=False)
        done = 0
        while True:
            with _readable(self.path):
                if (batch := next(batches, None)) is None:
                    return
            yield Rows(self.path, batch, done)
            done += len(batch)


Table = TextTable | ParquetTable


def is_parquet(path: Path) -> bool:
    """Whether a file is Parquet, by its name or its first bytes."""
    with open(path, "rb") as file:
        return path.name.endswith(PARQUET_SUFFIXES) or file.read(4) == b"PAR1"


def open_table(path: Path, layout: Layout) -> Table:
    """Open a file as what its first bytes say it is.

    Raises:
        PipelineError: the file is empty, unreadable, or of another kind.
    """
    if not path.stat().st_size:
        raise PipelineError(f"{path} is empty")
    if is_parquet(path):
        return ParquetTable(path)
    check_text(path)
    return TextTable(path, layout)


def open_folder(files: Sequence[Path], layout: Layout) -> list[Table]:
    """Open files that make up one table.

    Raises:
        PipelineError: as `open_table`, or a file does not have the columns that most files have (of two sets
            that equally many have, those of the first file).
    """
    tables = [open_table(path, layout) for path in files]
    usual = Counter(frozenset(table.types) for table in tables).most_common(1)[0][0]
    alike = [table.path.name for table in tables if table.types.keys() == usual]
    for table in tables:
        missing, extra = usual - table.types.keys(), table.types.keys() - usual
        if missing or extra:
            differences = [
                f"{kind} {listed(map(repr, sorted(names)))}"
                for kind, names in (("missing", missing), ("extra", extra))
                if names
            ]
            others = f" and {counted(len(alike) - 1, 'other file')}" if len(alike) > 1 else ""
            wanted = ", ".join(alike[:3] + ["..."] * (len(alike) > 3))
            raise PipelineError(
                f"{table.path} does not have the same columns as {alike[0]}{others}: "
                f"{', '.join(differences)}. If it is no part of the log, move it out of the folder, or name "
                f"the wanted files under `download`: `files: [{wanted}]`"
            )
    return tables


def hint(reason: str) -> str:
    """Return what to try where text is rejected for this reason; empty if there is nothing to try."""
    if " is not utf-8" in reason:
        return "if the file is not in UTF-8, say `encoding: latin-1` (or cp1252, ...)"
    if "a quote is opened and not closed" in reason:
        return "if quotes mean nothing in the file, say `quote: null`"
    return ""


def check_column(path: Path, key: str, name: str, types: dict[str, pa.DataType]) -> None:
    """Raise if a file has no column of this name.

    Raises:
        PipelineError: it names the nearest one.
    """
    if name not in types:
        raise PipelineError(f"{path}: {key}: {unknown('column', name, types)}")


def _check_separator(path: Path, first: Sequence[str], delimiter: str) -> None:
    """Raise if the first line is one field and has another separator in it."""
    if len(first) > 1:
        return
    others = [other for other in (",", ";", "\t", "|", "::", "\x01") if other != delimiter]
    best = max(others, key=lambda other: first[0].count(other) * len(other))
    if best in first[0]:
        written = {"\t": '"\\t"', "\x01": '"\\x01"'}.get(best, f'"{best}"')
        raise PipelineError(
            f"{path.name}:1: the first line has no {delimiter!r} and is one field, {first[0][:80]!r}: its "
            f"separator looks like {best!r}, so set `separator: {written}`"
        )


def _named(path: Path, raw: Sequence[str], types: dict[str, pa.DataType]) -> dict[str, pa.DataType]:
    """Return the types by the trimmed names; raise if two columns have the same one."""
    names = [name.strip() for name in raw]
    for place, name in enumerate(names):
        if CONTROL.search(name):  # to a terminal, or as a line of params.yaml, they would be commands
            what = f"the name of column {place + 1} has a control character, {name[:80]!r}"
            raise PipelineError(f"{path.name}: {what}: rename it in the file")
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        places = {name: [i + 1 for i, other in enumerate(names) if other == name] for name in twice}
        listed = "; ".join(f"{name!r} is columns {', '.join(map(str, at))}" for name, at in places.items())
        raise PipelineError(
            f"{path.name}: columns with the same name: {listed}. Rename them in the file; if its first line "
            "is not a header, give the names of the columns under `names`"
        )
    return {name.strip(): types[name] for name in raw}


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn Arrow's errors about a damaged file into ours."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0][:300]
        raise PipelineError(f"{path} cannot be read as Parquet ({reason}); is it damaged?") from None
