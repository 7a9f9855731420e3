"""Adam and the norm of all gradients in a few calls for all parameters, on any device."""

from typing import Any

import torch
from torch import Tensor

from pipeline.kernels import private


def update_all(
    weights: list[Tensor],
    grads: list[Tensor],
    first: list[Tensor],
    second: list[Tensor],
    *,
    steps: int,
    **settings: Any,
) -> None:
    """`train.adam.update_all` by torch's fused kernel."""
    count = torch.full((), float(steps), device=weights[0].device)  # where the kernel reads it
    private.adam(weights, grads, first, second, count, **settings)


def towards_all(values: list[Tensor], targets: list[Tensor], share: float) -> None:
    """`train.average.towards_all`, without a loop over the weights."""
    private.lerp(values, targets, share)


def clip_all(grads: list[Tensor], largest: float) -> None:
    """`train.adam.clip_all`, without a loop over the gradients."""
    norm = torch.linalg.vector_norm(torch.stack(private.norms(grads)))
    if norm.is_cuda or norm > largest:
        private.multiply(grads, (largest / (norm + 1e-6)).clamp(max=1.0))
