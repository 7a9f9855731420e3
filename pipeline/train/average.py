"""An exponential average of a model's weights, which is what is evaluated and kept."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pipeline.layers.accelerated import accelerated


class Average:
    """The average of the weights over the last steps.

    After step t: a <- a + s_t (w - a), s_t = max(1 / steps, 9 / (8 + t)): exponential with a time constant of
    `steps`, shorter at the beginning. It takes out most of the noise that the last batches leave in the
    weights. Batch norm keeps the running means of the weights as they are.

    A row of a lazy table stays as it is between two steps that update it. So its average is brought up to
    date in those steps only, by what all steps in between would have done (`kept`), and when it is read.

    Source: Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", SIAM J. Control and
    Optimization 30(4), 1992; Izmailov et al., "Averaging Weights Leads to Wider Optima", UAI 2018.

    Args:
        weights: to be averaged.
        steps: time constant, one step at least; 0 for no average.
        last: of each lazy table, the step of each row's last update, kept by the optimizer.
    """

    def __init__(
        self, weights: list[Tensor], steps: float, last: Mapping[Tensor, Int[Tensor, " V"]] | None = None
    ) -> None:
        self._steps = max(1.0, steps)
        self._last = dict(last or {}) if steps else {}
        self._weights = [*weights, *self._last] if steps else []
        self._dense = len(self._weights) - len(self._last)
        self.values = [p.detach().clone() for p in self._weights]
        self._rows = dict(zip(self._last, self.values[self._dense :], strict=True))

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the dense weights after a step, the first of which is 1."""
        if self._dense:
            towards_all(self.values[: self._dense], self._weights[: self._dense], self._share(step))

    @torch.no_grad()
    def update_rows(
        self,
        step: int,
        table: Tensor,
        rows: Int[Tensor, " R"],
        before: Float[Tensor, "R D"],
        after: Float[Tensor, "R D"],
    ) -> None:
        """Take in the rows of a lazy table that a step updates, before it changes their `last`."""
        if table not in self._rows:
            return
        values = self._rows[table]
        kept = self.kept(self._last[table].index_select(0, rows), step - 1).to(before.dtype)
        mean = before.lerp(values.index_select(0, rows), kept.unsqueeze(1))
        values.index_copy_(0, rows, mean.lerp_(after, self._share(step)))

    @contextmanager
    def applied(self, step: int) -> Iterator[None]:
        """Let the model have the average after `step` inside the block, and its own weights afterwards."""
        own = [p.detach().clone() for p in self._weights]
        with torch.no_grad():
            copy_all(self._weights[: self._dense], self.values[: self._dense])
            for table, last in self._last.items():
                table.lerp_(self._rows[table], self.kept(last, step).to(table.dtype).unsqueeze(1))
        try:
            yield
        finally:
            copy_all(self._weights, own)

    def kept(self, since: Int[Tensor, " R"], until: int) -> Float[Tensor, " R"]:
        """Return the share of a - w that the steps after `since`, up to `until`, leave: prod (1 - s_t)."""
        turn = max(0, math.floor(9 * self._steps - 8))  # the last step whose share is 9 / (8 + t)
        start, end = since.clamp(max=turn).double(), min(until, turn)
        early = torch.ones_like(start)  # prod (t - 1) / (t + 8), of which most cancels
        for i in range(9):
            early *= (start + i) / max(end + i, 1)
        late = (1 - 1 / self._steps) ** (until - since.clamp(min=turn)).clamp(min=0).double()
        return torch.where(since < end, early, 1).mul_(late)

    def _share(self, step: int) -> float:
        return max(1 / self._steps, 9 / (8 + step))


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
