"""When a trial stops early: one rule, for the search that decides and the worker that trains ahead of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Values = Mapping[int, float]  # evaluation, counted from 1 -> value of the metric


@dataclass(frozen=True)
class Rule:
    """Stops a trial whose best value so far is below a quantile of what the earlier trials had by then.

    A trial that ended earlier, pruned or not, stays in the ranks with the best that it had. Optuna's
    `PercentilePruner` compares with complete trials alone: its bar rises with every trial that it stops.

    Attributes:
        quantile: of the earlier trials, from the worst; 0 for no pruning.
        startup_trials: earlier trials without which none is pruned.
        warmup: evaluations of each trial in which it is not pruned.
        maximise: whether more is better.
    """

    quantile: float
    startup_trials: int
    warmup: int
    maximise: bool = True

    def stops(self, values: Values, earlier: Sequence[Values]) -> bool:
        """Whether a trial with these values should stop.

        Args:
            earlier: those of the trials that are finished.
        """
        step = max(values, default=0)
        if step <= self.warmup or not self.quantile or len(earlier) < max(self.startup_trials, 1):
            return False

        def best(one: Values) -> float:
            values = [value for at, value in one.items() if at <= step]
            return max((value if self.maximise else -value for value in values), default=-np.inf)

        # `lower`: no interpolation, which a diverged trial's infinity would spoil
        bar = np.quantile([best(one) for one in earlier], self.quantile, method="lower")
        return bool(best(values) < bar)
