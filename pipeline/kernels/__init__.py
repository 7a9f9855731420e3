"""The same functions as in `pipeline/layers/`, faster on a CPU. Nobody has to read them.

Each has a hand-written gradient, calls another library's matrix product, or works through the batch in chunks
that fit into the processor's cache. `pipeline.layers.accelerated` attaches them to the equations; delete this
folder and everything still works, slower.

A kernel returns `NotImplemented` where it does not apply, and the equation runs instead. All of torch's
private functions are in `private.py`, and nowhere else.
"""

import warnings
from typing import Any, TypeGuard, TypeVar

import torch
from torch import Tensor, nn

from pipeline.kernels import private

M = TypeVar("M", bound=nn.Module)


def works() -> bool:
    """Whether this torch has the private functions that kernels call; warns if not."""
    try:
        private.check()
    except (AssertionError, AttributeError, ImportError, RuntimeError, TypeError) as error:
        reason = (str(error).splitlines() or [""])[0]
        warnings.warn(
            f"pipeline/kernels does not fit torch {torch.__version__} ({type(error).__name__}: {reason}); "
            "the plain equations are used, which are slower",
            stacklevel=2,
        )
        return False
    return True


def applies(x: Tensor) -> bool:
    """Whether kernels may compute with this tensor.

    The equation is what a recorded graph consists of (`torch.export`), what autocast picks types for, what
    `torch.func` transforms, and what suits a GPU best, where every small operation is a launch.
    """
    return (
        x.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and not private.inside_functorch()
    )


def is_bare(layer: Any, kind: type[M]) -> TypeGuard[M]:
    """Whether a layer is of exactly this class and has no hooks, so that its equation may be inlined."""
    return type(layer) is kind and not (
        layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks
    )
