"""The units in which raw files are read: cleaned by all cores (`common/engine.py`), merged in their order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.common.engine import map_ordered
from pipeline.common.errors import PipelineError
from pipeline.preprocess.rejects import RejectLog

Lines = NDArray[np.int64]
Clean = Callable[[pa.Table, Lines, RejectLog], Any]  # rows, their lines, where to reject some -> what is made


class Done(NamedTuple):
    """What became of a unit.

    Attributes:
        result: what its cleaning returned.
        rejects: of its records alone.
        rest: its last bytes, if they are of a record that ends in the next unit.
    """

    result: Any
    rejects: RejectLog
    rest: bytes = b""


class Unit(Protocol):
    """A part of a file, such as `text.Piece`."""

    def read(self, clean: Clean, before: bytes = b"") -> Done:
        """Read its rows and clean them."""


def as_it_is(table: pa.Table, lines: Lines, _rejects: RejectLog) -> tuple[pa.Table, Lines]:
    """Return rows as they were read."""
    return table, lines


def cleaned(tasks: Iterable[tuple[Unit, Clean]], rejects: RejectLog) -> Iterator[Any]:
    """Yield the results of units, in their order, and add their rejects.

    Args:
        tasks: the units and how each is cleaned: by a pure function, but for the rejects that it is given.
    """
    held = deque[tuple[Unit, Clean]]()
    rest = b""
    for done in map_ordered(_done, _remembered(tasks, held)):
        unit, clean = held.popleft()
        if rest:  # it was read as if it began with a record
            done = unit.read(clean, rest)
        if isinstance(done, PipelineError):
            raise done
        rest = done.rest
        rejects.add(done.rejects)
        yield done.result


def _remembered(
    tasks: Iterable[tuple[Unit, Clean]], held: deque[tuple[Unit, Clean]]
) -> Iterator[tuple[Unit, Clean]]:
    for task in tasks:
        held.append(task)
        yield task


def _done(task: tuple[Unit, Clean]) -> Done | PipelineError:
    unit, clean = task
    try:
        return unit.read(clean)
    except PipelineError as error:  # which means nothing where the unit has to be read again
        return error
