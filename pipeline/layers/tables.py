"""How a table of vectors begins, and who holds it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.schema import EMPTY, Schema

# Makes the layer that stands in for the parameter of a table, from its shape (V, D) and its initial rows,
# some at a time. It must read them to their end: what is drawn after them comes from the same generator.
Held = Callable[[tuple[int, int], Iterator[Tensor]], nn.Module]
_held: ContextVar[Held | None] = ContextVar("held", default=None)
_BLOCK = 2**20  # numbers of a table that are drawn at a time
_DRAWN = 16  # of which torch draws normal numbers so many at a time


@contextmanager
def held(by: Held) -> Iterator[None]:
    """Let the tables of models that are built inside the block be held elsewhere: see `train/sharded.py`."""
    token = _held.set(by)
    try:
        yield
    finally:
        _held.reset(token)


def blocks(schema: Schema, dim: int, std: float) -> Iterator[Float[Tensor, "R D"]]:
    """Yield the initial rows of a table, some at a time.

    Rows ~ N(0, std^2), bit for bit `torch.randn(V, dim) * std`, but for the empty row and each field's unseen
    row, which are zero.

    With min_count 1 no train row has an unseen value, so that its row would keep its random initial
    value: zero means "nothing known" instead. The rows beside given vectors start at zero, too.
    """
    step = max(1, _BLOCK // (dim * _DRAWN)) * _DRAWN  # a whole number of draws
    starts = [first for first in range(0, schema.rows, step) if (schema.rows - first) * dim >= _DRAWN] or [0]
    zero = [(row, row + 1) for row in (EMPTY, *schema.row_offsets)]
    for field, first in zip(schema.fields, schema.row_offsets, strict=True):
        if field.given == "trained":
            zero.append((first, first + field.size))
    for first, end in zip(starts, [*starts[1:], schema.rows], strict=True):
        rows = torch.randn(end - first, dim) * std
        for start, stop in zero:
            rows[max(start - first, 0) : max(stop - first, 0)] = 0.0
        yield rows


def table(schema: Schema, dim: int, std: float) -> nn.Parameter | nn.Module:
    """Return the table of a layer, or what holds it: see `blocks`."""
    by = _held.get()
    if by is not None:
        return by((schema.rows, dim), blocks(schema, dim, std))
    whole, first = torch.empty(schema.rows, dim), 0
    for rows in blocks(schema, dim, std):
        whole[first : first + len(rows)] = rows
        first += len(rows)
    return nn.Parameter(whole)
