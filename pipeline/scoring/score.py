"""Files of raw rows -> probabilities, block by block; nothing is held but one block."""

import shutil
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
import torch

from pipeline.common.errors import PipelineError
from pipeline.common.files import replacing
from pipeline.common.text import listed
from pipeline.preprocess import tables
from pipeline.preprocess.parse import chunk
from pipeline.preprocess.rejects import RejectLog
from pipeline.preprocess.tables import Layout
from pipeline.scoring import doubts
from pipeline.scoring.doubts import Clock
from pipeline.scoring.model import Model
from pipeline.split.vocabulary import Ids

STDIN, STDOUT = "<stdin>", "<stdout>"  # what rows and scores there are called
FILE, ROW = "file", "row"  # columns that say where a row stands
OUTPUTS = (*tables.PARQUET_SUFFIXES, ".csv")


@dataclass
class Seen:
    """Per field: in how many rows it had a value that training did not see, and in how many none."""

    rows: int = 0
    unseen: Counter[str] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)

    def add(self, model: Model, clean: pa.RecordBatch, ids: Ids) -> None:
        """Count clean rows, whose ids are given."""
        schema, slot = model.package.schema, 0
        self.rows += len(ids)
        for entry, part, first in zip(model.package.vocabulary, schema.fields, schema.offsets, strict=True):
            own = ids[:, slot : slot + part.slots]
            slot += part.slots
            new = int((own == first).any(1).sum())
            if entry["kind"] == "bag":
                absent, known = int((own == 0).all(1).sum()), True
            elif entry["kind"] == "number":
                absent, known = int(pc.sum(pc.is_nan(clean[part.name])).as_py() or 0), bool(entry["missing"])
            else:
                absent, known = clean[part.name].null_count, None in entry["values"]
            self.missing[part.name] += absent
            self.unseen[part.name] += new - (0 if known else absent)  # a missing value may be unseen itself

    def lines(self, marked: Collection[str] = ()) -> list[str]:
        """Return a table in text: a line for each field, with a mark at some."""
        width = max(map(len, self.missing), default=0)
        head = f"{'field':{width}}  {'unseen':>16}  {'missing':>16}"
        both = {
            name: f"{self._share(self.unseen[name])}  {self._share(self.missing[name])}"
            for name in self.missing
        }
        marks = {name: "  !" if name in marked else "" for name in both}
        return [head, *(f"{name:{width}}  {shares}{marks[name]}" for name, shares in both.items())]

    def _share(self, count: int) -> str:
        return f"{count:>9,} {100 * count / max(self.rows, 1):5.1f}%"


def open_rows(model: Model, path: Path, layout: Layout, keep: Sequence[str] = ()) -> list[tables.Table]:
    """Open a file, or those of a folder, and check their columns.

    Args:
        layout: how text files are written, such as `model.reading.layout`.
        keep: further columns that must be there.

    Raises:
        PipelineError: there is no such file, or it lacks a column, or has one of another type.
    """
    layout.check()
    if not path.exists():
        raise PipelineError(f"{path} does not exist")
    files = [path]
    if path.is_dir():
        files = sorted(each for each in path.iterdir() if each.name.endswith(tables.SUFFIXES))
    if not files:
        raise PipelineError(
            f"{path} holds no file whose name ends like that of a table (.csv, .parquet, ...)"
        )
    opened = tables.open_folder(files, layout)
    for table in opened:
        _check_header(model, table, layout)
        model.reading.check(table.types, str(table.path))
        for name in keep:
            tables.check_column(table.path, "--keep", name, table.types)
    return opened


def _check_header(model: Model, table: tables.Table, layout: Layout) -> None:
    """Raise if the first line of a text, which is to name its columns, names none that the model reads."""
    if layout.names is not None or isinstance(table, tables.ParquetTable):
        return
    if not set(model.columns) & set(table.types):
        first = listed(map(repr, table.types))
        raise PipelineError(
            f"{table.path}: its first line ({first}) names no column that the model reads: "
            f"{', '.join(model.columns)}. If it is no header, name the columns of the file in order: "
            "`predict --names A,B,...`"
        )


def scored(
    model: Model,
    opened: Sequence[tables.Table],
    rejects: RejectLog,
    seen: Seen,
    keep: Sequence[str] = (),
    clock: Clock | None = None,
) -> Iterator[pa.Table]:
    """Yield the scores of files, a table per block: where a row stands, the columns to keep, probabilities.

    Args:
        rejects, seen, clock: are filled on the way.
        keep: columns that are copied as they are in the files.
    """
    wanted = {*model.columns, *keep}
    for table in opened:
        for block, lines in table.blocks(wanted, rejects, plain=model.reading.plain):
            clean, good = model.reading.clean(block, lines, table.path.name, rejects)
            if not good.all():
                clean, block, lines = clean.filter(pa.array(good)), block.filter(pa.array(good)), lines[good]
            ids = model.encode(clean)
            seen.add(model, clean, ids)
            if clock is not None:
                clock.add(block)
            made: dict[str, Any] = {FILE: pa.repeat(table.path.name, len(ids))} if len(opened) > 1 else {}
            made[ROW] = lines.astype(np.int64)
            made |= {name: _plain(chunk(block[name])) for name in keep}
            yield pa.table({**made, **model.score(clean, ids)})


