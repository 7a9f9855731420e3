"""When to take a batch in pieces that stay in the processor's cache, and how large they are.

Some mechanisms make far more numbers on the way than they take or give: products of all fields, an
attention matrix a head. A whole batch of those falls out of the cache, and above some tens of megabytes
every step asks the system for fresh pages. So such a mechanism goes through the rows piece by piece, and its
gradient, written by hand, makes those numbers again instead of keeping them. Sizes of pieces depend on shapes
alone, so that the same seed gives the same bits.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

NUMBERS = 2**18  # of a piece: 1 MiB of float32, about a core's second-level cache
MANY = 2**22  # where that would be too few rows: 16 MiB, for which memory in use is taken again


def by_hand(x: Tensor) -> bool:
    """Whether a mechanism takes its hand-written way, or else the plain operations of its equation.

    Plain is what a recorded graph is made of (`torch.export`), what autocast chooses types for, what
    `torch.func` transforms, and what a GPU is best at, where every small operation is a launch.
    """
    return (
        x.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and torch._C._functorch.peek_interpreter_stack() is None
    )


def rows_of(numbers: int, least: int = 1) -> int:
    """How many rows make a piece, where a row makes so many numbers."""
    return max(least, NUMBERS // max(1, numbers))


def at_once(x: Tensor, numbers: int) -> bool:
    """Whether `in_pieces` takes all rows of x at once."""
    return not by_hand(x) or len(x) <= _rows_at_once(numbers)


def _rows_at_once(numbers: int) -> int:
    return max(1, MANY // max(1, numbers))


def in_pieces(function: Callable[[Tensor], Tensor], x: Tensor, numbers: int) -> Tensor:
    """Apply a function of rows, without chance in it, piece by piece: what it makes on the way is not kept.

    Autograd runs it a second time for the gradient of each piece. So at most `MANY` numbers of each of its
    steps are there at a time, for any batch.

    Args:
        function: (b, ...) -> (b, ...), row by row.
        x: all rows.
        numbers: how many numbers a row makes in a step of the function.
    """
    if at_once(x, numbers):
        return function(x)
    size = _rows_at_once(numbers)
    if not torch.is_grad_enabled():
        return torch.cat([function(part) for part in x.split(size)])
    return torch.cat(
        [checkpoint(function, part, use_reentrant=False, preserve_rng_state=False) for part in x.split(size)]
    )


def contract(x: Tensor, y: Tensor, axis: int, total: Tensor | None = None) -> Tensor:
    """Sum x * y over an axis, both broadcast, without the product; added to `total` in place, if given.

    It is the faster the longer the last axis: for tensors with the batch there.
    """
    terms = zip(x.unbind(axis), y.unbind(axis), strict=True)
    if total is None:
        a, b = next(terms)
        total = a * b
    for a, b in terms:
        total.addcmul_(a, b)
    return total
