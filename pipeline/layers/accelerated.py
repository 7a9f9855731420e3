"""One switch between an equation and its fast twin.

The body of a layer's method is the equation. Where a hand-written gradient or another product pays on a
CPU, `pipeline/kernels/` has the same function, and `@accelerated` attaches it. Without that folder, with
`CTR_KERNELS=off`, or inside `off()`, every body runs: the same values, slower.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from importlib import import_module
from typing import Any, ParamSpec, cast

from torch import Tensor

P = ParamSpec("P")
ATTACHED: dict[str, Callable[..., Tensor]] = {}  # "<kernel module>.<function>" -> the decorated function
_state = {"on": os.environ.get("CTR_KERNELS", "on") != "off"}


def accelerated(module: str) -> Callable[[Callable[P, Tensor]], Callable[P, Tensor]]:
    """Attach the kernel of the same name in `pipeline/kernels/<module>.py` to a function or method.

    The kernel takes the same arguments and returns the same values with the same gradients, or
    `NotImplemented` for inputs that it does not fit; then the body runs. So does it always outside of plain
    CPU computation: see `pipeline.kernels.applies`. A method's kernel is named `<class>_<method>` in lower
    case, or like the class where the method is `forward`.
    """

    def attach(body: Callable[P, Tensor]) -> Callable[P, Tensor]:
        name = kernel_name(body.__qualname__)

        @wraps(body)
        def call(*args: P.args, **kwargs: P.kwargs) -> Tensor:
            kernels = _kernels() if _state["on"] else None
            if kernels is not None and kernels.applies(next(x for x in args if isinstance(x, Tensor))):
                result = _kernel(module, name)(*args, **kwargs)
                if result is not NotImplemented:
                    return cast(Tensor, result)
            return body(*args, **kwargs)

        ATTACHED[f"{module}.{name}"] = call
        return call

    return attach


def kernel_name(qualname: str) -> str:
    """Return the name of the kernel of a function or method.

    >>> kernel_name("bi_interaction"), kernel_name("MLP.forward"), kernel_name("FiiNet.deep")
    ('bi_interaction', 'mlp', 'fiinet_deep')
    """
    return qualname.removesuffix(".forward").replace(".", "_").lower()


@contextmanager
def off() -> Iterator[None]:
    """Let every equation run as it stands."""
    before, _state["on"] = _state["on"], False
    try:
        yield
    finally:
        _state["on"] = before


@cache
def _kernels() -> Any:
    """Return the package of kernels; None where its folder is not there."""
    try:
        return import_module("pipeline.kernels")
    except ModuleNotFoundError:
        return None


@cache
def _kernel(module: str, name: str) -> Callable[..., Any]:
    kernel: Callable[..., Any] = getattr(import_module(f"pipeline.kernels.{module}"), name)
    return kernel
