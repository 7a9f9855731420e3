"""What became of every raw record: rows in = rows out + rejected + dropped."""

from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pipeline.common.errors import PipelineError

SHOWN = 20  # refused records of a file that are told in full


@dataclass
class Tally:
    """Records of one file: seen, refused as corrupted, left out on purpose (by a rule of the params)."""

    records: int = 0
    rejected: int = 0
    dropped: int = 0
    log: bool = True  # False for a side table, whose records do not become rows
    first: list[tuple[int, str]] = field(default_factory=list)  # line and reason of refused ones, by line


@dataclass
class RejectLog:
    """What became of every raw record.

    A reader keeps it while it reads; `check` closes it: no record of the click log may vanish, and
    corrupted ones only up to a limit.
    """

    files: dict[str, Tally] = field(default_factory=dict)

    @property
    def first(self) -> list[str]:
        """The first refused records of every file, by line: `<file>:<line>: <reason>`."""
        return [line for file in self.files for line in self._first(file)]

    def seen(self, file: str, records: int, *, log: bool = True) -> None:
        """Count records of a file; `log` is False for a side table."""
        tally = self.files.setdefault(file, Tally(log=log))
        tally.records += records

    def reject(self, file: str, line: int, reason: str) -> None:
        """Refuse the record on a line (counted from 1)."""
        tally = self.files[file]
        tally.rejected += 1
        if self.tells(file, line):
            insort(tally.first, (line, reason))
            del tally.first[SHOWN:]

    def tells(self, file: str, line: int) -> bool:
        """Whether the reason will be told if the record on this line is refused, or it is only counted.

        The records told are the first by line, whatever the blocks in which a file is read.
        """
        first = self.files[file].first
        return len(first) < SHOWN or line < first[-1][0]

    def explain(self, more: Callable[[str], str]) -> bool:
        """Add to the first reason told for which `more` has words; return whether there was one."""
        for tally in self.files.values():
            for i, (line, reason) in enumerate(tally.first):
                if words := more(reason):
                    tally.first[i] = line, reason + words
                    return True
        return False

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
                shown = "\n  ".join(self._first(file))
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

    def _first(self, file: str) -> list[str]:
        return [f"{file}:{line}: {reason}" for line, reason in self.files[file].first]
