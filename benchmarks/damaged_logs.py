"""Damaged logs through the reader and the inspection: nothing crashes, and no record vanishes.

    python -m benchmarks.damaged_logs --reads 100000 --inspections 20000

Each number is one file: a whole log (text of several dialects, packed or not, or Parquet) with one to six
damages, the same ones every time. Read, its rows in must be rows out + rejected + dropped, or it is refused
in a message; inspected, its entry must be read likewise. Whatever else happens is printed with the file's
number; `--first N --reads 1` repeats it. Prints how many were read, how many refused, and the slowest, by
the seconds of a processor.
"""

import bz2
import gzip
import random
import tempfile
import time
import traceback
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from ruamel.yaml import YAML

from pipeline.common.errors import PipelineError
from pipeline.datasets import tabular
from pipeline.inspection import inspect
from pipeline.preprocess.rejects import RejectLog
from pipeline.schema import Role

FIELDS = {
    "user": "user",
    "price": {"domain": "item", "type": "number"},
    "tags": {"domain": "item", "type": "bag"},
    "ts": {"domain": "context", "type": "timestamp"},
}
NAMES = [*FIELDS, "click"]
ROWS = 40
PIECES = [  # that are put in
    *(b'"', b'""', b"\\", b",", b";", b"\t", b"\n", b"\r", b"\r\n", b"\n\n", b"\0", b"\x1f", b"\xff", b"|"),
    *(
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"nan",
        b"inf",
        b"1e999",
        b"-0.0",
        b"31.0",
        b"{",
        b"[",
        b"'",
        b"\xe2\x80\xa8",
    ),
    *("é".encode(), "北京".encode("gbk"), b" " * 300, b"," * 90, b'"' * 65, b"9" * 400, b"PAR1", b"\x1f\x8b"),
]


def rows(draw: random.Random) -> list[list[str]]:
    """Return the values of a whole log."""
    return [
        [
            draw.choice([f"u{draw.randint(0, 9)}", f"{draw.randint(0, 9)}.0", "Zoë", "", "a, b"]),
            draw.choice([f"{draw.random():.3f}", "12", "-1e3", "NA", ""]),
            draw.choice(["x|y", "x", "", "[1, 2]", "1.0|2.0"]),
            f"2020-0{draw.randint(1, 9)}-1{draw.randint(0, 9)}T0{draw.randint(0, 9)}:00:00"
            + draw.choice(["", "+08:00"]),
            draw.choice("0011") if i else "1",
        ]
        for i in range(ROWS)
    ]


def whole(draw: random.Random) -> tuple[str, bytes, dict[str, Any]]:
    """Return a file's name and bytes, and the keys that it is read with."""
    table, kind = (
        rows(draw),
        draw.choice(["csv", "csv", "tsv", "semicolon", "bars", "cr", "gz", "bz2", "parquet"]),
    )
    if kind == "parquet":
        out = BytesIO()
        columns = {name: pa.array([row[i] or None for row in table]) for i, name in enumerate(NAMES)}
        columns["click"] = pa.array([draw.choice([0, 1, None]) for _ in table])
        pq.write_table(pa.table(columns), out, row_group_size=draw.choice([7, 1000]))
        return "log.parquet", out.getvalue(), {}
    separator = {"tsv": "\t", "semicolon": ";", "bars": "::"}.get(kind, ",")
    end = {"cr": "\r"}.get(kind) or draw.choice(["\n", "\r\n"])
    quoted = [[f'"{cell}"' if separator in cell else cell for cell in row] for row in [NAMES, *table]]
    content = "".join(separator.join(row) + end for row in quoted).encode(
        draw.choice(["utf-8", "utf-8", "latin-1"])
    )
    packed: dict[str, Callable[[bytes], bytes]] = {
        "gz": lambda data: gzip.compress(data, mtime=0),
        "bz2": bz2.compress,
    }
    options = {"separator": separator} if kind in ("semicolon", "bars") else {}
    if draw.random() < 0.2 and separator != "::":
        options["escape"] = "\\"
    suffix = "tsv" if kind == "tsv" else "csv"
    if kind in packed:
        damaged_first = draw.random() < 0.7  # else the packed bytes are damaged
        return f"log.csv.{kind}", packed[kind](damaged(content, draw) if damaged_first else content), options
    return f"log.{suffix}", content, options


