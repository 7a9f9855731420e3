"""Raw text files: records in, columns of strings out, and an account of every line that was refused."""

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.typing import NDArray

from pipeline.errors import PipelineError
from pipeline.files import read_json, sha256

Lines = NDArray[np.int64]
SHOWN = 20  # refused records that are told in full


@dataclass
class Tally:
    """Records of one file: seen, refused as corrupted, left out on purpose (by a rule of the params)."""

    records: int = 0
    rejected: int = 0
    dropped: int = 0
    log: bool = True  # False for a side table, whose records do not become rows


@dataclass
class Ledger:
    """What became of every raw record.

    A reader keeps it while it reads; `check` closes it: no record of the click log may vanish, and
    corrupted ones only up to a limit.
    """

    files: dict[str, Tally] = field(default_factory=dict)
    first: list[str] = field(default_factory=list)

    def seen(self, file: str, records: int, *, log: bool = True) -> None:
        """Count records of a file; `log` is False for a side table."""
        tally = self.files.setdefault(file, Tally(log=log))
        tally.records += records

    def reject(self, file: str, line: int, reason: str) -> None:
        """Refuse the record on a line (counted from 1)."""
        self.files[file].rejected += 1
        if len(self.first) < SHOWN:
            self.first.append(f"{file}:{line}: {reason}")

    def drop(self, file: str, records: int) -> None:
        """Leave records out because the params ask for it."""
        self.files[file].dropped += records

    def check(self, rows_out: int, *, max_rejected: float, name: str) -> dict[str, Any]:
        """Return the account as plain values: rows in = rows out + rejected + dropped.

        Raises:
            PipelineError: more than the fraction `max_rejected` of a file's records were refused, or
                no row is left.
        """
        for file, tally in self.files.items():
            if tally.rejected > max_rejected * tally.records:
                shown = "\n  ".join(line for line in self.first if line.startswith(f"{file}:"))
                raise PipelineError(
                    f"{name}: {tally.rejected} of {tally.records} records of {file} are corrupted, "
                    f"more than max_rejected = {max_rejected:g} allows:\n  {shown}\n"
                    "Fetch the file again, or raise preprocess.max_rejected of this dataset in params.yaml."
                )
        log = [tally for tally in self.files.values() if tally.log]
        rows_in = sum(tally.records for tally in log)
        rejected = sum(tally.rejected for tally in log)
        dropped = sum(tally.dropped for tally in log)
        assert rows_in == rows_out + rejected + dropped, (rows_in, rows_out, rejected, dropped)
        if not rows_out:
            raise PipelineError(
                f"{name}: no row is left of {rows_in} ({rejected} corrupted, {dropped} left out by its rules)"
            )
        return {
            "rows_in": rows_in,
            "rows_out": rows_out,
            "rejected": rejected,
            "dropped": dropped,
            "first_rejects": self.first,
            "files": {
                file: {"records": t.records, "rejected": t.rejected, "dropped": t.dropped}
                for file, t in self.files.items()
            },
        }


def records(
    path: Path,
    names: list[str],
    ledger: Ledger,
    *,
    delimiter: str,
    encoding: str = "utf-8",
    header: bool = False,
    log: bool = True,
    block: int = 16 << 20,
) -> Iterator[tuple[pa.Table, Lines]]:
    """Read a file of one record a line, without quoting, block by block.

    Yields tables of string columns `names` and the line number (from 1) of each row. A record with
    another number of fields, or with bytes that are not `encoding`, is refused in the ledger; blank
    lines are no records.

    Args:
        path: the file; its name stands in the ledger.
        header: the first line must be exactly `names`.
        log: whether its records become rows (False: a side table).
        block: bytes held at a time.

    Raises:
        PipelineError: the file is missing, empty, or has another header.
    """
    file = path.name
    ledger.seen(file, 0, log=log)
    line = 1
    for data in _blocks(path, block):
        if header and line == 1:
            head, _, data = data.partition(b"\n")
            expected = delimiter.join(names)
            if head.decode(encoding, "replace").lstrip("\ufeff") != expected:
                found = head[:200].decode(encoding, "replace")
                raise PipelineError(f"{path}:1: the header is {found!r}, expected {expected!r}")
            line = 2
            if not data:
                continue
        table, lines, bad = _parse(data, names, delimiter, encoding)
        ledger.seen(file, len(table) + len(bad), log=log)
        for number, reason in bad:
            ledger.reject(file, line + number - 1, reason)
        yield table, lines + line - 1
        line += data.count(b"\n")


