"""Text files of records -> columns of strings, block by block, and an account of every refused line.

Arrow's reader does the work on whole blocks. What it does not do is told here: which line a row stood
on, what is wrong with a refused one, bytes of another encoding, and quoted fields that run over a line
end. A quote that is opened and never closed would swallow the rest of a file; here it costs its line.
"""

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray

from pipeline.common.errors import PipelineError
from pipeline.preprocess.rejects import RejectLog

Lines = NDArray[np.int64]
CODED = pa.dictionary(pa.int32(), pa.string())
BLOCK = 16 << 20  # bytes held at a time
LONGEST = 256 << 20  # bytes of a line at most: what has longer ones is no text
SPAN = 64  # lines a quoted field may run over
CUT = b"\x1f"  # stands for a delimiter of several characters, which Arrow does not know
BOM = b"\xef\xbb\xbf"
State = Literal["start", "quoted", "plain"]  # where a line begins: at a record's start, in quotes, in a field


@dataclass(frozen=True)
class Dialect:
    """How a text file is written.

    A quote counts where a field begins and within a quoted one; what follows the closing quote up to the
    next delimiter belongs to the field too. Elsewhere a quote is a character like any other.

    Attributes:
        delimiter: between the fields of a record; several characters only without quotes and escapes, and
            then U+001F becomes a space.
        encoding: of its bytes; in it ASCII characters, and no others, must have the bytes of ASCII.
        quote: around a field that holds delimiters, line ends or (doubled) quotes.
        escape: before a character that stands for itself.
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
    def marks(self) -> tuple[bytes, ...]:
        """What may keep a record open at the end of a line."""
        return tuple(mark.encode() for mark in (self.quote, self.escape) if mark is not None)

    def after(self, state: State, line: bytes) -> State | None:
        """Return where the next line begins if this one begins at `state`; None: the record is complete."""
        found = self._complete[state].match(line)
        if found is None:
            return "quoted"
        left = line[found.end() :]
        if not left:
            return None
        return "plain" if self.escape and left == self.escape.encode() else "quoted"

    def cuts(self, state: State, line: bytes) -> int:
        """Count the delimiters that end a field on a line that begins at `state`."""
        found = self._complete[state].match(line)
        if found is None:
            return 0
        opened = line.startswith(self.delimiter.encode(), found.end())  # and a quote behind it
        return len(self._next.findall(line, found.end(1), found.end())) + opened

    @cached_property
    def _complete(self) -> dict[State, re.Pattern[bytes]]:
        """The complete fields at the beginning of a line; group 1 is the first of them."""
        rest, ending, one = self._fields
        more = b"(?:" + re.escape(self.delimiter).encode() + one + b")*"
        starts: dict[State, bytes] = {"start": one, "quoted": ending, "plain": rest}
        return {state: re.compile(b"(" + start + b")" + more, re.DOTALL) for state, start in starts.items()}

    @cached_property
    def _next(self) -> re.Pattern[bytes]:
        return re.compile(re.escape(self.delimiter).encode() + self._fields[2], re.DOTALL)

    @cached_property
    def _fields(self) -> tuple[bytes, bytes, bytes]:
        """Patterns of a field without quotes, of one in which a quote is open, and of any."""
        cut, quote, escape = (
            re.escape(mark or "").encode() for mark in (self.delimiter, self.quote, self.escape)
        )
        escaped = [escape + b"."] if escape else []
        rest = _run(cut + escape, escaped)
        if not quote:
            return rest, rest, rest
        ending = _run(quote + escape, [quote + quote, *escaped]) + quote + b"(?!" + quote + b")" + rest
        return rest, ending, b"(?:" + quote + ending + b"|(?!" + quote + b")" + rest + b")"


def _run(stops: bytes, pairs: Sequence[bytes]) -> bytes:
    """Return a pattern: characters other than the stops, and pairs that begin with one of these."""
    plain = b"[^" + stops + b"]*"
    return plain + b"(?:(?:" + b"|".join(pairs) + b")" + plain + b")*" if pairs else plain


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
    block: int = BLOCK,
) -> Iterator[tuple[pa.Table, Lines]]:
    """Read a file of records, plain or compressed (.gz, .bz2, .zst), block by block.

    Yields one table at least, of one chunk each, and the line number (from 1) on which each row begins.
    The columns hold strings, dictionary-encoded (`CODED`) or plain; an empty field is an empty string.
    A line ends with LF or CR LF; a CR elsewhere, and a line end within quotes or after an escape, becomes
    a space. Blank lines are no records, a byte order mark is none of the text. Refused, in the rejects:
    a record with another number of fields, with bytes that are not of the encoding, or with a quote or
    an escape that the next `SPAN` lines do not complete to a record. Such a one costs its own line: the
    next line begins a record again.

    Args:
        names: of all columns.
        header: the first line must hold exactly `names`.
        text: columns to be left plain, since nearly all their values differ (numbers, times).
        only: columns wanted (default: all).
        side_table: its records do not become rows.
        file: what the rejects calls it (default: its name).
        block: bytes held at a time; changes nothing in what comes out.

    Raises:
        PipelineError: the file is not there, empty, damaged, no text, or has another header.
    """
    file = file or path.name
    rejects.count(file, 0, side_table=side_table)
    wanted = [name for name in names if only is None or name in only]
    assert wanted, (names, only)
    types = {name: pa.string() if name in text else CODED for name in wanted}
    line, rest = 1, b""
    for data, last in _blocks(path, block):
        if header and line == 1:
            head, _, data = data.partition(b"\n")
            _check_header(path, head, names, dialect)
            line = 2
        data = rest + data
        if not data and not last:
            continue
        for exact in (False, True):
            piece = _joined(data, dialect, len(names), last=last, exact=exact)
            if (table := _parse(piece, names, dialect, types)) is not None:
                break
        assert table is not None, f"{path}:{line}: the records of a block cannot be told apart"
        rest = data[len(data) - piece.rest :]
        rejects.count(file, len(table) + len(piece.bad), side_table=side_table)
        for number, reason in sorted(piece.bad.items()):
            rejects.reject(file, line + number - 1, reason)
        yield table, piece.lines + (line - 1)
        line += data.count(b"\n", 0, len(data) - piece.rest)


def first_line(path: Path, dialect: Dialect) -> list[str]:
    """Return the fields of a file's first line.

    Raises:
        PipelineError: as `records`.
    """
    data, _ = next(_blocks(path, 1 << 16))
    return _fields(path, data.partition(b"\n")[0], dialect)


def lines_of(path: Path, block: int = BLOCK) -> Iterator[bytes]:
    """Yield the text of a file in whole lines, about `block` bytes at a time; line ends are LF.

    Raises:
        PipelineError: as `records`.
    """
    return (data for data, _ in _blocks(path, block))


@dataclass
class _Piece:
    """A block in which every record has a line of its own."""

    data: bytes
    lines: Lines  # on which each record began, from 1
    bad: dict[int, str] = field(default_factory=dict)  # line -> why it was refused
    rest: int = 0  # bytes at the block's end that belong to a record which goes on in the next


def _blocks(path: Path, size: int) -> Iterator[tuple[bytes, bool]]:
    """Yield whole lines and whether they are the last; line ends become LF, stray CRs spaces."""
    rest = held = b""
    for data in _pieces(path, min(size, LONGEST)):
        whole, newline, left = data.rpartition(b"\n")
        if len(rest) + (data.index(newline) if newline else len(data)) > LONGEST:
            raise PipelineError(
                f"{path}: a line is longer than {LONGEST >> 20} MiB; this is no text file of records"
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
    """Yield the bytes of a file, without a byte order mark."""
    with _opened(path) as handle:
        head = b""
        while len(head) < len(BOM) and (data := _read(handle, size, path)):
            head += data
        if head.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise PipelineError(f"{path}: its text is UTF-16; convert it to UTF-8 first")
        data = head.removeprefix(BOM) or _read(handle, size, path)
        if not data:
            raise PipelineError(f"{path} is empty; delete it and run the download stage again")
        while data:
            yield data
            data = _read(handle, size, path)


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


def _check_header(path: Path, head: bytes, names: Sequence[str], dialect: Dialect) -> None:
    found = _fields(path, head, dialect)
    if found != list(names):
        raise PipelineError(
            f"{path}:1: the header is {dialect.delimiter.join(found)[:300]!r}, "
            f"expected {dialect.delimiter.join(names)[:300]!r}"
        )


def _fields(path: Path, line: bytes, dialect: Dialect) -> list[str]:
    """Split one line."""
    text, refused = _utf8(line, dialect.encoding)
    if refused:
        raise PipelineError(f"{path}:1: {refused[0]}")
    if dialect.marks and (state := dialect.after("start", line)):
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


def _joined(data: bytes, dialect: Dialect, width: int, *, last: bool, exact: bool) -> _Piece:
    """Bring every record onto one line; one that runs over several has `width` fields.

    Lines with an even number of quotes are taken for complete unless `exact`; that is checked against
    the number of rows that come out. All others are looked at one by one.
    """
    if not any(mark in data for mark in dialect.marks):
        return _Piece(data, np.arange(1, data.count(b"\n") + 1))
    buffer = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(buffer == 10)
    record = _Records(data, ends, dialect)
    suspects = range(len(ends)) if exact else _suspects(buffer, ends, dialect)
    result = _Piece(data, np.arange(1, len(ends) + 1))
    pieces: list[bytes] = []
    keep = np.ones(len(ends), bool)  # lines on which a record begins
    done = free = 0  # bytes taken over; first line that belongs to nothing yet
    for i in suspects:
        if i < free:
            continue
        j, fields = record.end(i)
        if j == i:
            continue
        start = record.start(i)
        pieces.append(data[done:start])
        if j == len(ends) and not last and j - i <= SPAN:
            result.rest = len(data) - start
            done = len(data)
            keep[i:] = False
            break
        if j < len(ends) and j - i <= SPAN and fields == width:
            pieces.append(data[start : ends[j]].replace(b"\n", b" ") + b"\n")
            keep[i + 1 : j + 1] = False
            done, free = int(ends[j]) + 1, j + 1
        else:
            line = record.line(i)
            result.bad[i + 1] = _unfinished(dialect.after("start", line), line, dialect)
            keep[i] = False
            done, free = int(ends[i]) + 1, i + 1
    if pieces:
        result.data = b"".join([*pieces, data[done:]])
        result.lines = result.lines[keep]
    return result


class _Records:
    """Where the records of a block end; a line is looked at once from every state. Lines count from 0."""

    def __init__(self, data: bytes, ends: Lines, dialect: Dialect) -> None:
        self._data, self._ends, self._dialect = data, ends, dialect
        # of a record that goes on at a line in a state: its last line (0: not known yet), delimiters to come
        states: tuple[State, State] = ("quoted", "plain")
        self._last = {state: np.zeros(len(ends) + 1, np.int32) for state in states}
        self._cuts = {state: np.zeros(len(ends) + 1, np.int32) for state in states}

    def start(self, line: int) -> int:
        """Return the position of a line's first byte."""
        return int(self._ends[line - 1]) + 1 if line else 0

    def line(self, line: int) -> bytes:
        """Return the text of a line."""
        return self._data[self.start(line) : int(self._ends[line])]

    def end(self, first: int) -> tuple[int, int]:
        """Return the last line of the record that begins on line `first`; if another, also its fields.

        If the record goes on at the end of the block, its last line is the one behind all.
        """
        state, at = self._dialect.after("start", self.line(first)), first + 1
        if state is None:
            return first, 0
        path: list[tuple[State, int, int]] = [("start", first, self._dialect.cuts("start", self.line(first)))]
        while state and at < len(self._ends) and not self._last[state][at]:
            path.append((state, at, self._dialect.cuts(state, self.line(at))))
            state, at = self._dialect.after(state, self.line(at)), at + 1
        last, cuts = at - 1, 0
        if state:
            last, cuts = int(self._last[state][at]) or at, int(self._cuts[state][at])
        for begun, line, own in reversed(path):
            cuts += own
            if begun != "start":
                self._last[begun][line], self._cuts[begun][line] = last, cuts
        return last, cuts + 1


