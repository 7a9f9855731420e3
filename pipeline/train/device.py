"""The device of a training, and the switches that make its bits repeatable there."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pipeline.common.errors import PipelineError


def pick_device(name: str = "auto") -> torch.device:
    """Return the device to train on; `auto` is a GPU if there is one.

    Raises:
        PipelineError: the named device is not available.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise PipelineError(f"device {name!r} cannot be used here: {reason}") from None
    return torch.device(name)


def reproducible(threads: int) -> None:
    """Make the same seed give the same bits: deterministic kernels, a fixed number of threads.

    Sums are split over threads, so their last bits depend on the number of threads. The process also keeps
    freed memory from now on (see `_keep_memory`), and takes numbers below 1.2e-38 for 0 in all threads that
    are started from now on (see `tiny_is_zero`).
    """
    torch.set_flush_denormal(True)
    torch.set_num_threads(threads)
    _keep_memory()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # what torch.use_deterministic_algorithms(True) sets, without its imports, which take a second
    torch.set_deterministic_debug_mode("error")
    # our code reads no uninitialised memory, and filling it with NaN would cost a tenth of a step
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


@contextmanager
def tiny_is_zero() -> Iterator[None]:
    """Take numbers below 1.2e-38, the smallest normal float32, for 0 within a block, where the CPU can do so.

    A penalty drives weights that nothing needs there, and a processor takes many times as long for a step
    with such numbers, which change no result.
    """
    before = bool(torch.tensor(2e-38) * 0.1 == 0)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def _keep_memory() -> None:
    """Let glibc keep freed memory; otherwise every step of a large batch asks the system for new pages."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return
    trim_threshold, mmap_threshold = -1, -3  # as in malloc.h
    mallopt(trim_threshold, 2**30)
    mallopt(mmap_threshold, 2**25)  # its largest
