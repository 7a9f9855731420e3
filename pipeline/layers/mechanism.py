"""A place in a model where it weighs its parts row by row, which can be looked at."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

Kind = Literal["attention", "gate", "mask", "threshold", "experts", "routing"]


class Mechanism(nn.Module):
    """The identity, without parameters: a model passes through it what it weighs its parts with.

    It changes no bit and costs nothing. `train/mechanisms.py` hooks in here to measure how much the weights
    vary and what a model is worth with its weights frozen or removed. Each place has a `Mechanism` of its
    own, called with all that decides the weight: attention after its softmax, a gate after its sigmoid.

    Shapes: (B, ...) -> (B, ...), or (1, ...) -> (1, ...) if not `per_row`. All axes but the first are
    channels.

    Args:
        kind: what it is called in reports.
        neutral: what takes the weights' place when they are removed: a number, 1 for a factor and 0 for a
            threshold, or `uniform` for their mean over `axis`, so that the weights keep their sum.
        axis: of `uniform`; one of the channels' axes.
        per_row: whether the weights depend on the row. If not, they have a first axis of one.
    """

    def __init__(
        self,
        kind: Kind,
        neutral: float | Literal["uniform"],
        *,
        axis: int = 1,
        per_row: bool = True,
    ) -> None:
        super().__init__()
        self.kind, self.neutral, self.axis, self.per_row = kind, neutral, axis, per_row

    def forward(
        self,
        x: Float[Tensor, "*W"],
        used: Bool[Tensor, "*W"] | None = None,  # noqa: ARG002  read by hooks, which get positional arguments
        /,
    ) -> Float[Tensor, "*W"]:
        """Return x.

        Args:
            x: the weights.
            used: which of them weigh something: not those of the empty places of a history.
        """
        return x

    def removed(self, x: Float[Tensor, "*W"], used: Bool[Tensor, "*W"] | None = None) -> Float[Tensor, "*W"]:
        """Return what takes the place of these weights when the mechanism is removed."""
        if self.neutral != "uniform":
            return torch.full_like(x, self.neutral)
        if used is None:
            return x.mean(self.axis, keepdim=True).expand_as(x)
        count = used.sum(self.axis, keepdim=True).clamp(min=1)
        return (x * used).sum(self.axis, keepdim=True) / count * used

    def extra_repr(self) -> str:
        return f"{self.kind}, neutral={self.neutral}"
