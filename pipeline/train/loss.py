"""What a training step minimises: the mean logloss, or what the model's paper trains with instead."""

from contextlib import AbstractContextManager
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from pipeline.data.batches import Batch
from pipeline.train.predict import base_logit, inputs, logits


def training_loss(
    model: nn.Module, batch: Batch, narrow: AbstractContextManager[object]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Return what a training step minimises and the mean logloss, both of one batch.

    They are the same unless the model has a loss of its own: then `heads`, with the arguments of its forward,
    returns several logits a row (H, B), and `loss(heads, label)` the loss and the logit whose logloss is
    reported. Every loss is computed in float32.

    Args:
        model: in training mode.
        batch: a rank's share. A loss that is no mean over rows, such as Tri-BCE, is that of the share.
        narrow: the autocast in which the logits are computed.
    """
    own: Any = model if hasattr(model, "loss") else None
    if own is None:
        with narrow:
            logit = logits(model, batch)
        logloss = binary_cross_entropy_with_logits(logit.float(), batch.label)
        return logloss, logloss.detach()
    with narrow:
        heads = own.heads(*inputs(model, batch)) + base_logit(model)
    loss, logit = own.loss(heads.float(), batch.label)
    return loss, binary_cross_entropy_with_logits(logit.detach(), batch.label)
