"""The workers of a run, for tests to wait for and to kill."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.train import workers


class Started(list[workers._Worker]):
    """The workers that were started, in their order; see the fixture `started`."""

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Keep every worker that is started from now on."""
        worker = workers._worker

        @contextmanager
        def kept(*args: Any) -> Iterator[workers._Worker]:
            with worker(*args) as one:
                self.append(one)
                yield one

        monkeypatch.setattr(workers, "_worker", kept)

    def wait_for_a_job(self) -> None:
        """Return when the last one has begun a job: before, it imports for seconds."""
        assert self[-1].messages.poll(60)

    def kill(self) -> None:
        """Kill those that are alive."""
        for each in self:
            each._process.kill()
            each._process.join()


def until_told(folder: Path, jobs: Iterable[int]) -> Iterator[int]:
    """Take one job and be busy with it until the folder has a file `enough`."""
    for job in jobs:
        while not (folder / "enough").exists():
            time.sleep(0.01)
        yield job
