"""The reject log: what became of every raw record (rows in = rows out + rejected + dropped)."""

from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pipeline.common.errors import PipelineError

SHOWN_PER_FILE = 20  # rejected records of a file that are listed with their reasons
PRINTED = 3  # of these, in what a run prints: they are mostly alike


@dataclass
class Tally:
    """The records of one file.

    Attributes:
        records: read so far.
        rejected: corrupted ones.
        dropped: left out on purpose, by a rule in params.yaml.
        side_table: its records do not become rows.
        first: line and reason of the first rejected records, ordered by line.
    """

    records: int = 0
    rejected: int = 0
    dropped: int = 0
    side_table: bool = False
    first: list[tuple[int, str]] = field(default_factory=list)


@dataclass
class RejectLog:
    """Counts the records of each file and lists the first rejected ones.

    A reader fills it while it reads. `check` ends it: no record of the click log may vanish, and at most
    a given fraction may be corrupted.
    """

    files: dict[str, Tally] = field(default_factory=dict)
    _hint: str = ""

    @property
    def first(self) -> list[str]:
        """The first rejected records of every file, by line: `<file>:<line>: <reason>`."""
        return [line for file in self.files for line in self._first_of(file)]

    def count(self, file: str, records: int, *, side_table: bool = False) -> None:
        """Add to the number of records read from a file."""
        self.files.setdefault(file, Tally(side_table=side_table)).records += records

    def reject(self, file: str, line: int, reason: str) -> None:
        """Reject the record on a line (from 1)."""
        self.files[file].rejected += 1
        self._list(file, line, reason)

    def _list(self, file: str, line: int, reason: str) -> None:
        if self.would_show(file, line):
            first = self.files[file].first
            insort(first, (line, reason))
            del first[SHOWN_PER_FILE:]

    def add(self, other: "RejectLog") -> None:
        """Add what another one counted and lists, of further records."""
        for file, tally in other.files.items():
            self.count(file, tally.records, side_table=tally.side_table)
            self.files[file].rejected += tally.rejected
            self.files[file].dropped += tally.dropped
            for line, reason in tally.first:
                self._list(file, line, reason)

    def would_show(self, file: str, line: int) -> bool:
        """Whether a record rejected on this line would be listed; if not, no reason need be worded.

        The listed ones are the first by line, in whatever blocks a file is read.
        """
        first = self.files[file].first
        return len(first) < SHOWN_PER_FILE or line < first[-1][0]

    def add_hint(self, hint: Callable[[str], str]) -> bool:
        """Append a hint to the first listed reason that has one; return whether any has.

        Args:
            hint: reason -> what to try, or an empty string.
        """
        for tally in self.files.values():
            for i, (line, reason) in enumerate(tally.first):
                if words := hint(reason):
                    tally.first[i] = line, f"{reason}; {words}"
                    self._hint = words
                    return True
        return False

    def cure(self, otherwise: str) -> str:
        """Return what to do about the rejected records: what a hint says, before anything else."""
        words = otherwise
        hint, otherwise = (f"{each[:1].upper()}{each[1:]}" for each in (self._hint, words))
        return f"{hint}. Otherwise {words}" if hint else otherwise

    def drop(self, file: str, records: int) -> None:
        """Count records that are left out because params.yaml asks for it."""
        self.files[file].dropped += records

    def check(self, rows_out: int, *, max_rejected: float, name: str) -> dict[str, Any]:
        """Check that rows in = rows out + rejected + dropped; return the counts as plain values.

        Raises:
            PipelineError: more than the fraction `max_rejected` of a file's records are corrupted, or
                no row is left.
        """
        for file, tally in self.files.items():
            if tally.rejected > max_rejected * tally.records:
                shown = "\n  ".join(self._first_of(file)[:PRINTED])
                if tally.rejected > PRINTED:
                    shown += f"\n  and {tally.rejected - PRINTED:,} more"
                raise PipelineError(
                    f"{name}: {tally.rejected} of {tally.records} records of {file} are corrupted, "
                    f"more than max_rejected = {max_rejected:g} allows:\n  {shown}\n"
                    + self.cure(
                        "fetch the file again, or raise preprocess.max_rejected of this dataset in "
                        "params.yaml, which leaves such records out."
                    )
                )
        log = [tally for tally in self.files.values() if not tally.side_table]
        rows_in = sum(tally.records for tally in log)
        rejected = sum(tally.rejected for tally in log)
        dropped = sum(tally.dropped for tally in log)
        assert rows_in == rows_out + rejected + dropped, (rows_in, rows_out, rejected, dropped)
        if not rows_out:
            raise PipelineError(
                f"{name}: no row is left of {rows_in} ({rejected} corrupted, {dropped} left out by its rules)"
                if rows_in
                else f"{name} holds no rows"
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

    def _first_of(self, file: str) -> list[str]:
        return [f"{file}:{line}: {reason}" for line, reason in self.files[file].first]
