"""An exponential average of a model's weights, which is what is evaluated and kept."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from pipeline.layers.accelerated import accelerated


class Average:
    """The average of the weights over the last steps.

    After step t: a <- a + max(1 / steps, 9 / (8 + t)) (w - a): exponential with a time constant of `steps`,
    shorter at the beginning. It takes out most of the noise that the last batches leave in the weights. Batch
    norm keeps the running means of the weights as they are.

    Source: Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", SIAM J. Control and
    Optimization 30(4), 1992; Izmailov et al., "Averaging Weights Leads to Wider Optima", UAI 2018.

    Args:
        weights: to be averaged.
        steps: time constant; 0 for no average.
    """

    def __init__(self, weights: list[Tensor], steps: float) -> None:
        self._weights = weights if steps else []
        self.values = [p.detach().clone() for p in self._weights]
        self._steps = steps

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after a step, the first of which is 1."""
        if self._weights:
            towards_all(self.values, self._weights, max(1 / self._steps, 9 / (8 + step)))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the model have the average inside the block, and its own weights afterwards."""
        own = [p.detach().clone() for p in self._weights]
        copy_all(self._weights, self.values)
        yield
        copy_all(self._weights, own)


@torch.no_grad()
def copy_all(to: list[Tensor], values: list[Tensor]) -> None:
    """Copy values into tensors."""
    for p, value in zip(to, values, strict=True):
        p.copy_(value)


@accelerated("adam")
def towards_all(values: list[Tensor], targets: list[Tensor], share: float) -> None:
    """Move every value a share of the way to its target, in place."""
    for value, target in zip(values, targets, strict=True):
        value.lerp_(target, share)
