"""Attach a fast kernel to an equation.

The body of a layer's method is the equation, in plain torch. Where a hand-written gradient or another
library's product is faster, `pipeline/kernels/` has the same function, and `@accelerated` attaches it.
Without that folder, with `CTR_KERNELS=off` in the environment, or inside `with off():`, every body runs: the
same values, slower.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from importlib import import_module
from typing import Any, ParamSpec, TypeVar, cast

P = ParamSpec("P")
R = TypeVar("R")

ATTACHED: dict[str, Callable[..., Any]] = {}  # "<kernel module>.<kernel>" -> the decorated function


def _available() -> bool:
    """Whether the folder of kernels exists and its check of torch's private functions passes."""
    try:
        return bool(import_module("pipeline.kernels").works())
    except ModuleNotFoundError as error:
        if error.name != "pipeline.kernels":
            raise
        return False


_state = {"on": os.environ.get("CTR_KERNELS", "on") != "off" and _available()}


def accelerated(module: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Attach the kernel in `pipeline/kernels/<module>.py` to a function or method, after which it is named.

    The kernel takes the same arguments and returns the same values with the same gradients, or
    `NotImplemented` for arguments it is not made for; then the body runs. The kernel of `FiiNet.deep` is
    called `fiinet_deep`, that of `MLP.forward` just `mlp`.
    """

    def attach(body: Callable[P, R]) -> Callable[P, R]:
        name = kernel_name(body.__qualname__)
        kernel: Callable[..., Any] | None = None

        @wraps(body)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            nonlocal kernel
            if _state["on"]:
                if kernel is None:  # not before: kernels import the layers that they are attached to
                    kernel = getattr(import_module(f"pipeline.kernels.{module}"), name)
                result = kernel(*args, **kwargs)
                if result is not NotImplemented:
                    return cast(R, result)
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


def enabled() -> bool:
    """Whether kernels are used; a training's last bits depend on it."""
    return _state["on"]


@contextmanager
def off() -> Iterator[None]:
    """Run the body of every decorated function."""
    before, _state["on"] = _state["on"], False
    try:
        yield
    finally:
        _state["on"] = before
