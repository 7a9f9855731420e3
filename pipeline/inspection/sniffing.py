"""How a text file is written, guessed from its first lines: encoding, separator, quotes, header."""

import csv
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.common.errors import PipelineError
from pipeline.common.text import counted
from pipeline.datasets.tabular import MISSING
from pipeline.inspection.profiling import MARKS
from pipeline.preprocess.kinds import check_text
from pipeline.preprocess.parse import numbers
from pipeline.preprocess.tables import Layout
from pipeline.preprocess.text import head
from pipeline.preprocess.timestamps import seconds

HEAD_BYTES = 1 << 20  # that are looked at
MAX_RECORDS = 2000  # that are counted
MAX_BROKEN = 0.001  # fraction of lines that are not UTF-8, beyond which a file is in another encoding
SHOWN_BYTES = 16  # around the first odd byte
# of separators that fit equally well the first wins: commas and bars also occur in numbers and lists
SEPARATORS = ("\t", "\x01", "::", ";", ",", "|")
STYLES = (('"', None), ('"', "\\"), (None, None))  # quote and escape, the likeliest first
UTF8_MARK = b"\xef\xbb\xbf"

Rows = list[list[str]]


def sniff(path: Path) -> Layout:
    """Guess the layout of a text file; without a header its columns are numbered.

    Raises:
        PipelineError: it is empty, unreadable, JSON or UTF-16, or no line contains a separator.
    """
    first = _head(path)
    encoding = encoding_of(first)
    lines = first.decode(encoding, "replace").split("\n")
    fitting = []
    for separator in SEPARATORS:
        quote, escape, rows = _best_style(lines, separator)
        share, complete, width = _agreement(rows)
        if width > 1:
            fitting.append(
                ((round(share, 2), complete, width), Layout(separator, encoding, quote, escape), rows)
            )
    if not fitting:
        raise PipelineError(
            f"{path}: no separator found in its first lines (tried comma, semicolon, tab, |, :: and \\x01)"
        )
    _, layout, rows = max(fitting, key=lambda one: one[0])
    names = None if _has_header(rows) else tuple(f"column_{i + 1}" for i in range(len(rows[0])))
    return replace(layout, names=names)


def encoding_of(head: bytes) -> str:
    """Return utf-8 unless most lines with other bytes than ASCII break it; then gbk, cp1252 or else latin-1.

    A few lines of many that break it are damage, whatever the others are, and will be rejected.

    GBK is text whose bytes beyond ASCII come in pairs, nearly all of them Chinese characters. Statistical
    detectors need more text than a log has (charset-normalizer takes `Köln` in latin-1 for Big5),
    and one damaged line would change the encoding of all others.
    """
    whole = head.removeprefix(UTF8_MARK).split(b"\n")
    lines = [line for line in whole if not line.isascii()]
    broken = [line for line in lines if _odd(line, "utf-8") is not None]
    if len(broken) * 2 <= len(lines) or len(broken) <= MAX_BROKEN * len(whole):
        return "utf-8"
    text = b"\n".join(broken)
    if _odd(text, "gbk") is None:
        beyond = [character for character in text.decode("gbk") if not character.isascii()]
        runs = [len(run) for run in re.findall(rb"[\x80-\xff]+", text)]
        chinese = sum("\u4e00" <= character <= "\u9fff" for character in beyond)
        if (
            len(beyond) >= 8
            and chinese > 0.8 * len(beyond)
            and sum(run > 1 for run in runs) > 0.8 * len(runs)
        ):
            return "gbk"
    windows = any(0x80 <= byte <= 0x9F for byte in text)  # control characters in latin-1
    return "cp1252" if windows and _odd(text, "cp1252") is None else "latin-1"


def odd_bytes(path: Path) -> str:
    """Say in how many of a file's first lines there are bytes that are not UTF-8, and show the first ones."""
    lines = _head(path).rstrip(b"\n").split(b"\n")
    places = [(number, at) for number, line in enumerate(lines, 1) if (at := _odd(line, "utf-8")) is not None]
    if not places:
        return ""
    number, at = places[0]
    line = lines[number - 1]
    around = line[max(0, at - SHOWN_BYTES) : at + SHOWN_BYTES]
    return (
        f"{len(places):,} of its first {counted(len(lines), 'line')} not UTF-8, first {path.name}:{number}: "
        f"byte 0x{line[at]:02x} in {around!r}"
    )


def _odd(data: bytes, encoding: str) -> int | None:
    """Return where the first byte is that the encoding does not have; None if there is none."""
    try:
        data.decode(encoding)
    except UnicodeDecodeError as error:
        return error.start
    return None


def _head(path: Path) -> bytes:
    """Return the first lines of a file."""
    check_text(path)
    first = head(path, HEAD_BYTES)
    if len(first) == HEAD_BYTES:
        first = first.rpartition(b"\n")[0] or first
    return first


def _best_style(lines: Sequence[str], separator: str) -> tuple[str | None, str | None, Rows]:
    """Return the quote and escape with which most records have equally many fields, and the records.

    If several do, the style with more records wins: quotes that were never meant as such swallow line ends.
    """
    styles = STYLES if len(separator) == 1 else STYLES[:1]
    found = [(quote, escape, _records(lines, separator, quote, escape)) for quote, escape in styles]
    return max(found, key=lambda one: (*_agreement(one[2])[:2], len(one[2])))


def _agreement(rows: Rows) -> tuple[float, bool, int]:
    """Return the share of records with the most frequent width, whether the first has it, and the width."""
    if not rows:
        return 0.0, False, 0
    width, count = Counter(map(len, rows)).most_common(1)[0]
    return count / len(rows), len(rows[0]) == width, width


def _records(lines: Sequence[str], separator: str, quote: str | None, escape: str | None) -> Rows:
    """Return the first records without blank lines; the last may be cut off."""
    if len(separator) > 1:
        return [line.split(separator) for line in islice(filter(None, lines), MAX_RECORDS)]
    ended = (f"{line}\n" for line in lines)
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE
    reader = csv.reader(ended, delimiter=separator, quotechar=quote, quoting=quoting, escapechar=escape)
    rows: Rows = []
    with suppress(csv.Error):  # a field is too long for the module: the records before it suffice
        rows.extend(islice(filter(None, reader), MAX_RECORDS))
    return rows


def _has_header(rows: Rows) -> bool:
    """Whether the first record contains names: no values like those below it."""
    first = [cell.strip() for cell in rows[0]]
    body = [[cell.strip() for cell in row] for row in rows[1:] if len(row) == len(first)]
    columns = zip(*body, strict=True) if body else [()] * len(first)
    below = [[cell for cell in column if _is_filled(cell)] for column in columns]
    filled, values = [_is_filled(cell) for cell in first], _are_values(first)
    typed = [len(cells) > 0 and _are_values(cells[:200]).mean() > 0.9 for cells in below]
    if np.any(filled & ~values & typed):
        return True
    if np.any(filled & values):
        return False
    repeated = sum(bool(cell) and cell in cells for cell, cells in zip(first, below, strict=True))
    return 2 * repeated < len(first)


def _is_filled(cell: str) -> bool:
    return cell not in MISSING and cell.lower() not in MARKS


def _are_values(cells: Sequence[str]) -> NDArray[np.bool_]:
    """Which cells are numbers or times."""
    texts = pa.array(cells, pa.string())
    return ~(numbers(texts, decimal=",")[1] & seconds(texts)[1])
