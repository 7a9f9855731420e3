"""How a text file is written, guessed from its first lines: encoding, separator, quotes, header."""

import csv
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.common.errors import PipelineError
from pipeline.datasets.tabular import MISSING
from pipeline.inspection.profiling import MARKS
from pipeline.preprocess.parse import numbers
from pipeline.preprocess.tables import Layout
from pipeline.preprocess.timestamps import seconds

HEAD = 1 << 20  # bytes that are looked at
RECORDS = 2000  # records that are counted
TIES = ("\t", "\x01", "::", ";", ",", "|")  # of separators that fit alike the first: commas and bars
# stand in numbers and in lists too
STYLES = (('"', None), ('"', "\\"), (None, None))  # quote and escape, the likeliest first

Rows = list[list[str]]


def sniff(path: Path) -> Layout:
    """Guess the layout of a text file; names are made up where it has no header.

    Raises:
        PipelineError: it is empty, unreadable, or no line holds a separator.
    """
    head = _head(path)
    encoding = encoding_of(head)
    lines = head.decode(encoding, "replace").replace("\r\n", "\n").split("\n")
    found = [(separator, *_style(lines, separator)) for separator in TIES]
    fitting = [(s, style, rows) for s, style, rows in found if _count(rows) > 1]
    if not fitting:
        raise PipelineError(
            f"{path}: no separator found in its first lines (tried comma, semicolon, tab, |, :: and \\x01)"
        )

    separator, (quote, escape), rows = max(fitting, key=lambda one: _fits(one[2]))
    names = None if _has_header(rows) else tuple(f"column_{i + 1}" for i in range(len(rows[0])))
    return Layout(separator, encoding, quote if len(separator) == 1 else '"', escape, names)


def _fits(rows: Rows) -> tuple[float, bool, int]:
    """Return how well a separator fits: what records agree in, the first as well, and the more fields."""
    return round(_share(rows), 2), len(rows[0]) == _count(rows), _count(rows)


def encoding_of(head: bytes) -> str:
    """Return utf-8 unless more lines than not break it; then cp1252 where that fits, or latin-1."""
    strange = [line for line in head.removeprefix(b"\xef\xbb\xbf").split(b"\n") if not line.isascii()]
    broken = [line for line in strange if not _decodes(line, "utf-8")]
    if len(broken) * 2 <= len(strange):
        return "utf-8"
    windows = any(0x80 <= byte <= 0x9F for line in broken for byte in line)
    return "cp1252" if windows and all(_decodes(line, "cp1252") for line in broken) else "latin-1"


def _decodes(line: bytes, encoding: str) -> bool:
    try:
        line.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _head(path: Path) -> bytes:
    """Return the first lines of a file."""
    try:
        with pa.input_stream(str(path), compression="detect") as handle:
            head = bytes(handle.read(HEAD))
    except OSError as error:
        raise PipelineError(f"{path} cannot be read ({error}); is it damaged?") from None
    if not head:
        raise PipelineError(f"{path} is empty")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise PipelineError(f"{path}: its text is UTF-16; convert it to UTF-8 first")
    whole, newline, _ = head.rpartition(b"\n")
    head = whole if newline and len(head) == HEAD else head
    return head.removeprefix(b"\xef\xbb\xbf")


def _style(lines: Sequence[str], separator: str) -> tuple[tuple[str | None, str | None], Rows]:
    """Return the quote and escape with which most records have the same number of fields.

    Where quotes and no quotes do so, the one that takes more records out of the lines: quotes that were
    never meant as such swallow line ends.
    """
    styles = STYLES if len(separator) == 1 else STYLES[-1:]
    found = [(style, _split(lines, separator, *style)) for style in styles]

    def fits(one: tuple[tuple[str | None, str | None], Rows]) -> tuple[float, bool, int]:
        _, rows = one
        return _share(rows), bool(rows) and len(rows[0]) == _count(rows), len(rows)

    return max(found, key=fits)


def _split(lines: Sequence[str], separator: str, quote: str | None, escape: str | None) -> Rows:
    """Return the first records, blank lines left out; the last may be cut off."""
    if len(separator) > 1:
        return [line.split(separator) for line in islice(filter(None, lines), RECORDS)]
    reader = csv.reader(
        (f"{line}\n" for line in lines),
        delimiter=separator,
        quotechar=quote,
        quoting=csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE,
        escapechar=escape,
    )
    rows: Rows = []
    with suppress(csv.Error):  # a field longer than the module takes: the records before it tell enough
        rows.extend(islice(filter(None, reader), RECORDS))
    return rows


def _count(rows: Rows) -> int:
    """Return the number of fields that most records have."""
    return Counter(map(len, rows)).most_common(1)[0][0] if rows else 0


def _share(rows: Rows) -> float:
    """Return the fraction of records that have it."""
    return Counter(map(len, rows)).most_common(1)[0][1] / len(rows) if rows else 0.0


def _has_header(rows: Rows) -> bool:
    """Whether the first record holds names: no values as below it."""
    first = [cell.strip() for cell in rows[0]]
    body = [[cell.strip() for cell in row] for row in rows[1:] if len(row) == len(first)]
    below = [[cell for cell in column if _is_filled(cell)] for column in zip(*body, strict=True)]
    values = _are_values(first)
    typed = [len(cells) > 0 and _are_values(cells[:200]).mean() > 0.9 for cells in below]
    pairs = zip(first, values, typed, strict=bool(body))
    if any(_is_filled(name) and below_it and not value for name, value, below_it in pairs):
        return True
    if any(value and _is_filled(name) for name, value in zip(first, values, strict=True)):
        return False
    again = sum(bool(name) and name in cells for name, cells in zip(first, below, strict=bool(body)))
    return 2 * again < len(first)


def _is_filled(cell: str) -> bool:
    return cell not in MISSING and cell.lower() not in MARKS


def _are_values(cells: Sequence[str]) -> NDArray[np.bool_]:
    """Which cells are numbers or times."""
    _, no_number = numbers(pa.array([cell.replace(",", ".") for cell in cells], pa.string()))
    _, no_time = seconds(pa.array(cells, pa.string()))
    return ~(no_number & no_time)
