"""Records that run over several lines -> one line each.

A line end inside quotes or after an escape does not end a record. Hardly any click log has such records;
`text.py` comes here only for blocks of text with a quote or an escape in them, and nobody else does.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

MAX_LINE_ENDS = 64  # inside one record
# what a line begins with: a record, the inside of quotes, or the inside of a field outside of quotes
State = Literal["start", "quoted", "plain"]


class LineScanner:
    """Follows a record over the ends of its lines.

    Args:
        delimiter: between fields.
        quote: around a field; it counts at the field's beginning, and inside it where it is not doubled.
        escape: before a character that loses its meaning.
    """

    def __init__(self, delimiter: str, quote: str | None, escape: str | None) -> None:
        mark = re.escape(delimiter).encode()
        q, e = (re.escape(character or "").encode() for character in (quote, escape))
        escaped = [e + b"."] if e else []
        outside = _run(mark + e, escaped)  # the rest of a field, outside of quotes
        inside = outside  # the rest of a field, inside of quotes: their end, and what follows it
        complete = outside
        if q:
            inside = _run(q + e, [q + q, *escaped]) + q + b"(?!" + q + b")" + outside
            complete = b"(?:" + q + inside + b"|(?!" + q + b")" + outside + b")"
        self._delimiter = delimiter.encode()
        self._quote, self._escape = quote.encode() if quote else None, escape.encode() if escape else None
        self._next_field = re.compile(mark + complete, re.DOTALL)
        starts: dict[State, bytes] = {"start": complete, "quoted": inside, "plain": outside}
        self._complete_fields = {
            state: re.compile(b"(" + first + b")(?:" + mark + complete + b")*", re.DOTALL)
            for state, first in starts.items()
        }

    def scan(self, state: State, line: bytes) -> tuple[State | None, int]:
        """Return the state at the end of a line (None: the record is complete) and its number of delimiters.

        Args:
            state: at the beginning of the line.
        """
        found = self._complete_fields[state].match(line)
        if found is None:  # the quotes around the first field do not end here
            return "quoted", 0
        delimiters = len(self._next_field.findall(line, found.end(1), found.end()))
        left = line[found.end() :]
        if not left:
            return None, delimiters
        if left == self._escape:
            return "plain", delimiters
        return "quoted", delimiters + left.startswith(self._delimiter)

    def suspects(self, buffer: NDArray[np.uint8], ends: NDArray[np.int64]) -> list[int]:
        """Return the lines with an odd number of quotes, an escape of an escape, or an escape at their end.

        Args:
            buffer: bytes of whole lines.
            ends: the positions of their ends.
        """
        quotes = np.flatnonzero(buffer == ord(self._quote)) if self._quote else np.empty(0, np.int64)
        suspect = np.zeros(len(ends), bool)
        if self._escape:
            escape = ord(self._escape)
            escapes = np.flatnonzero(buffer == escape)
            quotes = quotes[(quotes == 0) | (buffer[quotes - 1] != escape)]
            odd = escapes[np.isin(buffer[escapes + 1], (ord("\n"), escape))]
            suspect[np.searchsorted(ends, odd)] = True
        per_line = np.diff(np.searchsorted(quotes, ends), prepend=0)
        lines: list[int] = np.flatnonzero(suspect | (per_line % 2 == 1)).tolist()
        return lines


def _run(stops: bytes, pairs: Sequence[bytes]) -> bytes:
    """Return a pattern: any number of characters other than `stops`, and of `pairs`, which begin with one."""
    others = b"[^" + stops + b"]*"
    return others + b"(?:(?:" + b"|".join(pairs) + b")" + others + b")*" if pairs else others


@dataclass
class Joined:
    """A block of text in which every record has a line of its own.

    Attributes:
        data: the text.
        lines: on which line of the block (from 1) each record begins.
        unfinished: line -> the state at its end and its text, where the next lines do not complete a record.
        rest: the number of bytes at the end of the block whose record continues in the next one.
    """

    data: bytes
    lines: NDArray[np.int64]
    unfinished: dict[int, tuple[State, bytes]] = field(default_factory=dict)
    rest: int = 0


def join_records(data: bytes, scanner: LineScanner, width: int, *, last: bool, exact: bool) -> Joined:
    """Replace the line ends inside of records by spaces.

    An unfinished line is taken out, and a record may begin on the next one.

    Args:
        data: whole lines.
        width: the number of fields that a record of several lines must have.
        last: no block follows.
        exact: scan every line. Otherwise those with an even number of quotes count as complete records,
            which is faster and nearly always true.
    """
    buffer = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(buffer == ord("\n"))
    count = len(ends)

    def start(i: int) -> int:
        return int(ends[i - 1]) + 1 if i else 0

    # the lines after an unfinished one are scanned again for the next one
    @lru_cache(4 * MAX_LINE_ENDS)
    def scan(state: State, i: int) -> tuple[State | None, int]:
        return scanner.scan(state, data[start(i) : ends[i]])

    joined = Joined(data, np.arange(1, count + 1))
    begins = np.ones(count, bool)  # the lines on which a record begins
    pieces: list[bytes] = []
    copied = 0  # bytes of data that are in the pieces
    free = 0  # the first line after the last record
    for i in range(count) if exact else scanner.suspects(buffer, ends):
        if i < free:
            continue
        state, delimiters = opened, _ = scan("start", i)
        fields, end = 1 + delimiters, i
        while state is not None and end + 1 < count and end - i < MAX_LINE_ENDS:
            end += 1
            state, delimiters = scan(state, end)
            fields += delimiters
        if opened is None:
            continue
        pieces.append(data[copied : start(i)])
        if state is None and fields == width:
            pieces.append(data[start(i) : ends[end]].replace(b"\n", b" ") + b"\n")
            begins[i + 1 : end + 1] = False
            free = end + 1
        elif state is not None and not last and count - i <= MAX_LINE_ENDS:
            joined.rest = len(data) - start(i)
            begins[i:] = False
            free = count
        else:
            joined.unfinished[i + 1] = opened, data[start(i) : ends[i]]
            begins[i] = False
            free = i + 1
        copied = start(free)
    if pieces:
        joined.data = b"".join([*pieces, data[copied:]])
        joined.lines = joined.lines[begins]
    return joined
