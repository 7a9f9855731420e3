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
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)
from optuna.exceptions import UpdateFinishedTrialError
from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial, Trial, TrialState

from pipeline.common.errors import Diverged, PipelineError
from pipeline.common.files import canonical, digest
from pipeline.common.text import without_secrets
from pipeline.config.space import Dimension, Tune
from pipeline.train.loop import LogFn
from pipeline.train.workers import Wait
from pipeline.tune import shared
from pipeline.tune.pruning import Rule, Values

Point = dict[str, Any]
Objective = Callable[[int, Point, LogFn], float | None]
Prefetch = Callable[[dict[int, Point], list[Values]], AbstractContextManager[Wait]]
optuna.logging.set_verbosity(optuna.logging.WARNING)
JOURNAL = Path("studies/journal.jsonl")
ATTEMPTS = 100  # proposals in a row that repeat an earlier trial, after which the space counts as exhausted


@dataclass(frozen=True)
class Finished:
    """A finished trial; `number` is its place in the search, so kills do not change it."""

    number: int
    state: str
    value: float | None
    point: Point
    curve: list[dict[str, float]]


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
        finished = _finished(study)
        number = trial.user_attrs.get(shared.NUMBER, len(finished))
        earlier = finished[: _start_of_wave(number, self._wave)]
        return rule.stops(trial.intermediate_values, [one.intermediate_values for one in earlier])


class _JournalLock(JournalFileSymlinkLock):
    """The journal's lock as an operating system lock, which is released when its process ends.

    Optuna's own lock is a file that a killed process leaves behind; the next process waits 30 s for it.
    """

    def __init__(self, journal: Path) -> None:
        self._lock = FileLock(journal.with_name(f".{journal.name}.lock"))

    def acquire(self) -> bool:
        self._lock.acquire()
        return True

    def release(self) -> None:
        self._lock.release()


