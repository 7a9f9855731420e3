"""Text files of records -> tables of strings, block by block, with every rejected line accounted for.

Arrow's reader parses whole blocks. Around it stands what it does not do: the number of the line on which
each row begins, the reason why a line is rejected, other encodings than UTF-8, and fields in quotes that
run over several lines (`text_multiline.py`). A quote that is opened and never closed costs its line, not
the rest of the file.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv

from pipeline.common.errors import PipelineError
from pipeline.preprocess.rejects import RejectLog
from pipeline.preprocess.text_multiline import LineScanner, State, join_records
from pipeline.preprocess.units import Clean, Done, Lines, as_it_is, cleaned

CODED = pa.dictionary(pa.int32(), pa.string())
BLOCK_BYTES = 16 << 20  # held at a time
WIDE = 1000  # columns, from which on blocks are larger: each costs some time per column
MAX_LINE_BYTES = 256 << 20  # a file with longer lines is no text
_SUBSTITUTE = b"\x1f"  # for a delimiter of several characters, which Arrow does not know
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_JUDGED_BYTES = 1 << 16  # by which the line ends of a file are judged


@dataclass(frozen=True)
class Dialect:
    """How a text file is written.

    A quote counts at the beginning of a field and inside a quoted one; what follows the closing quote up
    to the next delimiter belongs to the field, too. Elsewhere a quote is a character like any other.

    Attributes:
        delimiter: between the fields of a record; of several characters only without quote and escape, and
            then a U+001F in the text becomes a space.
        encoding: of the text; one in which exactly the ASCII characters have the bytes of ASCII.
        quote: around a field that contains delimiters, line ends or (doubled) quotes.
        escape: before a character that loses its meaning.
    """

    delimiter: str = ","
    encoding: str = "utf-8"
    quote: str | None = None
    escape: str | None = None

    def __post_init__(self) -> None:
        special = [mark for mark in (self.quote, self.escape) if mark is not None]
        assert len(self.delimiter) == 1 or (self.delimiter and not special), self
        assert len({self.delimiter, *special}) == 1 + len(special), self
        assert all(len(mark) == 1 and mark.isascii() for mark in special), self

    @cached_property
    def scanner(self) -> LineScanner:
        """What follows a record over the ends of its lines."""
        return LineScanner(self.delimiter, self.quote, self.escape)

    def may_continue(self, data: bytes) -> bool:
        """Whether a record in this text may run over several lines."""
        return any(mark is not None and mark.encode() in data for mark in (self.quote, self.escape))


def records(
    path: Path,
    names: Sequence[str],
    rejects: RejectLog,
    dialect: Dialect,
    *,
    header: bool = False,
    text: Collection[str] = (),
    only: Collection[str] | None = None,
    side_table: bool = False,
    file: str | None = None,
    block_bytes: int = BLOCK_BYTES,
    clean: Clean = as_it_is,
) -> Iterator[Any]:
    """Read a file of records, plain or compressed (.gz, .bz2, .zst), block by block.

    Yields at least one table, each of one chunk, and the number of the line (from 1) on which each row
    begins, or what `clean` makes of these. The columns are strings, dictionary-encoded (`CODED`) or plain; an
    empty field is an empty string. A line ends with LF or CR LF, or with CR in a file that has no LF in its
    first 64 KiB; a CR elsewhere, and a line end inside quotes or after an escape, becomes a space. Blank
    lines are no records, and a byte order mark is skipped.

    Rejected are a record with another number of fields, one with bytes that are not in the encoding, and a
    line with a quote or an escape that the next `MAX_LINE_ENDS` lines do not complete to a record; on the
    line after it a record may begin.

    Args:
        names: of all columns.
        header: the first line must hold exactly `names`.
        text: columns that stay plain, since nearly all their values differ (numbers, times).
        only: the columns to return (default: all).
        side_table: its records do not become rows.
        file: its name in the reject log (default: its file name).
        block_bytes: of a block, more in tables of thousands of columns; does not change the rows.
        clean: called with table, lines and the rejects of each block; pure but for these, since all cores
            clean blocks at a time.

    Raises:
        PipelineError: the file is missing, empty, damaged, no text, or has another header.
    """
    text_file = TextFile.of(
        path, names, dialect, text=text, only=only, side_table=side_table, file=file, header=header
    )
    rejects.count(text_file.file, 0, side_table=side_table)
    pieces = text_file.pieces(block_bytes)
    yield from cleaned(((piece, clean) for piece in pieces), rejects)


@dataclass(frozen=True)
class TextFile:
    """How the records of a text file are read; the arguments are those of `records`.

    Attributes:
        strip: whether the names of columns lose the white space around them.
    """

    path: Path
    names: Sequence[str]
    dialect: Dialect
    types: dict[str, pa.DataType]
    side_table: bool
    file: str
    header: bool
    strip: bool

    @classmethod
    def of(
        cls,
        path: Path,
        names: Sequence[str],
        dialect: Dialect,
        *,
        text: Collection[str] = (),
        only: Collection[str] | None = None,
        side_table: bool = False,
        file: str | None = None,
        header: bool = False,
        strip: bool = False,
    ) -> "TextFile":
        """Name the columns to read and their types."""
        wanted = [name for name in names if only is None or name in only]
        assert wanted, (names, only)
        types = {name: pa.string() if name in text else CODED for name in wanted}
        return cls(path, names, dialect, types, side_table, file or path.name, header, strip)

    def pieces(self, block_bytes: int = BLOCK_BYTES) -> Iterator["Piece"]:
        """Yield the file in pieces of whole lines, at least one."""
        line = 1
        for data, last in _blocks(self.path, block_bytes * max(1, len(self.names) // WIDE)):
            if self.header and line == 1:
                head, _, data = data.partition(b"\n")
                _check_header(self.path, head, self.names, self.dialect)
                line = 2
            if data or last:
                yield Piece(self, data, line, last)
            line += data.count(b"\n")


@dataclass(frozen=True)
class Piece:
    """Whole lines of a text file, from the given one (from 1) on: what is read at a time.

    Whether a record of the piece before ends in this one is not known before that one has been read, and
    hardly ever so: the piece is read as if it began with a record, and once more if it does not.
    """

    source: TextFile
    data: bytes
    line: int
    last: bool

    def read(self, clean: Clean, before: bytes = b"") -> Done:
        """Read the records and clean them.

        Args:
            before: whole lines of a record that ends in this piece.
        """
        of, data, rejects = self.source, before + self.data, RejectLog()
        block = _read_block(data, of.names, of.types, of.dialect, last=self.last)
        rejects.count(of.file, len(block.table) + len(block.rejected), side_table=of.side_table)
        line = self.line - before.count(b"\n")
        for number, reason in sorted(block.rejected.items()):
            rejects.reject(of.file, line + number - 1, reason)
        table = block.table
        if of.strip:
            table = table.rename_columns([name.strip() for name in table.column_names])
        return Done(clean(table, block.lines + (line - 1), rejects), rejects, data[len(data) - block.rest :])


def first_line(path: Path, dialect: Dialect) -> list[str]:
    """Return the fields of a file's first line.

    Raises:
        PipelineError: as `records`.
    """
    data, _ = next(_blocks(path, 1 << 16))
    return _fields(path, data.partition(b"\n")[0], dialect)


def head(path: Path, size: int) -> bytes:
    """Return the first bytes of a file, unpacked, without a byte order mark; a line ends with LF.

    Raises:
        PipelineError: as `records`.
    """
    data = b""
    for piece in _pieces(path, size):
        data += piece
        if len(data) >= size:
            break
    return _plain(data[:size])


@dataclass
class _Block:
    """The rows of a block; lines count from 1 in it."""

    table: pa.Table
    lines: Lines  # on which the rows begin
    rejected: dict[int, str]  # line -> reason
    rest: int = 0  # bytes at its end whose record continues in the next block


def _read_block(
    data: bytes, names: Sequence[str], types: dict[str, pa.DataType], dialect: Dialect, *, last: bool
) -> _Block:
    """Read the records of whole lines."""
    if not dialect.may_continue(data):  # then every record is a line
        block = _parse(data, np.arange(1, data.count(b"\n") + 1), names, types, dialect)
        assert block is not None
        return block
    for exact in (False, True):
        joined = join_records(data, dialect.scanner, len(names), last=last, exact=exact)
        block = _parse(joined.data, joined.lines, names, types, dialect)
        if block is not None:
            unfinished = {line: _unfinished(*how, dialect) for line, how in joined.unfinished.items()}
            return _Block(block.table, block.lines, block.rejected | unfinished, joined.rest)
    raise AssertionError("the records of a block cannot be told apart")


def _parse(
    data: bytes, lines: Lines, names: Sequence[str], types: dict[str, pa.DataType], dialect: Dialect
) -> _Block | None:
    """Read the records, one a line; None if some of them are not.

    Args:
        lines: their numbers in the block.
    """
    undecodable: dict[int, str] = {}  # row -> reason
    if not data.isascii():
        data, undecodable = _utf8(data, dialect.encoding)
    ragged: dict[int, str] = {}

    def invalid(row: pa.csv.InvalidRow) -> str:
        text = row.text.replace(_SUBSTITUTE.decode(), dialect.delimiter)
        ragged[row.number - 1] = (
            f"{row.actual_columns} fields where {row.expected_columns} belong: {text[:80]!r}"
        )
        return "skip"

    # with one blank line more: a quote that is open at the end swallows it, so that one row is missing
    table = _table(data + b"\n", names, types, dialect, invalid)
    if len(table) + len(ragged) != len(lines) + 1:
        return None
    table = table.slice(0, len(table) - 1)
    parsed, good = np.ones(len(lines), bool), np.ones(len(lines), bool)
    parsed[list(ragged)] = False
    good[list(undecodable)] = False
    if data.startswith(b"\n") or b"\n\n" in data:  # a blank line has become a row of empty strings
        ends = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n"))
        good &= np.diff(ends, prepend=-1) > 1
    if not good.all():
        table = table.filter(pa.array(good[parsed]))
    rejected = {int(lines[row]): reason for row, reason in {**ragged, **undecodable}.items()}
    return _Block(table.combine_chunks(), lines[parsed & good], rejected)


def _table(
    data: bytes,
    names: Sequence[str],
    types: dict[str, pa.DataType],
    dialect: Dialect,
    invalid: Callable[[pa.csv.InvalidRow], str] | None = None,
) -> pa.Table:
    """Read UTF-8 by Arrow."""
    if len(dialect.delimiter) > 1:
        data = data.replace(_SUBSTITUTE, b" ").replace(dialect.delimiter.encode(), _SUBSTITUTE)
    if data.startswith(_BYTE_ORDER_MARK):
        data = _BYTE_ORDER_MARK + data  # Arrow takes one away, wherever in the file a block begins
    return pa.csv.read_csv(
        pa.py_buffer(data),
        read_options=pa.csv.ReadOptions(use_threads=False, column_names=names, block_size=len(data) + 2),
        parse_options=pa.csv.ParseOptions(
            delimiter=dialect.delimiter if len(dialect.delimiter) == 1 else _SUBSTITUTE.decode(),
            quote_char=dialect.quote or False,
            escape_char=dialect.escape or False,
            ignore_empty_lines=False,
            invalid_row_handler=invalid,
        ),
        convert_options=pa.csv.ConvertOptions(
            column_types=types, include_columns=list(types), strings_can_be_null=False
        ),
    )


def _utf8(data: bytes, encoding: str) -> tuple[bytes, dict[int, str]]:
    """Return the text in UTF-8, and the lines with other bytes (counted from 0) -> what is wrong with them.

    These bytes are replaced, so that such a line keeps its quotes.
    """
    try:
        text = data.decode(encoding)
        return (data if encoding == "utf-8" else text.encode()), {}
    except UnicodeDecodeError:
        pass
    lines: list[bytes] = []
    undecodable: dict[int, str] = {}
    for row, raw in enumerate(data.split(b"\n")):
        try:
            lines.append(raw.decode(encoding).encode())
        except UnicodeDecodeError as error:
            undecodable[row] = f"byte 0x{raw[error.start]:02x} at column {error.start + 1} is not {encoding}"
            lines.append(raw.decode(encoding, "replace").encode())
    return b"\n".join(lines), undecodable


def _unfinished(state: State, line: bytes, dialect: Dialect) -> str:
    what = "the end of a line is escaped" if state == "plain" else "a quote is opened and not closed"
    return f"{what}: {line[:80].decode(dialect.encoding, 'replace')!r}"


# ---- the first line ----


def _check_header(path: Path, head: bytes, names: Sequence[str], dialect: Dialect) -> None:
    found = _fields(path, head, dialect)
    if found != list(names):
        raise PipelineError(
            f"{path}:1: the header is {dialect.delimiter.join(found)[:300]!r}, "
            f"expected {dialect.delimiter.join(names)[:300]!r}"
        )


def _fields(path: Path, line: bytes, dialect: Dialect) -> list[str]:
    """Return the fields of a file's first line."""
    text, undecodable = _utf8(line, dialect.encoding)
    if undecodable:
        raise PipelineError(f"{path}:1: {undecodable[0]}")
    if dialect.may_continue(line) and (state := dialect.scanner.scan("start", line)[0]):
        raise PipelineError(f"{path}:1: {_unfinished(state, line, dialect)}")
    count = 1

    def several(row: pa.csv.InvalidRow) -> str:
        nonlocal count
        count = row.actual_columns
        return "skip"

    table = _table(text + b"\n", ["0"], {"0": pa.string()}, dialect, several)
    if count > 1:
        names = [str(number) for number in range(count)]
        table = _table(text + b"\n", names, dict.fromkeys(names, pa.string()), dialect)
    return [str(values[0]) for values in table.to_pydict().values()]


