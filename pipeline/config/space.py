"""The search's settings as typed values: axes, budget, pruning."""

import math
from typing import Annotated, Any, TypeGuard

from annotated_types import Gt

from pipeline.common.ranges import Count, CountOrZero, NonNegative, Seed, Share
from pipeline.config.metric import Metric
from pipeline.config.validation import Strict

Block = dict[str, Any]


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

    def with_choice(self, value: Any) -> "Dimension":
        """Return the axis with `value` among its choices; an axis from low to high as it is."""
        if self.choices is None or value in self.choices:
            return self
        return self.model_copy(update={"choices": [*self.choices, value]})

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

    def nearest(self, value: Any) -> Any:
        """Return what the search could propose that is closest to `value`.

        Numbers are compared by their difference, widths of layers by depth and by the ratio of widths; of
        equally close choices the first is taken, and so it is where there is nothing to compare.
        """
        if self.holds(value):
            return value
        if self.choices is not None:
            return min(self.choices, key=lambda choice: _distance(choice, value))
        assert self.low is not None
        assert self.high is not None
        if not _is_number(value):
            return self.low
        inside = min(max(value, self.low), self.high)
        if self.step is None:
            return inside
        steps = min(
            round((inside - self.low) / self.step), math.floor((self.high - self.low) / self.step + 1e-9)
        )
        return round(self.low + steps * self.step, 12)  # not 0.30000000000000004


def _distance(choice: Any, value: Any) -> float:
    """Return how far a choice is from a value; infinity where the two cannot be compared."""
    if _is_number(choice) and _is_number(value):
        return abs(choice - value)
    if isinstance(choice, list) and isinstance(value, list):
        widths = [max(math.prod(each), 1) ** (1 / max(len(each), 1)) for each in (choice, value)]
        return abs(len(choice) - len(value)) + abs(math.log2(widths[0] / widths[1]))
    return math.inf


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


class Tune(Strict):
    """The search: its budget, what it maximises, how it prunes and where it looks.

    Attributes:
        trials: trainings on the first seed, pruned ones included; the same for every model.
        finalists: how many of the best trials are trained on all seeds, with the default.
        margin: of those whose gain over the default is larger than so many standard errors of it the best
            mean wins, else the default.
        metric: of the validation split.
        seed: of the sampler.
        startup_trials: trials before the sampler learns from the earlier ones.
        paper_start: whether the second trial is the paper's configuration, as far as the axes reach it.
        pruner_startup_trials: trials before the first may be pruned.
        pruner_warmup_evaluations: evaluations of each trial in which it is never pruned.
        pruner_quantile: a trial is pruned below this quantile of the finished trials; 0 for no pruning.
        wave: how many trials are proposed at a time, which several processes can train then.
        space: the axes.
    """

    trials: Count
    finalists: Count = 3
    margin: NonNegative = 1.0
    metric: Metric = "auc"
    seed: Seed = 1
    startup_trials: Count = 5
    paper_start: bool = True
    pruner_startup_trials: CountOrZero = 4
    pruner_warmup_evaluations: CountOrZero = 5
    pruner_quantile: Share = 0.25
    wave: Count = 1
    space: Block