def search(
    name: str,
    space: dict[str, Dimension],
    starts: Sequence[Point],
    objective: Objective,
    settings: Tune,
    *,
    after_trial: Callable[[list[Finished]], None] = lambda _finished: None,
    prefetch: Prefetch = lambda _points, _earlier: nullcontext(lambda _number: None),
    journal: Path = JOURNAL,
    server: str | None = None,
) -> tuple[list[Finished], dict[str, dict[str, float]]]:
    """Run or resume a study until `settings.trials` trials are finished.

    Args:
        name: of the study in the journal; should contain a digest of everything that decides the result.
        space: the axes; if empty, there is one trial.
        starts: the first trials, all different.
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
            done = _search(name, space, starts, objective, settings, after_trial, prefetch, journal)
        return _described(done, space), _importances(done, settings)
    finally:
        lock.release()


def _search(
    name: str,
    space: dict[str, Dimension],
    starts: Sequence[Point],
    objective: Objective,
    settings: Tune,
    after_trial: Callable[[list[Finished]], None],
    prefetch: Prefetch,
    journal: Path,
) -> list[FrozenTrial]:
    """Go through the trials in order; nobody else is at work on the study."""
    study = _open_journal(name, settings, journal)
    _check_trials(study, settings, partial(_damaged, journal))
    if before := len(_finished(study)):
        print(f"{_label(study)}: {before} of {settings.trials} trials were done before", flush=True)
    for stale in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(stale.number, state=TrialState.FAIL)
    while len(_finished(study)) < settings.trials:
        before = len(_finished(study))
        if settings.wave == 1:
            trial = _propose(study, space, starts, settings, before, _points(_finished(study)))
            if trial is not None:
                _run(study, trial, before, space, objective, settings)
                print(_line(study, space, starts, settings, before), flush=True)
                after_trial(_described(_finished(study), space))
        else:
            _run_wave(study, space, starts, objective, settings, after_trial, prefetch)
        if len(_finished(study)) == before:
            _say_exhausted(study)
            break
    return _finished(study)[: settings.trials]


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
        study = _open_study(name, settings, storage)
        _check_trials(study, settings, partial(shared.changed, server))
        told = set(_ended(study))
        if show:
            where = f"{study.study_name} at {without_secrets(server)}"
            print(f"{where}: {len(told)} of {settings.trials} trials were done before", flush=True)
        claims = shared.Claims(study)
        distributions = {axis: _distribution(dimension) for axis, dimension in space.items()}

        while (before := len(_finished(study))) < settings.trials:
            wave = _proposals(study, space, starts, settings)
            while left := {number: wave[number] for number in wave if number not in _ended(study)}:
                trial = claims.take(left, distributions)
                if trial is None:
                    claims.wait()
                else:
                    # another process has taken it if it took this one for gone
                    with shared.beating(trial), suppress(UpdateFinishedTrialError):
                        _run(study, trial, trial.user_attrs[shared.NUMBER], space, objective, settings)
                for number in _ended(study).keys() - told:
                    told.add(number)
                    if show:
                        print(_line(study, space, starts, settings, number), flush=True)
                    after_trial(_described(_finished(study), space))
            if len(_finished(study)) == before:
                _say_exhausted(study)
                break
        return _finished(study)[: settings.trials]


def finalists(trials: list[Finished], metric: str, count: int) -> list[Finished]:
    """Return the best complete trials, best first (of equals the earlier), and the default, the first trial.

    Raises:
        PipelineError: no trial was completed.
    """
    complete = [trial for trial in trials if trial.state == "COMPLETE" and trial.value is not None]
    if not complete:
        raise PipelineError("every trial of the search diverged: narrow tune.space.train.lr in params.yaml")
    sign = 1 if metric == "auc" else -1
    ranked = sorted(complete, key=lambda trial: (-sign * (trial.value or 0), trial.number))
    return ranked[:count] + [trial for trial in ranked[count:] if trial.number == 0]


def _run(
    study: optuna.Study,
    trial: Trial,
    number: int,
    space: dict[str, Dimension],
    objective: Objective,
    settings: Tune,
) -> None:
    curve = list[dict[str, float]]()
    value: float | None = None
    key, better = (f"valid_{settings.metric}", max if settings.metric == "auc" else min)

    def log(row: dict[str, float], _step: int) -> None:
        curve.append(row)
        trial.report(row[key], len(curve))
        if trial.should_prune():
            raise optuna.TrialPruned

    try:
        value = objective(number, _decode(space, trial.params), log)
        state = TrialState.COMPLETE
    except optuna.TrialPruned:
        state = TrialState.PRUNED
    except Diverged as error:
        # pruned, so it counts as one of the worst; a failed trial would be proposed again and again
        print(f"{_label(study)} trial-{number:03d}: {error}")
        state = TrialState.PRUNED
    trial.set_user_attr("curve", curve)
    if value is None:
        value = better((row[key] for row in curve), default=None)
    told = value if state == TrialState.COMPLETE else None
    trial.set_user_attr("seal", _seal(number, state, told, trial.params, trial.distributions, curve))
    study.tell(trial, told, state=state, skip_if_finished=True)


def _line(
    study: optuna.Study,
    space: dict[str, Dimension],
    starts: Sequence[Point],
    settings: Tune,
    number: int,
) -> str:
    """Say how a trial went, what differs from the first one, and which is the best so far."""
    trials, sign = _ended(study), 1 if settings.metric == "auc" else -1
    metric = "AUC" if settings.metric == "auc" else settings.metric
    trial, point = trials[number], _decode(space, trials[number].params)
    curve = [sign * row[f"valid_{settings.metric}"] for row in trial.user_attrs["curve"]]
    value = trial.value if trial.state == TrialState.COMPLETE else sign * max(curve, default=-math.inf)
    assert value is not None
    changed = [
        f"{axis.split('.')[-1]} {_short(point[axis])}" for axis in point if point[axis] != starts[0][axis]
    ]
    complete = [
        (sign * each.value, -i)
        for i, each in trials.items()
        if each.state == TrialState.COMPLETE and each.value is not None
    ]
    words = [
        f"valid {metric} {value:.4f}" if math.isfinite(value) else "diverged",
        *(["pruned"] if trial.state == TrialState.PRUNED else []),
        *([f"best {sign * max(complete)[0]:.4f} by trial-{-max(complete)[1]:03d}"] if complete else []),
    ]
    what = ", ".join(changed) if number else "the default"
    return (
        f"{_label(study)} trial-{number:03d} ({number + 1} of {settings.trials}): {', '.join(words)}; {what}"
    )


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _label(study: optuna.Study) -> str:
    """Return a study's name without its digest."""
    return study.study_name.rpartition("-")[0] or study.study_name


def _propose(
    study: optuna.Study,
    space: dict[str, Dimension],
    starts: Sequence[Point],
    settings: Tune,
    number: int,
    seen: set[str],
) -> Trial | None:
    """Ask for a point that no earlier trial had; None if there seems to be none left.

    Args:
        number: of the trial.
        seen: what `_points` returns.
    """
    for attempt in range(ATTEMPTS if space or not number else 0):
        study.sampler = optuna.samplers.TPESampler(
            seed=int(digest([settings.seed, number, attempt]), 16) % 2**32,
            n_startup_trials=settings.startup_trials,
        )
        waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        if number < len(starts) and not waiting:
            study.enqueue_trial({axis: _encode(value) for axis, value in starts[number].items()})
        trial = study.ask({axis: _distribution(dimension) for axis, dimension in space.items()})
        wanted = starts[number] if number < len(starts) else _decode(space, trial.params)
        if canonical(trial.params) not in seen and _decode(space, trial.params) == wanted:
            return trial
        study.tell(trial, state=TrialState.FAIL)
    return None


