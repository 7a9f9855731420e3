"""What the columns of a table contain, gathered block by block in bounded memory."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.preprocess import parse, tables
from pipeline.preprocess.cleaning import equals
from pipeline.preprocess.parse import chunk
from pipeline.preprocess.rejects import RejectLog
from pipeline.preprocess.tables import Table
from pipeline.preprocess.timestamps import may_be, seconds

Counts = NDArray[np.int64]

MAX_OF_PART = 1000  # distinct values of a column of which the rows of each part are counted
MAX_DISTINCT = 100_000  # values of a column that are counted one by one
DISTINCT_BYTES = 64 << 20  # that the distinct values of all columns may take
SAMPLE_ROWS = 200_000  # kept to compare columns
SAMPLE_VALUES = 20_000_000  # of all columns together
TRIED_VALUES = 1000  # of the first block, on which every time format is tried
TOLERANCE = 0.0005  # fraction of malformed values that a column of numbers, times or labels may have
SHOWN_CHARACTERS = 24  # of a name or value in the report
MARKS = frozenset(  # texts that stand for a missing number
    ["-", "--", "?", "unknown", "none", "n/a", "#n/a", "(null)", "<null>", "missing", "undefined", "nil", "."]
)
EARLIEST, LATEST = 631152000, 2208988800  # 1990 to 2040: other integers are not taken for times
TEXT_TIMES = (
    "iso",
    *(
        f"{date}{clock}"
        for date in ("%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%d.%m.%y")
        for clock in (" %H:%M:%S", " %H:%M", "", " %I:%M:%S %p", " %I:%M %p")
    ),
    *("%d %b %Y", "%d %b %Y %H:%M:%S", "%d-%b-%Y", "%b %d, %Y", "%d/%b/%Y:%H:%M:%S %z"),
    *("%a %b %d %H:%M:%S %z %Y", "%a, %d %b %Y %H:%M:%S %z"),
)
DIGIT_TIMES = ("%Y%m%d", "%y%m%d%H", "%Y%m%d%H", "%Y%m%d%H%M", "%Y%m%d%H%M%S", "%y%m%d")


@dataclass
class Times:
    """A column read in one time format."""

    malformed: int = 0  # rows whose value is not a time
    first: int = sys.maxsize  # seconds since 1970
    last: int = -sys.maxsize
    midnight: bool = True  # all times are at midnight: dates


@dataclass
class Profile:
    """What one column contains."""

    name: str
    type: pa.DataType
    rows: int = 0
    missing: int = 0
    values: pa.Array | None = field(default_factory=lambda: pa.array([], pa.string()))  # the distinct ones
    # in the order of their first rows; None beyond the bounds
    counts: Counts = field(default_factory=lambda: np.empty(0, np.int64))  # rows of each
    of_part: dict[str, Counts] = field(default_factory=dict)  # the same of each part, where values are few
    distinct: int = 0  # a lower bound where `values` is None
    repeats: bool = False  # within a block
    not_numbers: int = 0  # rows with a value that is neither a number nor a mark
    marked: int = 0  # rows with a mark, a text that stands for a missing number
    marks: list[str] = field(default_factory=list)
    decimal_comma: bool = False
    integers: bool = True  # all numbers are
    identifiers: bool = False  # some integers have leading zeros, or more digits than a float
    low: float = np.inf
    high: float = -np.inf
    times: dict[str, Times] | None = None  # by the formats that nearly all values have
    characters: int = 0  # of the distinct values of each block
    texts: int = 0  # their number
    examples: list[str] = field(default_factory=list)

    @property
    def filled(self) -> int:
        """Rows with a value."""
        return self.rows - self.missing

    @property
    def unique(self) -> bool:
        """Whether no two rows seem to have the same value."""
        return self.filled > 0 and (not self.repeats if self.values is None else self.distinct == self.filled)

    @property
    def tolerated(self) -> int:
        """Rows whose value may be malformed without another type for the column."""
        return int(TOLERANCE * self.filled)

    @property
    def mean_length(self) -> float:
        """Characters of a value."""
        return self.characters / max(self.texts, 1)

    def add(self, coded: pa.DictionaryArray, max_bytes: int) -> None:
        """Add the values of a block.

        Args:
            max_bytes: that the distinct values may take.
        """
        self.rows += len(coded)
        self.missing += coded.null_count
        counts = np.bincount(coded.indices.drop_null().to_numpy(), minlength=len(coded.dictionary))
        texts, counts = coded.dictionary.filter(pa.array(counts > 0)), counts[counts > 0].astype(np.int64)
        if not len(texts):
            return
        if len(self.examples) < 3:
            self.examples += [text for text in texts[:3].to_pylist() if text not in self.examples]
        if not self.texts:
            self.decimal_comma = _has_decimal_commas(texts)
            self.times = {time_format: Times() for time_format in _time_formats(texts[:TRIED_VALUES])}
        self.repeats |= bool((counts > 1).any())
        self.characters += int(pc.sum(pc.utf8_length(texts)).as_py())
        self.texts += len(texts)
        self._add_numbers(texts, counts)
        self._add_times(texts, counts)
        self._add_distinct(texts, counts, max_bytes)

    def close(self, part: str) -> None:
        """Take the rows since the last call for those of a part."""
        if self.values is None or len(self.values) > MAX_OF_PART:
            return
        added = self.counts.copy()
        for name, counts in self.of_part.items():
            added[: len(counts)] -= counts * (name != part)
        self.of_part[part] = added

    def _add_distinct(self, texts: pa.Array, counts: Counts, max_bytes: int) -> None:
        if self.values is None:
            self.distinct = max(self.distinct, len(texts))
            return
        both = pa.table(
            {"value": pa.concat_arrays([self.values, texts]), "count": np.r_[self.counts, counts]}
        )
        merged = both.group_by("value", use_threads=False).aggregate([("count", "sum")])
        self.distinct = len(merged)
        self.values, self.counts = chunk(merged["value"]), merged["count_sum"].to_numpy()
        if self.distinct > MAX_DISTINCT or self.values.nbytes > max_bytes:
            self.values, self.counts = None, np.empty(0, np.int64)

    def _add_numbers(self, texts: pa.Array, counts: Counts) -> None:
        if 2 * self.not_numbers > self.rows:
            return  # a text, whatever follows
        values, malformed = parse.numbers(texts, decimal="," if self.decimal_comma else ".")
        if malformed.any():
            marks = malformed & equals(pc.utf8_lower(texts), *MARKS)
            self.not_numbers += int(counts[malformed & ~marks].sum())
            self.marked += int(counts[marks].sum())
            self.marks += texts.filter(pa.array(marks)).to_pylist()
        self.integers = self.integers and bool((_matches(texts, "^-?[0-9]+$") | malformed).all())
        if self.integers and not self.identifiers:
            self.identifiers = bool(_matches(texts, "^-?(0[0-9]+|[0-9]{16,})$").any())
        finite = values[np.isfinite(values)]
        self.low = float(finite.min(initial=self.low))
        self.high = float(finite.max(initial=self.high))

    def _add_times(self, texts: pa.Array, counts: Counts) -> None:
        assert self.times is not None
        for time_format, found in list(self.times.items()):
            times, malformed = seconds(texts, time_format)
            values = times.drop_null().to_numpy()
            found.malformed += int(counts[malformed].sum())
            if found.malformed * 100 > self.filled or not _plausible(values, time_format):
                del self.times[time_format]
                continue
            found.first = min(found.first, int(values.min()))
            found.last = max(found.last, int(values.max()))
            found.midnight &= not (values % 86400).any()


@dataclass
class Survey:
    """What the columns of a table contain, and its first rows."""

    profiles: dict[str, Profile]
    rows: int
    sample: dict[str, pa.DictionaryArray]
    rejects: RejectLog
    truncated: bool  # not all rows may have been read
    parts: dict[str, int] = field(default_factory=dict)  # the rows of each, if files are parts

    @property
    def rejected(self) -> int:
        """Lines that are no records."""
        return sum(tally.rejected for tally in self.rejects.files.values())


def survey(
    opened: Sequence[Table],
    missing: Sequence[str],
    rows: int | None = None,
    parts: Mapping[str, str] = MappingProxyType({}),
) -> Survey:
    """Read the tables of a folder; columns of unusable types get a profile without values.

    Args:
        missing: texts that stand for a missing value.
        rows: read only this many.
        parts: to which part each file belongs, by its name; rows and values are counted by them, too.
    """
    profiles = {name: Profile(name, type_) for name, type_ in opened[0].types.items()}
    usable = [name for name in profiles if all(parse.usable(table.types[name], "bag") for table in opened)]
    max_bytes = DISTINCT_BYTES // max(len(usable), 1)
    sampled = min(SAMPLE_ROWS, SAMPLE_VALUES // max(len(usable), 1))
    sample: dict[str, list[pa.DictionaryArray]] = {name: [] for name in usable}
    rejects, done = RejectLog(), 0
    of_part = dict.fromkeys(parts.values(), 0)
    for table in opened if usable else ():
        start, part = done, parts.get(table.path.name)
        for block, _ in table.blocks(usable, rejects):
            block = block.slice(0, None if rows is None else rows - done)
            for name in usable:
                coded = _texts(block[name], missing)
                profiles[name].add(coded, max_bytes)
                if done < sampled:
                    sample[name].append(coded.slice(0, sampled - done))
            done += len(block)
            if done == rows:
                break
        if part is not None:
            of_part[part] += done - start
            for name in usable:
                profiles[name].close(part)
        if done == rows:
            break
    type_ = pa.dictionary(pa.int32(), pa.string())
    joined = {
        name: chunk(pa.chunked_array(blocks, type_).unify_dictionaries()) for name, blocks in sample.items()
    }
    return Survey(profiles, done, joined, rejects, truncated=done == rows, parts=of_part)


def places(
    opened: Sequence[Table], column: str, values: Sequence[str], missing: Sequence[str]
) -> dict[str, str]:
    """Return where some values of a column first occur, as `<file>:<line>`; read no further than that."""
    found: dict[str, str] = {}
    for table in opened:
        for block, lines in table.blocks([column], RejectLog()):
            coded = _texts(block[column], missing)
            for value in set(values) - set(found):
                rows = np.flatnonzero(equals(coded, value))
                if len(rows):
                    found[value] = f"{table.path.name}:{lines[rows[0]]}"
            if len(found) == len(values):
                return found
    return found


def shown(text: str) -> str:
    """Return a name or value as it is shown in the report: short, printable and not empty."""
    cut = text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 3]}..."
    cut = cut.replace(tables.LIST_SEPARATOR, ", ")
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in cut) or '""'


def _texts(column: pa.ChunkedArray, missing: Sequence[str]) -> pa.DictionaryArray:
    if parse.kind(column.type) == "list":
        return parse.bags(chunk(column), tables.LIST_SEPARATOR, missing)
    return parse.texts(chunk(column), missing)


def _matches(texts: pa.Array, regex: str) -> NDArray[np.bool_]:
    return np.asarray(pc.match_substring_regex(texts, regex).to_numpy(zero_copy_only=False))


def _has_decimal_commas(texts: pa.Array) -> bool:
    """Whether the values are numbers with a comma before the decimals, not one between thousands."""
    decimals = _matches(texts, "^-?[0-9]+,[0-9]+$")
    thousands = _matches(texts, "^-?[0-9]{1,3}(,[0-9]{3})+$")
    return bool((decimals & ~thousands).any() and (decimals | _matches(texts, "^-?[0-9]+$")).mean() > 0.9)


def _time_formats(texts: pa.Array) -> list[str]:
    """Return the formats in which nearly all values are times."""
    digits = _matches(texts, r"^[0-9]{6,14}(\.[0-9]*)?$").all()
    if not digits and _matches(texts, "[0-9][-/., ]+[A-Za-z0-9]+[-/., ]+[0-9]").mean() < 0.5:
        return []
    found = []
    first = texts[:20].drop_null().to_pylist()  # a format that fits none is not that of 95 % of all
    for time_format in ("seconds", "milliseconds", *DIGIT_TIMES) if digits else TEXT_TIMES:
        if not may_be(first, time_format):
            continue
        times, malformed = seconds(texts, time_format)
        if malformed.mean() <= 0.05 and _plausible(times.drop_null().to_numpy(), time_format):
            found.append(time_format)
    return found


def _plausible(values: Counts, time_format: str) -> bool:
    """Whether there are times, and integers read as times lie in recent decades."""
    recent = (values >= EARLIEST) & (values <= LATEST)
    return len(values) > 0 and (time_format in TEXT_TIMES or bool(recent.all()))