def write(path: Path, parts: Iterator[pa.Table]) -> None:
    """Write tables as one Parquet or CSV file, by its name.

    Raises:
        PipelineError: the name has another ending.
    """
    check_output(path)
    with replacing(path) as temporary, ExitStack() as stack:
        writer: Any = None
        for part in parts:
            if writer is None:
                make = pa.csv.CSVWriter if path.name.endswith(".csv") else pq.ParquetWriter
                writer = stack.enter_context(make(str(temporary), part.schema))
                schema = part.schema
            writer.write_table(part.cast(schema))


def check_output(path: Path) -> None:
    """Raise if no scores can be written into a file of this name.

    Raises:
        PipelineError: it names the endings that are known.
    """
    if not path.name.endswith(OUTPUTS):
        raise PipelineError(f"{path}: scores are written into a file that ends in {' or '.join(OUTPUTS)}")


def run(
    model: Model,
    rows: Path,
    out: Path,
    *,
    layout: Layout,
    keep: Sequence[str] = (),
    max_rejected: float | None = None,
) -> str:
    """Score a file, or those of a folder, into another file; return what was found, in words.

    Args:
        rows: where they are, such as what `source` yields.
        layout: how text files are written.
        keep: columns to copy.
        max_rejected: the largest share of corrupted rows (default: that of training).

    Raises:
        PipelineError: more rows are corrupted, and nothing is written; and as `open_rows` and `write`.
    """
    if out.exists() and out.resolve() in {rows.resolve(), *(path.resolve() for path in rows.glob("*"))}:
        raise PipelineError(f"{out} holds the rows: write the scores into another file")
    limit = model.reading.max_rejected if max_rejected is None else max_rejected
    rejects, seen, clock, counts = RejectLog(), Seen(), Clock(model), dict[str, Any]()

    def parts() -> Iterator[pa.Table]:
        yield from scored(model, open_rows(model, rows, layout, keep), rejects, seen, keep, clock)
        _check_rejected(rejects, limit, rows)
        counts.update(rejects.check(seen.rows, max_rejected=1, name=str(rows)))

    with _one_thread():
        write(out, parts())
    rows_in, rejected = counts["rows_in"], counts["rejected"]
    where = STDIN if rows.name.startswith(STDIN) else rows
    words = f"{where}: {rows_in:,} rows in, {seen.rows:,} scored, {rejected:,} rejected"
    place = STDOUT if out.name.startswith(STDOUT) else out
    odd = doubts.unseen(model, seen.rows, seen.unseen)
    told = *seen.lines(odd), *filter(None, (doubts.words(model, odd), clock.words()))
    return "\n".join([words, *(f"  {line}" for line in rejects.first), *told, f"-> {place}"])


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch compute in one thread: where others work, too, several mostly wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _check_rejected(rejects: RejectLog, max_rejected: float, rows: Path) -> None:
    total = sum(tally.records for tally in rejects.files.values())
    bad = sum(tally.rejected for tally in rejects.files.values())
    if bad > max_rejected * total:
        rejects.add_hint(_hint)
        first = "\n  ".join(rejects.first)
        raise PipelineError(
            f"{rows}: {bad} of {total} rows are corrupted, more than --max-rejected {max_rejected:g}:\n"
            f"  {first}\n{rejects.cure('mend them, or raise --max-rejected to go on without them.')}"
        )


def _hint(reason: str) -> str:
    """Return what `tables.hint` does, in the options of `predict`."""
    found = tables.hint(reason)
    if "`encoding:" in found:
        return "if the text is not in UTF-8, name its encoding: --encoding latin-1 (or cp1252, ...)"
    return "close the quotes in the file, or write it as Parquet" if "`quote:" in found else found


@contextmanager
def source(rows: str) -> Iterator[Path]:
    """Yield the path of rows to score; `-` is what the standard input holds, kept on disk meanwhile."""
    if rows != "-":
        yield Path(rows)
        return
    with TemporaryDirectory() as folder:
        path = Path(folder, STDIN)
        with open(path, "wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        with open(path, "rb") as file:
            head = file.read(4)
        packed = {b"\x1f\x8b": ".gz", b"BZ": ".bz2", b"\x28\xb5": ".zst"}
        try:
            yield path.rename(path.with_suffix(packed.get(head[:2], "")))
        except PipelineError as error:  # nobody knows the folder
            raise PipelineError(str(error).replace(f"{folder}/", "")) from None


@contextmanager
def destination(scores: str) -> Iterator[Path]:
    """Yield the path of scores to write; `-` is the standard output, to which CSV goes once it is whole."""
    if scores != "-":
        yield Path(scores)
        return
    with TemporaryDirectory() as folder:
        path = Path(folder, f"{STDOUT}.csv")
        yield path
        with open(path, "rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
        sys.stdout.flush()


def with_changes(layout: Layout, **changes: Any) -> Layout:
    """Return a layout with other values for what is not None."""
    return replace(layout, **{key: value for key, value in changes.items() if value is not None})


def _plain(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