def _points(trials: Sequence[FrozenTrial]) -> set[str]:
    return {canonical(trial.params) for trial in trials}


def _start_of_wave(number: int, wave: int) -> int:
    """Return the number of the first trial of a trial's wave."""
    return number // wave * wave


def _run_wave(
    study: optuna.Study,
    space: dict[str, Dimension],
    starts: Sequence[Point],
    objective: Objective,
    settings: Tune,
    after_trial: Callable[[list[Finished]], None],
    prefetch: Prefetch,
) -> None:
    """Propose a wave, or again what is left of one, and run its trials in order."""
    finished = _finished(study)
    wave = _proposals(study, space, starts, settings)
    left = {number: params for number, params in wave.items() if number >= len(finished)}
    points = {number: _decode(space, params) for number, params in left.items()}
    earlier = finished[: _start_of_wave(len(finished), settings.wave)]
    with prefetch(points, [trial.intermediate_values for trial in earlier]) as wait:
        for number, params in left.items():
            wait(number)
            _run(study, _begin(study, space, params), number, space, objective, settings)
            print(_line(study, space, starts, settings, number), flush=True)
            after_trial(_described(_finished(study), space))


def _proposals(
    study: optuna.Study, space: dict[str, Dimension], starts: Sequence[Point], settings: Tune
) -> dict[int, Point]:
    """Return the parameters of the wave in which the first unfinished trial is, by number.

    They follow from the trials of the waves before alone, whatever is finished of this one.
    """
    finished = _finished(study)
    first = _start_of_wave(len(finished), settings.wave)
    earlier = finished[:first]
    # a study of its own, which has seen nothing of the wave but its proposals
    proposals = optuna.create_study(direction=study.direction)
    proposals.add_trials(earlier)
    seen, wave = _points(earlier), dict[int, Point]()
    for number in range(first, min(first + settings.wave, settings.trials)):
        trial = _propose(proposals, space, starts, settings, number, seen)
        if trial is None:
            break
        seen.add(canonical(trial.params))
        wave[number] = trial.params
    return wave


def _begin(study: optuna.Study, space: dict[str, Dimension], params: Point) -> Trial:
    """Begin a trial at a point; what a killed search had enqueued is that point."""
    if not study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        study.enqueue_trial(params)
    trial = study.ask({axis: _distribution(dimension) for axis, dimension in space.items()})
    assert canonical(trial.params) == canonical(params), (trial.params, params)
    return trial


def _open_journal(name: str, settings: Tune, journal: Path) -> optuna.Study:
    lock = _JournalLock(journal)
    _drop_torn_line(journal, lock)
    try:
        return _open_study(name, settings, JournalStorage(JournalFileBackend(str(journal), lock)))
    except Exception as error:  # noqa: BLE001  Optuna replays what the lines say, and they may say anything
        raise _damaged(journal, repr(error)) from None


def _open_study(name: str, settings: Tune, storage: BaseStorage) -> optuna.Study:
    study = optuna.create_study(
        storage=storage,
        study_name=name,
        direction="maximize" if settings.metric == "auc" else "minimize",
        pruner=QuantilePruner(
            settings.pruner_quantile,
            settings.pruner_startup_trials,
            settings.pruner_warmup_evaluations,
            settings.wave,
        ),
        load_if_exists=True,
    )
    name_of = {"auc": "validation AUC", "logloss": "validation logloss"}
    if study.metric_names is None:  # what optuna-dashboard writes at its axes
        with warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning):
            study.set_metric_names([name_of[settings.metric]])
    return study


def _damaged(journal: Path, reason: str) -> PipelineError:
    return PipelineError(
        f"{journal} is damaged ({reason}): move it away and run again; searches that are done keep their "
        "results, and trainings that are done are taken from the cache"
    )