def screen(
    table: pa.Table, lines: Lines, file: str, ledger: Ledger, rules: dict[str, tuple[str, str]]
) -> tuple[pa.Table, Lines]:
    """Refuse the rows in which a column does not match its pattern as a whole.

    Args:
        rules: column -> (regular expression, what it should be, in words).
    """
    good = np.ones(len(table), dtype=bool)
    reasons: dict[int, str] = {}
    for column, (pattern, meaning) in rules.items():
        matches = pc.match_substring_regex(table[column], f"^(?:{pattern})$").to_numpy()
        for row in np.flatnonzero(good & ~matches).tolist():
            reasons[row] = f"{column} {table[column][row].as_py()[:80]!r} is not {meaning}"
        good &= matches
    for row, reason in sorted(reasons.items()):
        ledger.reject(file, int(lines[row]), reason)
    return (table, lines) if good.all() else (table.filter(pa.array(good)), lines[good])


def _blocks(path: Path, size: int) -> Iterator[bytes]:
    """Yield whole lines, about `size` bytes at a time; line ends become LF, stray CRs spaces."""
    try:
        handle = open(path, "rb")  # noqa: SIM115  closed below; only the opening may fail so
    except FileNotFoundError:
        raise PipelineError(f"{path} is missing; run the download stage again") from None
    with handle:
        rest, empty = b"", True
        while data := handle.read(size):
            empty = False
            whole, newline, rest_of = (rest + data).rpartition(b"\n")
            rest = rest_of
            if newline:
                yield _plain(whole + newline)
        if empty:
            raise PipelineError(f"{path} is empty; delete it and run the download stage again")
        if rest:
            yield _plain(rest + b"\n")


def _plain(data: bytes) -> bytes:
    return data.replace(b"\r\n", b"\n").replace(b"\r", b" ") if b"\r" in data else data


def _parse(
    data: bytes, names: list[str], delimiter: str, encoding: str
) -> tuple[pa.Table, Lines, list[tuple[int, str]]]:
    """Return the table, its line numbers within `data`, and (line, reason) of every refused one."""
    bad: dict[int, str] = {}
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        decoded = []
        for number, raw in enumerate(data.split(b"\n"), 1):
            try:
                decoded.append(raw.decode(encoding))
            except UnicodeDecodeError as error:
                bad[number] = f"byte 0x{raw[error.start]:02x} at column {error.start + 1} is not {encoding}"
                decoded.append("")
        text = "\n".join(decoded)
    undecodable = len(bad)

    def invalid(row: pa.csv.InvalidRow) -> str:
        bad[row.number] = (
            f"{row.actual_columns} fields where {row.expected_columns} belong: {row.text[:80]!r}"
        )
        return "skip"

    encoded = text.encode()
    table = pa.csv.read_csv(
        io.BytesIO(encoded),
        read_options=pa.csv.ReadOptions(use_threads=False, column_names=names, block_size=len(encoded) + 1),
        parse_options=pa.csv.ParseOptions(
            delimiter=delimiter,
            quote_char=False,
            ignore_empty_lines=False,
            invalid_row_handler=invalid,
        ),
        convert_options=pa.csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
        ),
    )
    ragged = list(bad)[undecodable:]
    count = len(table) + len(ragged)
    lines = np.setdiff1d(np.arange(1, count + 1), ragged, assume_unique=True)
    # a blank line arrives as a row of empty strings: it is no record, and an undecodable one is refused
    empty = np.ones(len(table), dtype=bool)
    for name in names:
        empty &= pc.equal(table[name], "").to_numpy()
    if empty.any():
        blank = {number for number, raw in enumerate(text.split("\n"), 1) if not raw}
        keep = ~(empty & np.isin(lines, list(blank)))
        table, lines = table.filter(pa.array(keep)), lines[keep]
    return table, lines.astype(np.int64), sorted(bad.items())


def verify(folder: Path) -> None:
    """Check that the files of a raw folder are those that the download stage put there.

    DVC links them to its cache, so what writes into one of them changes the cached copy too, and
    DVC would go on believing in both.

    Raises:
        PipelineError: a file or the manifest is missing, or a file has other bytes.
    """
    manifest = folder / "manifest.json"
    if not manifest.exists():
        raise PipelineError(f"{manifest} is missing; run the download stage again")
    for name, entry in read_json(manifest)["files"].items():
        path = folder / name
        if not path.exists():
            raise PipelineError(f"{path} is missing; run the download stage again")
        if (found := sha256(path)) != entry["sha256"]:
            raise PipelineError(
                f"{path} was changed after its download (sha256 {found[:12]}..., it was "
                f"{entry['sha256'][:12]}...): remove {folder} and .dvc/cache, which may be linked to it "
                "(`make clean` does), and run again"
            )
