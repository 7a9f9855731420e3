"""Seeds of one run trained in processes of their own, ahead of the process that writes the run.

A worker only trains: it leaves its trainings in the store and their checkpoints where the run looks for
them. The run goes from seed to seed as if it were alone and finds most of the work done. So the
outputs cannot depend on the number of processes; what a worker cannot do (it was killed, the training
diverges) the run does, or meets, itself.

A worker hears from its run through its standard input, which ends with the run, however that ends:
then the worker ends, too.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import psutil

from pipeline.common.errors import PipelineError

Block = dict[str, Any]
Wait = Callable[[int], None]
# Rows times epochs of one training from which on a process of its own pays: it needs some three seconds
# of imports, and the fastest models take longer for so many.
WORTH = 1_000_000


def processes(setting: str | int) -> int | None:
    """Return how many processes are asked for, None for as many as pay.

    The environment's CTR_PROCESSES wins over the one in params.yaml. Processes that train one model
    together (torchrun) have no workers beside them.

    Raises:
        PipelineError: it is neither `auto` nor a number from 1 on.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return 1
    value = os.environ.get("CTR_PROCESSES") or setting
    if value == "auto":
        return None
    if str(value).isdecimal() and int(value) >= 1:
        return int(value)
    raise PipelineError(f"CTR_PROCESSES={value!r}: give it the value `auto` or a number from 1 on (or none)")


def worthwhile_processes(*, threads: int, device: str, passes: int, nbytes: int) -> int:
    """Return the number of processes to train in at most, by a rule that measures nothing.

    Args:
        threads: of each process.
        device: its type; a single process keeps a GPU busy.
        passes: rows times epochs of one training.
        nbytes: size of its rows; a process holds them about three times.
    """
    if device != "cpu" or passes < WORTH:
        return 1
    room: int = psutil.virtual_memory().available // 2 // max(3 * nbytes, 1)
    return max(1, min(_cores() // threads, 1 + room))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def prefetch_seeds(job: Block, seeds: Sequence[int], count: int) -> Iterator[Wait]:
    """Train in `count` processes, this one among them, which has the first of every `count` seeds.

    Args:
        job: JSON-able arguments of `runs.train_ahead`.
        seeds: those that are still to be trained.

    Yields:
        wait(seed): returns when no worker is busy with that seed any more.
    """
    with ExitStack() as stack:
        busy: dict[int, _Worker] = {}
        for number in range(1, count):
            worker = stack.enter_context(_start({**job, "seeds": list(seeds[number::count])}))
            busy |= dict.fromkeys(seeds[number::count], worker)
        yield lambda seed: busy[seed].wait(seed) if seed in busy else None


class _Worker:
    """The run's end of a worker."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process, self._done = process, set[int]()

    def wait(self, seed: int) -> None:
        """Return when the seed is trained, or the worker gone."""
        assert self._process.stdout is not None
        while seed not in self._done:
            line = self._process.stdout.readline()
            if not line:
                self._mourn()
                return
            self._done.add(int(line))

    def _mourn(self) -> None:
        status = self._process.wait()
        if status < 0:
            print(
                f"warning: a process that trained seeds ahead was ended by {signal.Signals(-status).name}; "
                "its seeds are trained here (with processes: 1 in params.yaml there are none)",
                file=sys.stderr,
            )


@contextmanager
def _start(job: Block) -> Iterator[_Worker]:
    path = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    # Ctrl-C goes to all processes of a terminal; one has to answer. A blocked signal stays so in a child.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.train.workers"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        _send(process, job)
        yield _Worker(process)
    finally:
        process.kill()  # it holds nothing that is not in its checkpoints
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def _send(process: "subprocess.Popen[bytes]", job: Block) -> None:
    assert process.stdin is not None
    try:
        process.stdin.write(json.dumps(job).encode() + b"\n")
        process.stdin.flush()
    except BrokenPipeError:  # it is gone already; `wait` notices
        pass


def main() -> None:
    """Train what the run asks for; after each seed, say so in a line on standard output."""
    with open(0, "rb", buffering=0, closefd=False) as stdin:
        line = stdin.readline()
    if not line:
        return
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    report = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library may print is no report
    _train(json.loads(line), report)


def _train(job: Block, report: IO[str]) -> None:
    from pipeline.train import runs  # not at the top: it takes a second, and the run may end meanwhile

    try:
        for seed in runs.train_ahead(**job):
            print(seed, file=report)
    except PipelineError:
        pass  # the run meets it, too, and says it


def _exit_with_parent() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