def damaged(content: bytes, draw: random.Random) -> bytes:
    """Return the bytes after one damage."""
    size = max(len(content), 1)
    start, length = draw.randrange(size), draw.choice([1, 3, 20, size // 3])
    match draw.randrange(7):
        case 0:
            return content[:start]
        case 1:
            return content[:start] + content[start + length :]
        case 2:
            return (
                content[:start] + content[start : start + length] * draw.choice([2, 2, 30]) + content[start:]
            )
        case 3:
            return (
                content[:start] + bytes([content[start] ^ (1 << draw.randrange(8))]) + content[start + 1 :]
                if content
                else b""
            )
        case 4:
            return content[:start] + draw.randbytes(length) + content[start + length :]
        case 5:
            old = draw.choice([b",", b"\n", b'"', b"1", b"0", b"."])
            return content.replace(old, draw.choice(PIECES), draw.choice([1, 5, -1]))
        case _:
            return content[:start] + draw.choice(PIECES) + content[start:]


def file_of(number: int, folder: Path) -> dict[str, Any]:
    """Write the file of a number, alone in the folder; return the keys that it is read with."""
    draw = random.Random(number)
    name, content, options = whole(draw)
    for _ in range(draw.randint(0 if content[:2] in (b"\x1f\x8b", b"BZ") else 1, 6)):
        content = damaged(content, draw)
    for old in folder.iterdir():
        old.unlink()
    (folder / name).write_bytes(content)
    return options


def accounted(folder: Path, **options: Any) -> int:
    """Read the folder's file; return its records, none of which may have vanished."""
    rejects = RejectLog()
    out = sum(len(table) for table in tabular.read(folder, rejects, **options).tables)
    tallies = rejects.files.values()
    records = sum(tally.records for tally in tallies)
    lost = records - out - sum(tally.rejected + tally.dropped for tally in tallies)
    if lost:
        raise AssertionError(f"{lost} of {records} records vanished")
    return records


def read(folder: Path, options: dict[str, Any]) -> int:
    """Read the folder's file as its log was written."""
    return accounted(folder, label="click", fields=FIELDS, time="ts", **options)


def look(folder: Path, _: dict[str, Any]) -> int:
    """Inspect the folder's file; read it by the entry that is proposed."""
    (path,) = folder.iterdir()
    found = inspect(path, "mine")
    entry = YAML(typ="safe", pure=True).load(found.entry)["mine"]["preprocess"]
    if not found.complete:
        return 0
    return accounted(folder, **{key: value for key, value in entry.items() if key not in Role.__args__})


@dataclass
class Result:
    """What became of the files."""

    seconds: list[tuple[float, int]] = field(default_factory=list)
    became: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


def run(what: Callable[[Path, dict[str, Any]], int], numbers: range) -> Result:
    """Put the files of some numbers through `read` or `look`."""
    result = Result()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in numbers:
            options, start = file_of(number, folder), time.process_time()
            try:
                result.became["records"] += what(folder, options)
                result.became["read"] += 1
            except PipelineError:
                result.became["refused in a message"] += 1
            except Exception:  # noqa: BLE001  whatever it is, it is a fault
                result.faults.append(f"file {number}: {traceback.format_exc()}")
            result.seconds = sorted([*result.seconds, (time.process_time() - start, number)])[-3:]
    return result


def main() -> None:
    """Parse the command line and print what became of the files."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--reads", type=int, default=1000)
    parser.add_argument("--inspections", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="the number of the first file")
    arguments = parser.parse_args()
    for what, count in ((read, arguments.reads), (look, arguments.inspections)):
        if not count:
            continue
        start = time.process_time()
        found = run(what, range(arguments.first, arguments.first + count))
        slowest = ", ".join(
            f"file {number} {1000 * seconds:.0f} ms" for seconds, number in found.seconds[::-1]
        )
        print(
            f"{what.__name__}: {count:,} files in {time.process_time() - start:.0f} s, {dict(found.became)}"
        )
        print(f"  faults: {len(found.faults)}; slowest: {slowest}")
        for fault in found.faults[:5]:
            print(fault)


if __name__ == "__main__":
    main()
