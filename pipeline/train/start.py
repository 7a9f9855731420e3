"""Where training starts: at the share of clicks in the train rows."""

import math

import torch
from torch import nn

from pipeline.data.batches import Split
from pipeline.models import BASE_LOGIT
from pipeline.train.predict import logits

SAMPLE_ROWS = 8192


@torch.no_grad()
def start_at_base_rate(model: nn.Module, train: Split) -> None:
    """Set a model's `base_logit` so that its mean output is the log-odds of a click in the train rows.

    Without it every model starts at a probability near one half. Where clicks are rare, Adam needs some
    thousand steps to move the bias, and meanwhile pushes the weights of all ids down by how often they occur,
    which spoils the ranking. The constant is a buffer: neither trained nor regularised, saved with the
    weights, and added wherever a model is called (`predict.logits`), so that it works for any model.

    Args:
        model: on the device of the rows; its mean output is that of the first `SAMPLE_ROWS`.
        train: with both classes; otherwise nothing is changed.
    """
    clicks = sum(float(batch.label.sum()) for batch in train.batches(2**20))
    if not 0 < clicks < len(train):
        return
    was_training = model.training
    model.eval()
    model.register_buffer(BASE_LOGIT, torch.zeros((), device=train.device))
    mean = float(logits(model, next(iter(train.batches(SAMPLE_ROWS)))).mean())
    model.train(was_training)
    getattr(model, BASE_LOGIT).fill_(math.log(clicks / (len(train) - clicks)) - mean)