def _suspects(buffer: NDArray[np.uint8], ends: Lines, dialect: Dialect) -> list[int]:
    """Lines with an odd number of quotes, and those with an escape before another or before their end."""
    quotes = np.flatnonzero(buffer == ord(dialect.quote)) if dialect.quote else np.empty(0, np.int64)
    odd = np.zeros(len(ends), bool)
    if dialect.escape:
        escapes = np.flatnonzero(buffer == ord(dialect.escape))
        quotes = quotes[(quotes == 0) | (buffer[quotes - 1] != ord(dialect.escape))]
        strange = escapes[np.isin(buffer[escapes + 1], (10, ord(dialect.escape)))]
        odd[np.searchsorted(ends, strange)] = True
    counts = np.diff(np.searchsorted(quotes, ends), prepend=0)
    suspects: list[int] = np.flatnonzero(odd | (counts % 2 == 1)).tolist()
    return suspects


def _parse(
    piece: _Piece, names: Sequence[str], dialect: Dialect, types: dict[str, pa.DataType]
) -> pa.Table | None:
    """Return the rows, leaving their lines in `piece`; None if a record was not where a line is."""
    data = piece.data
    refused: dict[int, str] = {}
    if not data.isascii():
        data, refused = _utf8(data, dialect.encoding)
    count = len(piece.lines)
    ragged: dict[int, str] = {}

    def invalid(row: pa.csv.InvalidRow) -> str:
        text = row.text.replace(CUT.decode(), dialect.delimiter)
        ragged[row.number - 1] = (
            f"{row.actual_columns} fields where {row.expected_columns} belong: {text[:80]!r}"
        )
        return "skip"

    # a blank line more: a quote that is open at the end swallows it, and so one row is missing
    table = _table(data + b"\n", names, types, dialect, invalid)
    if len(table) + len(ragged) != count + 1:
        return None
    table = table.slice(0, len(table) - 1)
    piece.bad |= {int(piece.lines[row]): reason for row, reason in {**ragged, **refused}.items()}
    came, kept = np.ones(count, bool), np.ones(count, bool)
    came[list(ragged)] = False
    kept[list(refused)] = False
    if data.startswith(b"\n") or b"\n\n" in data:  # a blank line came as a row of empty strings
        ends = np.flatnonzero(np.frombuffer(data, np.uint8) == 10)
        kept &= np.diff(ends, prepend=-1) > 1
    if not kept.all():
        table = table.filter(pa.array(kept[came]))
    piece.lines = piece.lines[came & kept]
    return table.combine_chunks()