# ---- bytes ----


def _blocks(path: Path, size: int) -> Iterator[tuple[bytes, bool]]:
    """Yield blocks of whole lines, and whether it is the last one; line ends become LF, other CRs spaces."""
    rest = held = b""
    for data in _pieces(path, min(size, MAX_LINE_BYTES)):
        whole, newline, left = data.rpartition(b"\n")
        if len(rest) + (data.index(newline) if newline else len(data)) > MAX_LINE_BYTES:
            raise PipelineError(
                f"{path}: a line is longer than {MAX_LINE_BYTES >> 20} MiB; this is no text file of records"
            )
        if newline:
            if held:
                yield held, False
            held, rest = _plain(rest + whole + newline), left
        else:
            rest += left
    if rest:
        if held:
            yield held, False
        held = _plain(rest + b"\n")
    yield held, True


def _pieces(path: Path, size: int) -> Iterator[bytes]:
    """Yield the bytes of a file, without a byte order mark; line ends of CR alone become LF."""
    with _opened(path) as handle:
        first = b""
        while len(first) < _JUDGED_BYTES and (data := _read(handle, _JUDGED_BYTES - len(first), path)):
            first += data
        if first.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise PipelineError(f"{path}: its text is UTF-16; convert it to UTF-8 first")
        first = first.removeprefix(_BYTE_ORDER_MARK)
        if not first:
            raise PipelineError(f"{path} is empty; delete it and run the download stage again")
        old_mac = b"\n" not in first and b"\r" in first[:-1]  # the last one may belong to a CR LF
        if len(first) < size:
            first += _read(handle, size - len(first), path)
        for start in range(0, len(first), size):
            data = first[start : start + size]
            yield data.replace(b"\r", b"\n") if old_mac else data
        while data := _read(handle, size, path):
            yield data.replace(b"\r", b"\n") if old_mac else data


def _opened(path: Path) -> pa.NativeFile:
    try:
        return pa.input_stream(str(path), compression="detect")
    except OSError as error:
        raise PipelineError(f"{path} cannot be opened ({error})") from None


def _read(handle: pa.NativeFile, size: int, path: Path) -> bytes:
    try:
        return bytes(handle.read(size))
    except (OSError, pa.ArrowException) as error:
        raise PipelineError(f"{path} cannot be read to its end ({error}); is it damaged?") from None


def _plain(data: bytes) -> bytes:
    return data.replace(b"\r\n", b"\n").replace(b"\r", b" ") if b"\r" in data else data
