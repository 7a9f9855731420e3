"""A model's constant, by which it starts and ends at the click rate of its train rows."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.data.batches import Split
from pipeline.models import BASE_LOGIT
from pipeline.train.predict import predict

LEAST_ROWS, MOST_ROWS = 16_384, 262_144
SEED = 7  # of the sample
BISECTIONS = 30  # of an interval of some tens: as fine as a float32 of one


class BaseRate:
    """The click rate of train rows, and the `base_logit` with which a model has it.

    **At the start** the mean logit is the log-odds of a click. Otherwise every model begins at a probability
    near one half; where clicks are rare, Adam needs some thousand steps to move the bias, and meanwhile
    pushes the weights of all ids down by how often they occur, which spoils the ranking. (It is not the
    probabilities whose mean is right: then the bias of a log of one batch had a first gradient of nothing but
    rounding, which Adam makes a whole step.)

    **At every evaluation** the mean prediction is the rate. A model is used without the dropout that it was
    trained with, and its mean is another one then: where clicks are rare 5 to 15 % lower, for the noise in a
    logit raises the mean of a small probability (Jensen). A logistic regression at its optimum has the rate,
    too: it is what the slope of its intercept says. Steps go on with the constant of the start.

    The constant is a buffer: neither trained nor regularised, saved with the weights, and added wherever a
    model is called (`predict.logits`), so that it works for any model.

    Args:
        train: rows trained on. With a single class the constant stays as it is.
        rows: how many of them are looked at, spread over all; at least `LEAST_ROWS`, at most `MOST_ROWS`.
    """

    def __init__(self, train: Split, rows: int = LEAST_ROWS) -> None:
        self._rate = int(train.label.count_nonzero()) / len(train)
        count = min(max(rows, LEAST_ROWS), MOST_ROWS)
        found = train.whole()
        if count < len(train):
            # one of every len / count rows: in files with a period, not always the same place of it
            place = torch.rand(count, dtype=torch.float64, generator=torch.Generator().manual_seed(SEED))
            drawn = ((torch.arange(count) + place) * (len(train) / count)).long().clamp(max=len(train) - 1)
            found = found.rows(drawn.to(found.ids.device))
        found = found.each(lambda column: column.to(train.device))
        self._sample = Split(train.schema, found.ids, found.label, found.time)

    def start(self, model: nn.Module) -> None:
        """Set the constant of a model before its first step; inside `ranks.group` every rank calls it."""
        model.register_buffer(BASE_LOGIT, torch.zeros((), device=self._sample.device))
        self._shift(model, lambda logit: self._log_odds() - logit.mean())

    @contextmanager
    def held(self, model: nn.Module) -> Iterator[None]:
        """Let a model have the constant of its weights inside the block, then again the one that it had."""
        base: Tensor = getattr(model, BASE_LOGIT)
        before = base.clone()
        self._shift(model, self._to_the_rate)
        try:
            yield
        finally:
            base.copy_(before)

    def _shift(self, model: nn.Module, by: Callable[[Float[Tensor, " N"]], Float[Tensor, ""]]) -> None:
        """Add to the constant what its logits, as they are without dropout, say."""
        logit = predict(model, self._sample, logit=True)
        if 0 < self._rate < 1 and logit.isfinite().all():
            base: Tensor = getattr(model, BASE_LOGIT)
            base += by(logit)

    def _log_odds(self) -> float:
        return math.log(self._rate / (1 - self._rate))

    def _to_the_rate(self, logit: Float[Tensor, " N"]) -> Float[Tensor, ""]:
        """Return the shift after which the mean probability is the rate, by bisection.

        Lower no row is above the rate, higher none is below; 1 is for rounding. No value is read on the way,
        for which a GPU would have to wait.
        """
        low, high = (self._log_odds() - limit for limit in (logit.max() + 1, logit.min() - 1))
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            below = (logit + middle).sigmoid().mean() < self._rate
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2
