"""One map over units of work, by all cores of a machine; the results come in the order of the units.

A unit, and what is made of it, must not depend on other units or on what was done before: then the results
are the same bytes whatever the number of workers and whoever is done first. The workers are threads: Arrow
and numpy let go of the interpreter while they compute, and a thread costs nothing to start, so small logs
lose nothing. Nothing of this survives the process: a stage that is killed starts anew.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from pipeline.common.errors import PipelineError

Unit = TypeVar("Unit")
Result = TypeVar("Result")


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processes(setting: str | int) -> int | None:
    """Return the requested number of processes, None for `auto` (as many as are worthwhile).

    CTR_PROCESSES in the environment overrides params.yaml. Processes that train one model together
    (torchrun) have no workers.

    Raises:
        PipelineError: the value is neither `auto` nor a positive integer.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return 1
    value = os.environ.get("CTR_PROCESSES") or setting
    if value == "auto":
        return None
    if str(value).isdecimal() and int(value) >= 1:
        return int(value)
    raise PipelineError(f"CTR_PROCESSES={value!r}: must be `auto` or a positive integer (or unset)")


class _Local:
    """The engine of this process: how many units it works on at a time."""

    workers: int | None = None


def use(workers: int | None) -> None:
    """Set the number of workers of `map_ordered` in this process; None for one a core."""
    _Local.workers = workers


def map_ordered(function: Callable[[Unit], Result], units: Iterable[Unit]) -> Iterator[Result]:
    """Yield what a function makes of each unit, in the order of the units.

    At most one unit more than there are workers is in the works or waits to be taken, so memory does not grow
    with their number; whoever takes no further result stops the map. The first unit that fails, in
    their order, raises its exception, however many later ones are done; so does a unit that cannot be had.

    Args:
        function: pure; it may be called in several threads at a time.
        units: read in the thread of the caller, as late as possible.
    """
    workers = _Local.workers or cores()
    if workers == 1:
        yield from map(function, units)
        return
    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="unit")
    try:
        for unit in (units := _Until(units)):
            waiting.append(pool.submit(function, unit))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
        units.fail()
    finally:
        pool.shutdown(cancel_futures=True)


class _Until(Generic[Unit]):
    """Units until the next one cannot be had; `fail` raises why, after those before it."""

    def __init__(self, units: Iterable[Unit]) -> None:
        self._units = units
        self._error: Exception | None = None

    def __iter__(self) -> Iterator[Unit]:
        try:
            yield from self._units
        except Exception as error:  # noqa: BLE001  it is raised in its turn
            self._error = error

    def fail(self) -> None:
        if self._error is not None:
            raise self._error
