"""One map over units of work, by all cores of a machine or by a Ray cluster; the results come in their order.

A unit, and what is made of it, must not depend on other units or on what was done before: then the results
are the same bytes whatever the number of workers and whoever is done first. The workers are threads: Arrow
and numpy let go of the interpreter while they compute, and a thread costs nothing to start, so small logs
lose nothing. With `engine: ray` they are the processors of a cluster, whose machines have this environment
and share the project's folder; a unit whose worker is lost is done again. Nothing of this survives the
process: a stage that is killed starts anew.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Generic, Literal, TypeVar, cast

from pipeline.common.errors import PipelineError

Unit = TypeVar("Unit")
Result = TypeVar("Result")
RETRIES = 5  # of a unit whose worker or machine was lost


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


class _Engine:
    """The engine of this process: its name, and how many units it works on at a time."""

    name: Literal["local", "ray"] = "local"
    workers: int | None = None


def use(workers: int | None, name: Literal["local", "ray"] = "local") -> None:
    """Set the engine of `map_ordered` in this process.

    Args:
        workers: threads of the local engine; None for one a core.
    """
    _Engine.name, _Engine.workers = name, workers


def map_ordered(function: Callable[[Unit], Result], units: Iterable[Unit]) -> Iterator[Result]:
    """Yield what a function makes of each unit, in the order of the units.

    At most one unit more than there are workers is in the works or waits to be taken, so memory does not grow
    with their number; whoever takes no further result stops the map. The first unit that fails, in
    their order, raises its exception, however many later ones are done; so does a unit that cannot be had.

    Args:
        function: pure; it may be called in several threads at a time, or in other processes.
        units: read in the thread of the caller, as late as possible.
    """
    if _Engine.name == "ray":
        workers, submit, stop = _on_ray(function)
    elif (workers := _Engine.workers or cores()) == 1:
        yield from map(function, units)
        return
    else:
        pool = ThreadPoolExecutor(workers, thread_name_prefix="unit")
        submit, stop = partial(_submit, pool, function), partial(pool.shutdown, cancel_futures=True)
    waiting: deque[Callable[[], Result]] = deque()
    try:
        for unit in (units := _Until(units)):
            waiting.append(submit(unit))
            if len(waiting) > workers:
                yield waiting.popleft()()
        while waiting:
            yield waiting.popleft()()
        units.fail()
    finally:
        stop()


def ahead(items: Iterable[Result]) -> Iterator[Result]:
    """Yield items, while another thread makes the next one: what is done with one need not wait for it.

    With one worker there is no other thread. An exception is raised in its turn.
    """
    if (_Engine.workers or cores()) == 1:
        yield from items
        return
    end = object()
    iterator = iter(items)
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as thread:
        following = thread.submit(next, iterator, end)
        while (item := following.result()) is not end:
            following = thread.submit(next, iterator, end)
            yield cast(Result, item)
            del item  # its memory, before the one after the next is made


def _submit(pool: ThreadPoolExecutor, function: Callable[[Unit], Result], unit: Unit) -> Callable[[], Result]:
    """Give a unit to a thread; return what waits for its result."""
    return pool.submit(function, unit).result


def _on_ray(
    function: Callable[[Unit], Result],
) -> tuple[int, Callable[[Unit], Callable[[], Result]], Callable[[], None]]:
    """Return how many processors a cluster has, what gives it a unit, and what ends this.

    Raises:
        PipelineError: Ray is not installed, or there is no cluster at its address.
    """
    try:
        import ray
    except ImportError:
        raise PipelineError(
            "`engine: ray` needs Ray: install the extra [scale] (pip install -e '.[scale]'), or say "
            "`engine: local` in params.yaml"
        ) from None
    if not ray.is_initialized():
        try:
            ray.init(log_to_driver=False)  # at RAY_ADDRESS, if it is set
        except (ConnectionError, RuntimeError, ValueError) as error:
            address = os.environ.get("RAY_ADDRESS", "not set")
            raise PipelineError(f"no Ray cluster (RAY_ADDRESS is {address}): {error}") from None
    shared = ray.put(function)
    call = ray.remote(max_retries=RETRIES)(_call)

    def submit(unit: Unit) -> Callable[[], Result]:
        reference = call.remote(os.getcwd(), shared, unit)

        def wait() -> Result:
            result, error = ray.get(reference)
            if error is not None:
                raise error
            return cast(Result, result)

        return wait

    return max(1, int(ray.cluster_resources().get("CPU", 1))), submit, lambda: None


def _call(
    folder: str, function: Callable[[Unit], Result], unit: Unit
) -> tuple[Result | None, Exception | None]:
    """Do a unit on a machine of the cluster, in the project's folder."""
    os.chdir(folder)
    try:
        return function(unit), None
    except Exception as error:  # noqa: BLE001  it is raised where the results are taken
        return None, error


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
