"""The hyper-parameter search on Optuna.

Trials end one at a time, and a trial's sampler depends only on the study's seed and the trials finished
before it. So a search that is killed anywhere and started again ends like one that was never stopped: the
interrupted trial runs again, from its last checkpoint.

With `wave: N` N trials are proposed at a time, from the trials of the waves before alone. So workers may
train them ahead, in any number: the search still goes through its trials in order, and finds most of the
work done. Where the study is on a server, processes that know nothing of each other take the trials of a
wave as they come (`shared`).
"""

import math
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from pipeline.common.errors import Diverged, PipelineError
from pipeline.common.files import canonical, digest
from pipeline.common.text import without_secrets
from pipeline.config.metric import NAMES, sign
from pipeline.config.space import Dimension, Tune
from pipeline.train.course import LogFn
from pipeline.train.workers import Wait
from pipeline.tune import journal as journals
from pipeline.tune import shared
from pipeline.tune.finished import (
    Finished,
    QuantilePruner,
    check,
    described,
    ended,
    finished,
    seal,
    start_of_wave,
)
from pipeline.tune.importance import importances
from pipeline.tune.points import Point, Space, decode, distributions, encode
from pipeline.tune.pruning import Values

Objective = Callable[[int, Point, LogFn], float | None]
Prefetch = Callable[[dict[int, Point], list[Values]], AbstractContextManager[Wait]]
optuna.logging.set_verbosity(optuna.logging.WARNING)
ATTEMPTS = 100  # proposals in a row that repeat an earlier trial, after which the space counts as exhausted


def search(
    name: str,
    space: dict[str, Dimension],
    starts: Sequence[Point],
    objective: Objective,
    settings: Tune,
    *,
    after_trial: Callable[[list[Finished]], None] = lambda _finished: None,
    prefetch: Prefetch = lambda _points, _earlier: nullcontext(lambda _number: None),
    journal: Path = journals.JOURNAL,
    server: str | None = None,
) -> tuple[list[Finished], dict[str, dict[str, float]]]:
    """Run or resume a study until `settings.trials` trials are finished.

    Args:
        name: of the study in the journal; should contain a digest of everything that decides the result.
        space: the axes; if empty, there is one trial.
        starts: the first trials, all different: the default, and maybe the paper's configuration.
        objective: called with (number, point, log). It calls log(row, step) after every evaluation,
            with `valid_<metric>` in the row, lets exceptions from it pass, and returns the value of the
            trial; None for that of its best row.
        after_trial: called with all finished trials whenever there is one more.
        prefetch: called with the points of a wave by the numbers of its trials, and the values of the trials
            before it; may train some ahead of `objective`. What it yields is called with the number of a
            trial before that one begins.
        journal: Optuna's journal file, shared by all studies; `optuna-dashboard` reads it.
        server: address of the study instead, from which other processes may take trials (`take_part`); then
            `prefetch` is not called.

    Returns:
        the first `settings.trials` finished trials, and the importance of each axis by method.

    Raises:
        PipelineError: another process of this folder is working on this study, the journal is damaged, or
            the server cannot be used.
    """
    journal.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(journal.parent / f".{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise PipelineError(
            f"the study {name} is busy: another process is working on it; wait for it or stop it first"
        ) from None
    try:
        if server is not None:
            done = take_part(name, space, starts, objective, settings, server, after_trial=after_trial)
        else:
            try:
                study = _opened(name, settings, journals.opened(journal))
            except Exception as error:  # noqa: BLE001  Optuna replays the lines, and they may say anything
                raise journals.damaged(journal, repr(error)) from None
            check(study, settings, partial(journals.damaged, journal))
            done = _Search(study, space, starts, objective, settings, after_trial).alone(prefetch)
        return described(done, space), importances(done, settings)
    finally:
        lock.release()


def take_part(
    name: str,
    space: dict[str, Dimension],
    starts: Sequence[Point],
    objective: Objective,
    settings: Tune,
    server: str,
    *,
    after_trial: Callable[[list[Finished]], None] = lambda _finished: None,
    show: bool = True,
) -> list[FrozenTrial]:
    """Take trials of a study on a server until all are finished, whoever trains them.

    Args:
        name, space, starts, objective, settings, after_trial: as of `search`, and the same for all of them.
        show: whether to print a line for each trial that is finished, whoever trained it.

    Raises:
        PipelineError: the server cannot be used, or what it has was changed.
    """
    with shared.storage_at(server) as storage:
        study = _opened(name, settings, storage)
        check(study, settings, partial(shared.changed, server))
        if show:
            where = f"{study.study_name} at {without_secrets(server)}"
            print(f"{where}: {len(ended(study))} of {settings.trials} trials were done before", flush=True)
        return _Search(study, space, starts, objective, settings, after_trial).among_others(show=show)


