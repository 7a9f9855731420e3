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
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing import connection, get_context, parent_process, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

import psutil

from pipeline.common.engine import cores
from pipeline.common.errors import PipelineError

Train = Callable[[Iterable[int]], Iterator[int]]
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
def prefetch(train: Train, here: Train, jobs: Sequence[int], count: int) -> Iterator[Wait]:
    """Train in `count` processes, this one and workers; each takes the next job when it is done with one.

    Args:
        train: trains the jobs that it is given and yields each when done; sent to the workers by pickle.
        here: the same for this process, while it would wait for a job that a worker is busy with.
        jobs: those still to be trained, in ascending order, in which the run asks for them.

    Yields:
        wait(job): returns when no worker is busy with that job: it is done, or the run's to train. Of a job
            that is not among them nothing has to be waited for.
    """
    with ExitStack() as stack:
        if count < 2:
            yield lambda _job: None
            return
        tickets = stack.enter_context(_tickets(jobs))
        workers = [stack.enter_context(_worker(train, tickets)) for _ in range(1, count)]
        yield _Crew(here, jobs, tickets, workers).wait


class _Tickets:
    """Jobs of which each is taken once, by whichever process is first.

    They lie in a pipe, so that a process that is killed leaves neither a lock nor a file.
    """

    SIZE = 4  # bytes of one; so few are read as a whole

    def __init__(self, reader: Connection) -> None:
        self._reader = reader

    def __iter__(self) -> Iterator[int]:
        while ticket := os.read(self._reader.fileno(), self.SIZE):
            yield int.from_bytes(ticket, "big")


@contextmanager
def _tickets(jobs: Sequence[int]) -> Iterator[_Tickets]:
    reader, writer = get_context("spawn").Pipe(duplex=False)
    with reader:
        with writer:
            os.write(writer.fileno(), b"".join(job.to_bytes(_Tickets.SIZE, "big") for job in jobs))
        yield _Tickets(reader)


class _Worker:
    """The run's end of a worker, which says (job, False) when it begins one, (job, True) when it is done."""

    def __init__(self, process: SpawnProcess, messages: Connection) -> None:
        self._process, self.messages = process, messages
        self.begun: int | None = None

    def report_exit(self) -> None:
        """Say so if a signal has ended it."""
        self._process.join()
        code = self._process.exitcode or 0
        if code < 0:
            print(
                f"warning: a worker process was ended by {signal.Signals(-code).name}; its trainings are "
                "made here (`processes: 1` in params.yaml trains without workers)",
                file=sys.stderr,
            )


class _Crew:
    """The run and its workers."""

    def __init__(
        self, here: Train, jobs: Iterable[int], tickets: _Tickets, workers: Sequence[_Worker]
    ) -> None:
        self._here, self._jobs, self._tickets = here, set(jobs), iter(tickets)
        self._workers = list(workers)  # those that are there
        self._settled = set[int | None]()  # done, or left by a worker that is gone

    def wait(self, job: int) -> None:
        """See `prefetch`."""
        self._listen(0)
        while job in self._jobs and job not in self._settled:
            ticket = next(self._tickets, None)
            if ticket == job:
                return
            if ticket is None:
                if not self._workers:  # one was killed between taking the job and saying so
                    return
                self._listen(None)
            elif ticket > job:  # an earlier one the run has done without
                self._settled.update(self._here([ticket]))
                self._listen(0)

    def _listen(self, seconds: float | None) -> None:
        """Read what workers say; wait for it for so long (None: until there is something)."""
        while ready := connection.wait([worker.messages for worker in self._workers], seconds):
            for worker in [each for each in self._workers if each.messages in ready]:
                try:
                    worker.begun, settled = worker.messages.recv()
                except (EOFError, OSError):
                    self._workers.remove(worker)
                    worker.report_exit()
                    settled = True
                if settled:
                    self._settled.add(worker.begun)
            seconds = 0


@contextmanager
def _worker(train: Train, tickets: _Tickets) -> Iterator[_Worker]:
    spawn = get_context("spawn")
    reader, writer = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_work, args=(train, tickets, writer), daemon=True)
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


def _work(train: Train, tickets: _Tickets, messages: Connection) -> None:
    """Be a worker: take jobs, train them and say so."""
    threading.Thread(target=_exit_with_parent, daemon=True).start()

    def taken() -> Iterator[int]:
        for job in tickets:
            messages.send((job, False))
            yield job

    try:
        for job in train(taken()):
            messages.send((job, True))
    except PipelineError:
        pass  # the run meets it, too, and reports it


def _exit_with_parent() -> None:
    """End this process when the run ends, however it ends."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
