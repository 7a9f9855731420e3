"""What a training step minimises: the mean logloss, or what the model's paper trains with instead."""

from contextlib import AbstractContextManager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from pipeline.data.batches import Batch
from pipeline.train.grades import Thresholds
from pipeline.train.predict import base_logit, inputs, logits


def training_loss(
    model: nn.Module,
    batch: Batch,
    autocast: AbstractContextManager[object],
    thresholds: Thresholds | None = None,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Return what a training step minimises and the mean logloss, both of one batch.

    They are the same unless the model has a loss of its own: then `heads`, with the arguments of its forward,
    returns several logits a row (H, B), and `loss(heads, label)` the loss and the logit whose logloss is
    reported. Every loss is computed in float32.

    Args:
        model: in training mode.
        batch: a rank's share. A loss that is no mean over rows, such as Tri-BCE, is that of the share.
        autocast: the autocast in which the logits are computed.
        thresholds: of the grade behind the label, which are learnt along with it.
    """
    own: Any = model if hasattr(model, "loss") else None
    with autocast:
        heads = logits(model, batch) if own is None else own.heads(*inputs(model, batch)) + base_logit(model)
    heads = heads.float()

    def of(label: Tensor, cut: Tensor | float = 0.0) -> tuple[Tensor, Tensor]:
        if own is None:
            loss = binary_cross_entropy_with_logits(heads + cut, label)
            return loss, loss.detach()
        loss, logit = own.loss(heads + cut, label)
        return loss, binary_cross_entropy_with_logits(logit.detach(), label)

    loss, logloss = of(batch.label)
    if thresholds is not None:
        others = torch.stack([of(label, cut)[0] for cut, label in thresholds.labels(batch)])
        loss = loss + thresholds.share * (others.mean() - loss)
    return loss, logloss
