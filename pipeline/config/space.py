"""The search's settings as typed values: axes, budget, pruning."""

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Block = dict[str, Any]
Metric = Literal["auc", "logloss"]


class Strict(BaseModel):
    """Values from a file: no unknown key, no silent change of type."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Dimension(Strict):
    """One axis of the search space: `choices`, or `low` and `high` (with `log` or `step`)."""

    choices: list[Any] | None = None
    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    step: int | float | None = None

    def model_post_init(self, _context: Any) -> None:
        """Check that the values make one axis; pydantic calls it."""
        if (self.choices is None) == (self.low is None and self.high is None):
            raise ValueError("give either choices, or low and high")
        if self.choices is not None:
            if not self.choices:
                raise ValueError("choices is empty")
        elif self.low is None or self.high is None or self.low > self.high:
            raise ValueError("low and high must both be there, low not above high")
        elif self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log needs low > 0 and no step")

    def holds(self, value: Any) -> bool:
        """Whether the search could propose `value`."""
        if self.choices is not None:
            return value in self.choices
        assert self.low is not None
        assert self.high is not None
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if not self.low <= value <= self.high:
            return False
        return self.step is None or math.isclose(
            (value - self.low) / self.step, round((value - self.low) / self.step), abs_tol=1e-9
        )


class Tune(Strict):
    """The search: its budget, what it maximises, how it prunes and where it looks."""

    trials: int = Field(ge=1)
    metric: Metric = "auc"
    seed: int = 1
    startup_trials: int = Field(default=5, ge=1)
    pruner_startup_trials: int = Field(default=4, ge=0)
    pruner_warmup_evaluations: int = Field(default=2, ge=0)
    space: Block
