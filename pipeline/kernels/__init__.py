"""The same functions as in `pipeline/layers/`, fast, on a CPU. Nobody has to read them.

Each has its gradient written by hand, or takes another library's product. They are attached to the
equations by `pipeline.layers.accelerated`; delete this folder and everything still works, slower.
"""

import torch
from torch import Tensor


def applies(x: Tensor) -> bool:
    """Whether kernels may compute with this tensor.

    The equation is what a recorded graph is made of (`torch.export`), what autocast chooses types for, what
    `torch.func` transforms, and what a GPU is best at, where every small operation is a launch.
    """
    return (
        x.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and torch._C._functorch.peek_interpreter_stack() is None
    )