def _check_trials(study: optuna.Study, settings: Tune, damaged: Callable[[str], PipelineError]) -> None:
    """Raise unless every finished trial is as it was when it ended."""
    if (study.direction == optuna.study.StudyDirection.MAXIMIZE) != (settings.metric == "auc"):
        raise damaged(f"{study.study_name} has another direction")
    for number, trial in _ended(study).items():
        curve = trial.user_attrs.get("curve", [])
        told = trial.value if trial.state == TrialState.COMPLETE else None
        seal = _seal(number, trial.state, told, trial.params, trial.distributions, curve)
        reported = [row.get(f"valid_{settings.metric}") for row in curve]
        steps = trial.intermediate_values
        whole = trial.user_attrs.get("seal") == seal and [steps[at] for at in sorted(steps)] == reported
        if trial.state == TrialState.PRUNED:  # Optuna takes the last report for its value
            whole &= trial.value in (None, *reported[-1:])
        if not whole or None in (trial.datetime_start, trial.datetime_complete):  # Optuna insists on times
            raise damaged(f"trial {trial.number} of {study.study_name} was changed after its end")


def _seal(
    number: int,
    state: TrialState,
    value: float | None,
    params: Point,
    distributions: dict[str, BaseDistribution],
    curve: list[dict[str, float]],
) -> str:
    axes = {name: distribution_to_json(distribution) for name, distribution in distributions.items()}
    return digest([number, state.name, value, params, axes, curve])


def _drop_torn_line(journal: Path, lock: _JournalLock) -> None:
    """Remove an incomplete last line, left by a killed process: Optuna refuses such a file."""
    if not journal.exists():
        return
    lock.acquire()
    try:
        with open(journal, "rb+") as file:
            size = file.seek(0, 2)
            start = max(0, size - 2**20)
            file.seek(start)
            tail = file.read()
            if tail and not tail.endswith(b"\n"):
                file.truncate(start + tail.rfind(b"\n") + 1)
    finally:
        lock.release()


def _ended(study: optuna.Study) -> dict[int, FrozenTrial]:
    """Return the finished trials by number; the first of several that processes trained at the same time."""
    found = dict[int, FrozenTrial]()
    for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)):
        found.setdefault(trial.user_attrs.get(shared.NUMBER, len(found)), trial)
    return found


def _finished(study: optuna.Study) -> list[FrozenTrial]:
    """Return the finished trials in order, up to the first that is still missing."""
    ended = _ended(study)
    return [ended[number] for number in takewhile(ended.__contains__, count())]


def _say_exhausted(study: optuna.Study) -> None:
    print(f"{_label(study)}: the search space is exhausted after {len(_finished(study))} trials")


def _described(trials: list[FrozenTrial], space: dict[str, Dimension]) -> list[Finished]:
    return [
        Finished(
            number, trial.state.name, trial.value, _decode(space, trial.params), trial.user_attrs["curve"]
        )
        for number, trial in enumerate(trials)
    ]


def _importances(trials: list[FrozenTrial], settings: Tune) -> dict[str, dict[str, float]]:
    """Compute the importance of each axis by PED-ANOVA and by f-ANOVA.

    Empty with fewer than three complete trials, or if all have the same value.
    """
    study = optuna.create_study(direction="maximize" if settings.metric == "auc" else "minimize")
    study.add_trials(trials)
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if len(complete) < 3 or len({trial.value for trial in complete}) < 2 or not complete[0].params:
        return {}
    methods = {
        "ped_anova": PedAnovaImportanceEvaluator(),
        "fanova": FanovaImportanceEvaluator(seed=settings.seed),
    }
    return {
        method: {
            # rounded: the last bits depend on what the process computed before
            axis: round(share, 9)
            for axis, share in sorted(
                optuna.importance.get_param_importances(study, evaluator=evaluator).items()
            )
        }
        for method, evaluator in methods.items()
    }


def _distribution(dimension: Dimension) -> BaseDistribution:
    if dimension.choices is not None:
        return CategoricalDistribution([_encode(choice) for choice in dimension.choices])
    low, high, step = dimension.low, dimension.high, dimension.step
    assert low is not None
    assert high is not None
    if all(isinstance(number, int) for number in (low, high, step or 1)):
        return IntDistribution(int(low), int(high), log=dimension.log, step=int(step or 1))
    return FloatDistribution(low, high, log=dimension.log, step=step)


def _encode(value: Any) -> Any:
    """Encode a list (hidden layers) as JSON: Optuna's choices are scalars."""
    return canonical(value) if isinstance(value, list) else value


def _decode(space: dict[str, Dimension], point: Point) -> Point:
    decoded = dict[str, Any]()
    for axis, value in sorted(point.items()):
        texts = {_encode(c): c for c in space[axis].choices or () if isinstance(c, list)}
        if isinstance(value, float) and space[axis].step is not None:
            value = round(value, 12)  # 0.1 + 2 * 0.1 is 0.30000000000000004
        decoded[axis] = texts.get(value, value)
    return decoded
