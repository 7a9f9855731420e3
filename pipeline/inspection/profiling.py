"""What the columns of a table hold, gathered block by block in bounded memory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.preprocess import parse, tables
from pipeline.preprocess.cleaning import equals
from pipeline.preprocess.parse import chunk
from pipeline.preprocess.rejects import RejectLog
from pipeline.preprocess.tables import Table
from pipeline.preprocess.timestamps import seconds

Counts = NDArray[np.int64]

DISTINCT = 100_000  # values of a column that are counted one by one; beyond, only that there are more
CHARACTERS = 64 << 20  # bytes that all these values together may have
SAMPLE = 200_000  # rows that are kept, to compare columns
CELLS = 20_000_000  # values kept in all
TRIED = 1000  # values of the first block on which every format of times is tried
STRAY = 0.0005  # fraction of values that may be none without a column losing its type
MARKS = frozenset(  # texts that stand for a missing number
    ["-", "--", "?", "unknown", "none", "n/a", "#n/a", "(null)", "<null>", "missing", "undefined", "nil", "."]
)
EARLIEST, LATEST = 631152000, 2208988800  # 1990 to 2040: numbers outside are not taken for times
TEXT_TIMES = (
    "iso",
    *(
        f"{date}{clock}"
        for date in ("%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%d.%m.%y")
        for clock in (" %H:%M:%S", " %H:%M", "", " %I:%M:%S %p", " %I:%M %p")
    ),
    "%d %b %Y",
    "%d %b %Y %H:%M:%S",
    "%d-%b-%Y",
    "%b %d, %Y",
    "%d/%b/%Y:%H:%M:%S %z",
    "%a %b %d %H:%M:%S %z %Y",
    "%a, %d %b %Y %H:%M:%S %z",
)
NUMBER_TIMES = ("seconds", "milliseconds")
DIGIT_TIMES = ("%Y%m%d", "%y%m%d%H", "%Y%m%d%H", "%Y%m%d%H%M", "%Y%m%d%H%M%S", "%y%m%d")


@dataclass
class Profile:
    """What one column holds.

    Attributes:
        type: its Arrow type.
        rows: records seen.
        missing: those without a value.
        values: the distinct values in the order of their first rows, None beyond the bounds.
        counts: how many rows hold each.
        at_least: a number of distinct values that there are, or more.
        alone: every value of every block stood there once.
        no_number: rows whose value is no number.
        marked: rows whose value stands for a missing number; `marks` are those values.
        comma: numbers are written with a comma.
        whole: all numbers are integers.
        code: some integers begin with zeros or are too long for a float: they count nothing.
        low, high: the range of the numbers.
        times: formats in which nearly all values are times -> rows in which they are none.
        span: the first and the last second of the time, by format.
        midnight: formats whose times are all at midnight.
        size: characters of all values, a value counted once a block; of `written` values.
    """

    name: str
    type: pa.DataType
    rows: int = 0
    missing: int = 0
    values: pa.Array | None = field(default_factory=lambda: pa.array([], pa.string()))
    counts: Counts = field(default_factory=lambda: np.empty(0, np.int64))
    at_least: int = 0
    alone: bool = True
    no_number: int = 0
    marked: int = 0
    marks: list[str] = field(default_factory=list)
    comma: bool = False
    whole: bool = True
    code: bool = False
    low: float = np.inf
    high: float = -np.inf
    times: dict[str, int] | None = None
    span: dict[str, tuple[int, int]] = field(default_factory=dict)
    midnight: set[str] = field(default_factory=set)
    size: int = 0
    written: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def filled(self) -> int:
        """Records with a value."""
        return self.rows - self.missing

    @property
    def unique(self) -> bool:
        """Whether no two records seem to have the same value."""
        return self.filled > 0 and (self.at_least == self.filled if self.values is not None else self.alone)

    @property
    def stray(self) -> int:
        """Values that may be of another type than the column."""
        return int(STRAY * self.filled)

    def add(self, coded: pa.DictionaryArray, limit: int) -> None:
        """Take in the values of a block.

        Args:
            limit: characters that the distinct values may have.
        """
        self.rows += len(coded)
        self.missing += coded.null_count
        counts = np.bincount(coded.indices.drop_null().to_numpy(), minlength=len(coded.dictionary))
        held = counts > 0
        texts, counts = coded.dictionary.filter(pa.array(held)), counts[held].astype(np.int64)
        if not len(texts):
            return
        if len(self.examples) < 3:
            self.examples += [text for text in texts[:3].to_pylist() if text not in self.examples]
        begins = not self.at_least
        self.alone &= bool((counts == 1).all())
        self.size += int(pc.sum(pc.utf8_length(texts)).as_py())
        self.written += len(texts)
        self._see_numbers(texts, counts, begins=begins)
        self._see_times(texts, counts)
        self._count(texts, counts, limit)

    def _count(self, texts: pa.Array, counts: Counts, limit: int) -> None:
        if self.values is None:
            self.at_least = max(self.at_least, len(texts))
            return
        both = pa.table(
            {"value": pa.concat_arrays([self.values, texts]), "count": np.r_[self.counts, counts]}
        )
        merged = both.group_by("value", use_threads=False).aggregate([("count", "sum")])
        self.at_least = len(merged)
        self.values, self.counts = chunk(merged["value"]), merged["count_sum"].to_numpy()
        if len(merged) > DISTINCT or self.values.nbytes > limit:
            self.values, self.counts = None, np.empty(0, np.int64)

    def _see_numbers(self, texts: pa.Array, counts: Counts, *, begins: bool) -> None:
        if 2 * self.no_number > self.rows:
            return  # it will not become a number any more
        self.comma |= begins and _has_commas(texts)
        values, bad = parse.numbers(pc.replace_substring(texts, ",", ".") if self.comma else texts)
        if bad.any():
            marked = pc.is_in(pc.utf8_lower(texts), pa.array(sorted(MARKS))).to_numpy(zero_copy_only=False)
            self.no_number += int(counts[bad & ~marked].sum())
            self.marked += int(counts[bad & marked].sum())
            self.marks += texts.filter(pa.array(bad & marked)).to_pylist()
        if self.whole:
            digits = pc.match_substring_regex(texts, "^-?[0-9]+$").to_numpy(zero_copy_only=False)
            self.whole = bool((digits | bad).all())
        if self.whole and not self.code:
            self.code = pc.any(pc.match_substring_regex(texts, "^-?(0[0-9]+|[0-9]{16,})$")).as_py()
        finite = values[np.isfinite(values)]
        if len(finite):
            self.low, self.high = min(self.low, float(finite.min())), max(self.high, float(finite.max()))

    def _see_times(self, texts: pa.Array, counts: Counts) -> None:
        if self.times is None:
            self.times = dict.fromkeys(_candidates(texts[:TRIED]), 0)
            self.midnight = set(self.times)
        for style in list(self.times):
            found, bad = seconds(texts, style)
            values = found.drop_null().to_numpy()
            outside = np.zeros(0, bool)
            if style not in TEXT_TIMES:
                outside = (values < EARLIEST) | (values > LATEST)
            self.times[style] += int(counts[bad].sum())
            if outside.any() or self.times[style] * 100 > self.filled or not len(values):
                del self.times[style]
                continue
            first, last = self.span.get(style, (int(values[0]), int(values[0])))
            self.span[style] = min(first, int(values.min())), max(last, int(values.max()))
            if (values % 86400).any():
                self.midnight.discard(style)


@dataclass
class Survey:
    """What the columns of a table hold, and its first rows."""

    profiles: dict[str, Profile]
    rows: int
    sample: dict[str, pa.DictionaryArray]
    rejects: RejectLog
    stopped: bool  # there were more rows


def survey(opened: Sequence[Table], missing: Sequence[str], rows: int | None = None) -> Survey:
    """Read the tables of a folder to the end, or so many rows.

    Columns of types that cannot be used have a profile without values.

    Args:
        missing: what a missing value looks like.
    """
    types = opened[0].types
    profiles = {name: Profile(name, type_) for name, type_ in types.items()}
    wanted = [name for name in types if all(_usable(table.types[name]) for table in opened)]
    limit = CHARACTERS // max(len(wanted), 1)
    sampled = min(SAMPLE, CELLS // max(len(wanted), 1))
    sample: dict[str, list[pa.DictionaryArray]] = {name: [] for name in wanted}
    rejects, done, left = RejectLog(), 0, rows
    for table in _blocks(opened, wanted, rejects):
        part = table if left is None else table.slice(0, left)
        for name in wanted:
            coded = _texts(chunk(part[name]), missing)
            profiles[name].add(coded, limit)
            if done < sampled:
                sample[name].append(coded.slice(0, sampled - done))
        done += len(part)
        if left is not None:
            left -= len(part)
            if left <= 0:
                break
    joined = {name: _joined(parts) for name, parts in sample.items()}
    return Survey(profiles, done, joined, rejects, stopped=left is not None and left <= 0)


def places(
    opened: Sequence[Table], column: str, values: Sequence[str], missing: Sequence[str]
) -> dict[str, str]:
    """Return where some values of a column stand first, as `<file>:<line>`; read no further than that."""
    found: dict[str, str] = {}
    for table in opened:
        for block, lines in table.blocks([column], RejectLog()):
            coded = _texts(chunk(block[column]), missing)
            for value in (value for value in values if value not in found):
                rows = np.flatnonzero(equals(coded, value))
                if len(rows):
                    found[value] = f"{table.path.name}:{lines[rows[0]]}"
            if len(found) == len(values):
                return found
    return found


def _blocks(opened: Sequence[Table], wanted: Sequence[str], rejects: RejectLog) -> Iterator[pa.Table]:
    if wanted:
        for table in opened:
            yield from (block for block, _ in table.blocks(wanted, rejects))


def _texts(column: pa.Array, missing: Sequence[str]) -> pa.DictionaryArray:
    if parse.kind(column.type) == "list":
        return parse.bags(column, tables.LIST_SEPARATOR, missing)
    return parse.texts(column, missing)


def _usable(type_: pa.DataType) -> bool:
    return parse.usable(type_, "bag")


def _joined(parts: Sequence[pa.DictionaryArray]) -> pa.DictionaryArray:
    if not parts:
        return pa.array([], pa.string()).dictionary_encode()
    return chunk(pa.chunked_array(parts).unify_dictionaries())


def _has_commas(texts: pa.Array) -> bool:
    """Whether the values are numbers with a comma before the decimals; before thousands it looks alike."""
    whole, decimals, thousands = (
        pc.match_substring_regex(texts, pattern).to_numpy(zero_copy_only=False)
        for pattern in ("^-?[0-9]+$", "^-?[0-9]+,[0-9]+$", "^-?[0-9]{1,3}(,[0-9]{3})+$")
    )
    return bool((decimals & ~thousands).any() and (whole | decimals).mean() > 0.9)


def _candidates(texts: pa.Array) -> list[str]:
    """Return the formats in which nearly all values are times."""
    digits = pc.all(pc.match_substring_regex(texts, r"^[0-9]{6,14}(\.[0-9]*)?$")).as_py()
    likely = pc.match_substring_regex(texts, "[0-9][-/., ]+[A-Za-z0-9]+[-/., ]+[0-9]")
    if not digits and 2 * likely.true_count < len(texts):
        return []
    found = []
    for style in (*NUMBER_TIMES, *DIGIT_TIMES) if digits else TEXT_TIMES:
        times, bad = seconds(texts, style)
        values = times.drop_null().to_numpy()
        recent = style in TEXT_TIMES or bool(((values >= EARLIEST) & (values <= LATEST)).all())
        if len(values) and recent and bad.sum() * 20 <= len(texts):
            found.append(style)
    return found
