"""The finished trials of a study, and whether they are as they were when they ended."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count, takewhile

import optuna
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.trial import FrozenTrial, TrialState

from pipeline.common.errors import PipelineError
from pipeline.common.files import digest
from pipeline.config.metric import sign
from pipeline.config.space import Tune
from pipeline.tune import shared
from pipeline.tune.points import Point, Space, decode
from pipeline.tune.pruning import Rule


@dataclass(frozen=True)
class Finished:
    """A finished trial; `number` is its place in the search, so kills do not change it."""

    number: int
    state: str
    value: float | None
    point: Point
    curve: list[dict[str, float]]


def ended(study: optuna.Study) -> dict[int, FrozenTrial]:
    """Return the finished trials by number; the first of several that processes trained at the same time."""
    found = dict[int, FrozenTrial]()
    for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)):
        found.setdefault(trial.user_attrs.get(shared.NUMBER, len(found)), trial)
    return found


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Return the finished trials in order, up to the first that is still missing."""
    found = ended(study)
    return [found[number] for number in takewhile(found.__contains__, count())]


def described(trials: Sequence[FrozenTrial], space: Space) -> list[Finished]:
    """Return finished trials as the rest of the project knows them."""
    return [
        Finished(
            number, trial.state.name, trial.value, decode(space, trial.params), trial.user_attrs["curve"]
        )
        for number, trial in enumerate(trials)
    ]


def start_of_wave(number: int, wave: int) -> int:
    """Return the number of the first trial of a trial's wave."""
    return number // wave * wave


class QuantilePruner(optuna.pruners.BasePruner):
    """A `pruning.Rule` as Optuna wants it.

    Args:
        quantile, startup_trials, warmup: see there.
        wave: the size of the waves; a trial is compared with those of the waves before its own.
    """

    def __init__(self, quantile: float, startup_trials: int, warmup: int, wave: int = 1) -> None:
        self._settings, self._wave = (quantile, startup_trials, warmup), wave

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether the trial should stop; steps are counted from 1."""
        rule = Rule(*self._settings, study.direction == optuna.study.StudyDirection.MAXIMIZE)
        done = finished(study)
        number = trial.user_attrs.get(shared.NUMBER, len(done))
        earlier = done[: start_of_wave(number, self._wave)]
        return rule.stops(trial.intermediate_values, [one.intermediate_values for one in earlier])


def check(study: optuna.Study, settings: Tune, damaged: Callable[[str], PipelineError]) -> None:
    """Raise unless every finished trial is as it was when it ended."""
    if (study.direction == optuna.study.StudyDirection.MAXIMIZE) != (sign(settings.metric) > 0):
        raise damaged(f"{study.study_name} has another direction")
    for number, trial in ended(study).items():
        curve = trial.user_attrs.get("curve", [])
        told = trial.value if trial.state == TrialState.COMPLETE else None
        sealed = seal(number, trial.state, told, trial.params, trial.distributions, curve)
        reported = [row.get(f"valid_{settings.metric}") for row in curve]
        steps = trial.intermediate_values
        whole = trial.user_attrs.get("seal") == sealed and [steps[at] for at in sorted(steps)] == reported
        if trial.state == TrialState.PRUNED:  # Optuna takes the last report for its value
            whole &= trial.value in (None, *reported[-1:])
        if not whole or None in (trial.datetime_start, trial.datetime_complete):  # Optuna insists on times
            raise damaged(f"trial {trial.number} of {study.study_name} was changed after its end")


def seal(
    number: int,
    state: TrialState,
    value: float | None,
    params: Point,
    distributions: dict[str, BaseDistribution],
    curve: list[dict[str, float]],
) -> str:
    """Return a digest of all that a trial ended with, which is kept with it."""
    axes = {name: distribution_to_json(distribution) for name, distribution in distributions.items()}
    return digest([number, state.name, value, params, axes, curve])
