"""When to take a batch in pieces that stay in the processor's cache, and how large they are.

Some mechanisms make far more numbers on the way than they take or give: products of all fields, an
attention matrix a head. A whole batch of those falls out of the cache, and above some tens of megabytes
every step asks the system for fresh pages. So such a mechanism goes through the rows piece by piece, and its
gradient, written by hand, makes those numbers again instead of keeping them. Sizes of pieces depend on shapes
alone, so that the same seed gives the same bits.
"""

import torch
from torch import Tensor

NUMBERS = 2**18  # of a piece: 1 MiB of float32, about a core's second-level cache


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


def contract(x: Tensor, y: Tensor, axis: int, total: Tensor | None = None) -> Tensor:
    """Sum x * y over an axis, both broadcast, without making the product: added to `total` in place, if given.

    It is the faster the longer the last axis: for tensors with the batch there.
    """
    terms = zip(x.unbind(axis), y.unbind(axis), strict=True)
    if total is None:
        a, b = next(terms)
        total = a * b
    for a, b in terms:
        total.addcmul_(a, b)
    return total
