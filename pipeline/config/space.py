"""The search's settings as typed values: axes, budget, pruning."""

import math
from typing import Annotated, Any, Literal, TypeGuard

from annotated_types import Gt

from pipeline.common.ranges import Count, CountOrZero, Seed
from pipeline.config.validation import Strict

Block = dict[str, Any]
Metric = Literal["auc", "logloss"]


class Dimension(Strict):
    """One axis of the search space: `choices`, or `low` and `high` (with `log` or `step`)."""

    choices: list[Any] | None = None
    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    step: Annotated[int | float, Gt(0)] | None = None

    def model_post_init(self, _context: Any) -> None:
        """Check that the values make one axis; pydantic calls it."""
        if (self.choices is None) == (self.low is None and self.high is None):
            raise ValueError("give either choices, or low and high")
        if self.choices is not None:
            if not self.choices:
                raise ValueError("choices is empty")
            return
        if not _is_number(self.low) or not _is_number(self.high):
            raise ValueError("low and high must both be given, as numbers")
        if self.low > self.high:
            raise ValueError(f"low ({self.low}) is above high ({self.high})")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log needs low > 0 and no step")

    def holds(self, value: Any) -> bool:
        """Whether the search could propose `value`."""
        if self.choices is not None:
            return value in self.choices
        assert self.low is not None
        assert self.high is not None
        if not _is_number(value) or not self.low <= value <= self.high:
            return False
        return self.step is None or math.isclose(
            (value - self.low) / self.step, round((value - self.low) / self.step), abs_tol=1e-9
        )


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


class Tune(Strict):
    """The search: its budget, what it maximises, how it prunes and where it looks."""

    trials: Count
    metric: Metric = "auc"
    seed: Seed = 1
    startup_trials: Count = 5
    pruner_startup_trials: CountOrZero = 4
    pruner_warmup_evaluations: CountOrZero = 2
    space: Block