def _table(
    data: bytes,
    names: Sequence[str],
    types: dict[str, pa.DataType],
    dialect: Dialect,
    invalid: Callable[[pa.csv.InvalidRow], str] | None = None,
) -> pa.Table:
    """Have Arrow read UTF-8."""
    if len(dialect.delimiter) > 1:
        data = data.replace(CUT, b" ").replace(dialect.delimiter.encode(), CUT)
    if data.startswith(BOM):
        data = BOM + data  # Arrow takes one away, wherever in the file a block begins
    return pa.csv.read_csv(
        pa.py_buffer(data),
        read_options=pa.csv.ReadOptions(use_threads=False, column_names=names, block_size=len(data) + 2),
        parse_options=pa.csv.ParseOptions(
            delimiter=dialect.delimiter if len(dialect.delimiter) == 1 else CUT.decode(),
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
    """Return the text in UTF-8, and which lines are refused and why (row -> reason).

    What is no text in these is replaced, so that they keep their quotes.
    """
    try:
        text = data.decode(encoding)
        return (data if encoding == "utf-8" else text.encode()), {}
    except UnicodeDecodeError:
        pass
    lines: list[bytes] = []
    refused: dict[int, str] = {}
    for row, raw in enumerate(data.split(b"\n")):
        try:
            lines.append(raw.decode(encoding).encode())
        except UnicodeDecodeError as error:
            refused[row] = f"byte 0x{raw[error.start]:02x} at column {error.start + 1} is not {encoding}"
            lines.append(raw.decode(encoding, "replace").encode())
    return b"\n".join(lines), refused


def _unfinished(state: State | None, line: bytes, dialect: Dialect) -> str:
    what = "the end of a line is escaped" if state == "plain" else "a quote is opened and not closed"
    return f"{what}: {_shown(line, dialect)}"


def _shown(line: bytes, dialect: Dialect) -> str:
    return repr(line[:80].decode(dialect.encoding, "replace"))
