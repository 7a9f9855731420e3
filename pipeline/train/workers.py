"""Train the seeds of a run, the trials of a wave or the finals of a search in parallel worker processes.

A worker only trains: it leaves its trainings in the cache, and their checkpoints where the run looks for
them. The run goes through its jobs in order as if it were alone, and finds most of the work done. So its
outputs cannot depend on the number of processes; what a worker did not finish (it was killed, the training
diverges) the run does, or meets, itself.

Why not `ProcessPoolExecutor`: when one worker is killed it ends the others too and does not say by which
signal; it cannot stop a training that is running; and its workers survive a run that is killed.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context, parent_process, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

import psutil

from pipeline.common.engine import cores
from pipeline.common.errors import PipelineError

Train = Callable[[Sequence[int]], Iterator[int]]
Wait = Callable[[int], None]
# Rows times epochs of one training that make a worker worthwhile: it needs some three seconds of imports,
# and the fastest models take longer than that for so many.
WORTHWHILE_ROWS = 1_000_000


def worthwhile_processes(*, threads: int, device: str, passes: int, nbytes: int) -> int:
    """Return how many processes to train in at most, by a fixed rule that measures nothing but memory.

    Args:
        threads: of each process.
        device: its type; a single process keeps a GPU busy.
        passes: rows times epochs of one training.
        nbytes: size of its rows; a process holds them about three times.
    """
    if device != "cpu" or passes < WORTHWHILE_ROWS:
        return 1
    room: int = psutil.virtual_memory().available // 2 // max(3 * nbytes, 1)
    return max(1, min(cores() // threads, 1 + room))


@contextmanager
def prefetch(train: Train, jobs: Sequence[int], count: int) -> Iterator[Wait]:
    """Train in `count` processes: this one, whose share is the first of every `count` jobs, and workers.

    Args:
        train: trains the jobs it is given and yields each when done; sent to the workers by pickle.
        jobs: those still to be trained.

    Yields:
        wait(job): returns when no worker is busy with that job any more.
    """
    with ExitStack() as stack:
        busy: dict[int, _Worker] = {}
        for number in range(1, count):
            share = jobs[number::count]
            busy |= dict.fromkeys(share, stack.enter_context(_worker(train, share)))
        yield lambda job: busy[job].wait(job) if job in busy else None


class _Worker:
    """The run's end of a worker."""

    def __init__(self, process: SpawnProcess, done: Connection) -> None:
        self._process, self._connection, self._done = process, done, set[int]()
        self._gone = False

    def wait(self, job: int) -> None:
        """Return when the job is done, or the worker gone."""
        while job not in self._done and not self._gone:
            try:
                self._done.add(self._connection.recv())
            except (EOFError, OSError):
                self._gone = True
                self._report_exit()

    def _report_exit(self) -> None:
        self._process.join()
        code = self._process.exitcode or 0
        if code < 0:
            print(
                f"warning: a worker process was ended by {signal.Signals(-code).name}; its trainings are "
                "made here (`processes: 1` in params.yaml trains without workers)",
                file=sys.stderr,
            )


@contextmanager
def _worker(train: Train, jobs: Sequence[int]) -> Iterator[_Worker]:
    spawn = get_context("spawn")
    reader, writer = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_work, args=(train, jobs, writer), daemon=True)
    resource_tracker.ensure_running()  # else `start` would do so, and unblock SIGINT
    # Ctrl-C reaches all processes of a terminal and one must answer. A child inherits the blocked signal.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        writer.close()
    try:
        yield _Worker(process, reader)
    finally:
        process.kill()  # whatever it has done is in the cache and in its checkpoints
        process.join()
        reader.close()


def _work(train: Train, jobs: Sequence[int], done: Connection) -> None:
    """Be a worker: train, and report each job."""
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    try:
        for job in train(jobs):
            done.send(job)
    except PipelineError:
        pass  # the run meets it, too, and reports it


def _exit_with_parent() -> None:
    """End this process when the run ends, however it ends."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
