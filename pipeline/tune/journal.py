"""Optuna's journal file, in which the studies of one machine are."""

from pathlib import Path

from filelock import FileLock
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

from pipeline.common.errors import PipelineError

JOURNAL = Path("studies/journal.jsonl")


class _JournalLock(JournalFileSymlinkLock):
    """The journal's lock as an operating system lock, which is released when its process ends.

    Optuna's own lock is a file that a killed process leaves behind; the next process waits 30 s for it.
    """

    def __init__(self, journal: Path) -> None:
        self._lock = FileLock(journal.with_name(f".{journal.name}.lock"))

    def acquire(self) -> bool:
        self._lock.acquire()
        return True

    def release(self) -> None:
        self._lock.release()


def opened(journal: Path) -> BaseStorage:
    """Return the storage of a journal, without what a killed process had not written to its end."""
    lock = _JournalLock(journal)
    _drop_torn_line(journal, lock)
    return JournalStorage(JournalFileBackend(str(journal), lock))


def damaged(journal: Path, reason: str) -> PipelineError:
    """Return the error that a journal cannot be read, or was changed."""
    return PipelineError(
        f"{journal} is damaged ({reason}): move it away and run again; searches that are done keep their "
        "results, and trainings that are done are taken from the cache"
    )


def _drop_torn_line(journal: Path, lock: _JournalLock) -> None:
    """Remove an incomplete last line, left by a killed process: Optuna refuses such a file."""
    if not journal.exists():
        return
    lock.acquire()
    try:
        with open(journal, "rb+") as file:
            size = file.seek(0, 2)
            start = max(0, size - 2**20)
            file.seek(start)
            tail = file.read()
            if tail and not tail.endswith(b"\n"):
                file.truncate(start + tail.rfind(b"\n") + 1)
    finally:
        lock.release()