def finalists(trials: list[Finished], metric: str, count: int) -> list[Finished]:
    """Return the best complete trials, best first (of equals the earlier), and the default, the first trial.

    Raises:
        PipelineError: no trial was completed.
    """
    complete = [trial for trial in trials if trial.state == "COMPLETE" and trial.value is not None]
    if not complete:
        raise PipelineError("every trial of the search diverged: narrow tune.space.train.lr in params.yaml")
    ranked = sorted(complete, key=lambda trial: (-sign(metric) * (trial.value or 0), trial.number))
    return ranked[:count] + [trial for trial in ranked[count:] if trial.number == 0]


@dataclass(frozen=True)
class _Search:
    """A search as one process sees it; the arguments are those of `search`."""

    study: optuna.Study
    space: Space
    starts: Sequence[Point]
    objective: Objective
    settings: Tune
    after_trial: Callable[[list[Finished]], None]

    def alone(self, prefetch: Prefetch) -> list[FrozenTrial]:
        """Go through the trials in order; nobody else is at work on the study."""
        study, wanted = self.study, self.settings.trials
        if before := len(finished(study)):
            print(f"{self.label}: {before} of {wanted} trials were done before", flush=True)
        for stale in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            study.tell(stale.number, state=TrialState.FAIL)
        while (before := len(finished(study))) < wanted:
            if self.settings.wave > 1:
                self._wave(prefetch)
            elif trial := self._propose(study, before, _points(finished(study))):
                self._run(trial, before)
                self._tell(before)
            if len(finished(study)) == before:
                self._say_exhausted()
                break
        return finished(study)[:wanted]

    def among_others(self, *, show: bool) -> list[FrozenTrial]:
        """Take trials until all are finished, whoever trains them."""
        study, told, claims = self.study, set(ended(self.study)), shared.Claims(self.study)
        axes = distributions(self.space)
        while (before := len(finished(study))) < self.settings.trials:
            wave = self._proposals()
            while left := {number: wave[number] for number in wave if number not in ended(study)}:
                trial = claims.take(left, axes)
                if trial is None:
                    claims.wait()
                else:
                    # another process has taken it if it took this one for gone
                    with shared.beating(trial), suppress(UpdateFinishedTrialError):
                        self._run(trial, trial.user_attrs[shared.NUMBER])
                for number in ended(study).keys() - told:
                    told.add(number)
                    self._tell(number, show=show)
            if len(finished(study)) == before:
                self._say_exhausted()
                break
        return finished(study)[: self.settings.trials]

    def _wave(self, prefetch: Prefetch) -> None:
        """Propose a wave, or again what is left of one, and run its trials in order."""
        done = finished(self.study)
        left = {number: params for number, params in self._proposals().items() if number >= len(done)}
        points = {number: decode(self.space, params) for number, params in left.items()}
        earlier = done[: start_of_wave(len(done), self.settings.wave)]
        with prefetch(points, [trial.intermediate_values for trial in earlier]) as wait:
            for number, params in left.items():
                wait(number)
                self._run(self._begin(params), number)
                self._tell(number)

    def _run(self, trial: Trial, number: int) -> None:
        """Train a trial, and keep how it ended."""
        settings, curve = self.settings, list[dict[str, float]]()
        value: float | None = None
        key, better = (f"valid_{settings.metric}", max if sign(settings.metric) > 0 else min)

        def log(row: dict[str, float], _step: int) -> None:
            curve.append(row)
            trial.report(row[key], len(curve))
            if trial.should_prune():
                raise optuna.TrialPruned

        try:
            value = self.objective(number, decode(self.space, trial.params), log)
            state = TrialState.COMPLETE
        except optuna.TrialPruned:
            state = TrialState.PRUNED
        except Diverged as error:
            # pruned, so it counts as one of the worst; a failed trial would be proposed again and again
            print(f"{self.label} trial-{number:03d}: {error}")
            state = TrialState.PRUNED
        trial.set_user_attr("curve", curve)
        if value is None:
            value = better((row[key] for row in curve), default=None)
        told = value if state == TrialState.COMPLETE else None
        trial.set_user_attr("seal", seal(number, state, told, trial.params, trial.distributions, curve))
        self.study.tell(trial, told, state=state, skip_if_finished=True)

    def _propose(self, study: optuna.Study, number: int, seen: set[str]) -> Trial | None:
        """Ask for a point that no earlier trial had; None if there seems to be none left.

        Args:
            study: that of the search, or one that has seen less.
            number: of the trial.
            seen: what `_points` returns.
        """
        space, starts = self.space, self.starts
        for attempt in range(ATTEMPTS if space or not number else 0):
            study.sampler = optuna.samplers.TPESampler(
                seed=int(digest([self.settings.seed, number, attempt]), 16) % 2**32,
                n_startup_trials=self.settings.startup_trials,
            )
            waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
            if number < len(starts) and not waiting:
                study.enqueue_trial({axis: encode(value) for axis, value in starts[number].items()})
            trial = study.ask(distributions(space))
            wanted = starts[number] if number < len(starts) else decode(space, trial.params)
            if canonical(trial.params) not in seen and decode(space, trial.params) == wanted:
                return trial
            study.tell(trial, state=TrialState.FAIL)
        return None

    def _proposals(self) -> dict[int, Point]:
        """Return the parameters of the wave in which the first unfinished trial is, by number.

        They follow from the trials of the waves before alone, whatever is finished of this one.
        """
        done, settings = finished(self.study), self.settings
        first = start_of_wave(len(done), settings.wave)
        earlier = done[:first]
        # a study of its own, which has seen nothing of the wave but its proposals
        proposals = optuna.create_study(direction=self.study.direction)
        proposals.add_trials(earlier)
        seen, wave = _points(earlier), dict[int, Point]()
        for number in range(first, min(first + settings.wave, settings.trials)):
            trial = self._propose(proposals, number, seen)
            if trial is None:
                break
            seen.add(canonical(trial.params))
            wave[number] = trial.params
        return wave

    def _begin(self, params: Point) -> Trial:
        """Begin a trial at a point; what a killed search had enqueued is that point."""
        study = self.study
        if not study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            study.enqueue_trial(params)
        trial = study.ask(distributions(self.space))
        assert canonical(trial.params) == canonical(params), (trial.params, params)
        return trial

    @property
    def label(self) -> str:
        """The study's name without its digest."""
        return self.study.study_name.rpartition("-")[0] or self.study.study_name

    def _say_exhausted(self) -> None:
        trials = len(finished(self.study))
        print(f"{self.label}: the search space is exhausted after {trials} trials")

    def _tell(self, number: int, *, show: bool = True) -> None:
        """Say how a trial ended."""
        if show:
            print(self._line(number), flush=True)
        self.after_trial(described(finished(self.study), self.space))

    def _line(self, number: int) -> str:
        """Say how a trial went, what differs from the first one, and which is the best so far."""
        metric, trials = self.settings.metric, ended(self.study)
        up = sign(metric)
        trial, point = trials[number], decode(self.space, trials[number].params)
        curve = [up * row[f"valid_{metric}"] for row in trial.user_attrs["curve"]]
        value = trial.value if trial.state == TrialState.COMPLETE else up * max(curve, default=-math.inf)
        assert value is not None
        default = self.starts[0]
        changed = [
            f"{axis.split('.')[-1]} {_short(point[axis])}" for axis in point if point[axis] != default[axis]
        ]
        complete = [
            (up * each.value, -i)
            for i, each in trials.items()
            if each.state == TrialState.COMPLETE and each.value is not None
        ]
        words = [
            f"valid {NAMES[metric]} {value:.4f}" if math.isfinite(value) else "diverged",
            *(["pruned"] if trial.state == TrialState.PRUNED else []),
            *([f"best {up * max(complete)[0]:.4f} by trial-{-max(complete)[1]:03d}"] if complete else []),
        ]
        what = ", ".join(changed) if number else "the default"
        if 0 < number < len(self.starts):
            what = f"the paper's configuration: {what}"
        place = f"{number + 1} of {self.settings.trials}"
        return f"{self.label} trial-{number:03d} ({place}): {', '.join(words)}; {what}"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _points(trials: Sequence[FrozenTrial]) -> set[str]:
    return {canonical(trial.params) for trial in trials}


def _opened(name: str, settings: Tune, storage: BaseStorage) -> optuna.Study:
    """Open a study of a storage, or begin it there."""
    study = optuna.create_study(
        storage=storage,
        study_name=name,
        direction="maximize" if sign(settings.metric) > 0 else "minimize",
        pruner=QuantilePruner(
            settings.pruner_quantile,
            settings.pruner_startup_trials,
            settings.pruner_warmup_evaluations,
            settings.wave,
        ),
        load_if_exists=True,
    )
    if study.metric_names is None:  # what optuna-dashboard writes at its axes
        with warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning):
            study.set_metric_names([f"validation {NAMES[settings.metric]}"])
    return study
