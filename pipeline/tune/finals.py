"""The finals of a search: its best trials and the default, trained on all seeds.

The best of some trials by validation rows is also the luckiest: the fewer clicks those rows have, the more of
its lead is luck, and a configuration drawn at random is worse than the default more often than not. So the
default is replaced only by a trial whose gain is larger than `tune.margin` standard errors of that gain,
as the one-standard-error rule prefers the simpler tree (Breiman et al., "Classification and Regression
Trees", 1984, section 3.4.3).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean
from typing import Any

from pipeline.common.errors import Diverged, PipelineError
from pipeline.common.text import counted, with_error
from pipeline.config.metric import NAMES, Metric, sign
from pipeline.metrics import Array
from pipeline.statistics.chance import FEW
from pipeline.train.runs import Job, Resources, RunHeader, Splits, predicted, train_once
from pipeline.train.workers import Wait
from pipeline.tune.evidence import Evidence, ValidationRows
from pipeline.tune.finished import Finished
from pipeline.tune.points import Point

Block = dict[str, Any]
DEFAULT = 0  # the first trial


@dataclass(frozen=True)
class Finalist:
    """A trial of the finals.

    Attributes:
        trial: its number.
        seeds: the seeds that it was trained on, in order; one on which it diverged is the last.
        values: the metric of the weights that each training kept; one less than `seeds` if it diverged.
        epochs: how long each training took.
        error: standard error of its difference to the default, by the validation rows (clustered by user
            where there is one) and by the seeds. None for the default itself, where one of the two
            diverged, and where a class has fewer rows than `chance.FEW`.
    """

    trial: int
    seeds: list[int]
    values: list[float]
    epochs: list[float]
    error: float | None = None

    @property
    def mean(self) -> float | None:
        """Over the seeds; None if it diverged on one."""
        return mean(self.values) if len(self.values) == len(self.seeds) else None

    def to_json(self) -> Block:
        """Return it as it is in run.json."""
        return {**vars(self), "mean": self.mean}


def play(
    trials: Sequence[Finished],
    metric: Metric,
    arguments: Callable[[Point], Block],
    header: RunHeader,
    splits: Splits,
    seeds: Sequence[int],
    resources: Resources,
) -> list[Finalist]:
    """Train every finalist on every seed. What is trained already, or was before a kill, costs nothing.

    Args:
        trials: the finalists, as `search.finalists` returns them.
        arguments: {"model": ..., "train": ...} at a point of the space.
    """
    jobs = [(arguments(trial.point), seed) for trial in trials for seed in seeds]
    found, evidence = list[Finalist](), dict[int, Evidence | None]()
    rows = ValidationRows.of(metric, splits[1], resources.processed)
    with resources.prefetch(header, jobs, splits) as wait:
        for place, trial in enumerate(trials):
            first = place * len(seeds)
            numbered = dict(enumerate(jobs[first : first + len(seeds)], first))
            finalist, scores = _train(trial, metric, numbered, header, splits, wait)
            found.append(finalist)
            if finalist.mean is not None:
                evidence[trial.number] = rows.evidence(scores)
    default = evidence.pop(DEFAULT, None)
    errors = {number: rows.error(other, default) for number, other in evidence.items()}
    return [replace(finalist, error=errors.get(finalist.trial)) for finalist in found]


def winner(finalists: Sequence[Finalist], metric: Metric, margin: float) -> Finalist:
    """Return the finalist with the best mean among those that may replace the default, or the default.

    Of equals the earlier trial. Where the default diverged there is nothing to keep, and the best wins.

    Args:
        margin: how many of its standard errors a gain has to exceed.

    Raises:
        PipelineError: every finalist diverged on some seed.
    """
    ranked = _ranked(finalists, metric)
    if not ranked:
        raise PipelineError(
            "every finalist of the search diverged on some seed: narrow tune.space.train.lr in params.yaml"
        )
    default = _default(finalists)
    if default is None:
        return ranked[0]
    able = (each for each in ranked if each is not default and _beats(each, default, metric, margin))
    return next(able, default)


def against_default(winner: Finalist, finalists: Sequence[Finalist], metric: Metric) -> Block | None:
    """Return how the winner differs from the default, or the best of the others if the default won.

    None where there is no other, or no default.

    Returns:
        `trial`; `difference` of the means, of the metric as it is; and its standard `error`.
    """
    default = _default(finalists)
    others = [each for each in _ranked(finalists, metric) if each is not default]
    if default is None or not others:
        return None
    one = others[0] if winner is default else winner
    return {
        "trial": one.trial,
        "difference": (one.mean or 0.0) - (default.mean or 0.0),
        "error": one.error,
    }


def verdict(winner: Finalist, finalists: Sequence[Finalist], metric: Metric, margin: float) -> str:
    """Say which trial won the finals, how it differs from the default, and why a better one did not win."""
    name, mean = NAMES[metric], winner.mean or 0.0
    who = f"the default ({_name(DEFAULT)})" if winner.trial == DEFAULT else _name(winner.trial)
    text = f"winner: {who}, mean valid {name} {mean:.4f} over {counted(len(winner.seeds), 'seed')}"
    found = against_default(winner, finalists, metric)
    if found is None:
        return text
    if winner.trial != DEFAULT:
        return f"{text}, {with_error(found['difference'], found['error'])} against the default"
    gain = found["difference"] * sign(metric)
    if gain <= 0:
        return text
    why = (
        f"whose error cannot be known with fewer than {FEW} validation rows of a class"
        if found["error"] is None
        else f"which is too little for tune.margin: {margin:g}"
    )
    better = with_error(gain, found["error"]).removeprefix("+")
    return f"{text}; {_name(found['trial'])} is better by {better}, {why}"


def _name(trial: int) -> str:
    return f"trial-{trial:03d}"


def _default(finalists: Sequence[Finalist]) -> Finalist | None:
    return next((each for each in finalists if each.trial == DEFAULT and each.mean is not None), None)


def _ranked(finalists: Sequence[Finalist], metric: Metric) -> list[Finalist]:
    """Those that diverged on no seed, best first, of equals the earlier trial."""
    whole = [(-sign(metric) * each.mean, each.trial, each) for each in finalists if each.mean is not None]
    return [each for *_, each in sorted(whole, key=lambda one: one[:2])]


def _beats(one: Finalist, default: Finalist, metric: Metric, margin: float) -> bool:
    gain = ((one.mean or 0.0) - (default.mean or 0.0)) * sign(metric)
    if margin == 0:
        return gain > 0
    return one.error is not None and gain > margin * one.error


def _train(
    trial: Finished,
    metric: Metric,
    jobs: Mapping[int, Job],
    header: RunHeader,
    splits: Splits,
    wait: Wait,
) -> tuple[Finalist, list[Array]]:
    """Train a finalist on its seeds; return what the validation rows are predicted by each, too."""
    finalist, scores = Finalist(trial.number, [], [], []), list[Array]()
    label = f"{header.model} finalist {_name(trial.number)}"
    for number, (arguments, seed) in jobs.items():
        wait(number)
        finalist.seeds.append(seed)
        checkpoint, progress = header.seed_checkpoint(seed), f"{label} seed-{seed}"
        try:
            trained = train_once(header, splits, arguments, seed, checkpoint=checkpoint, progress=progress)
        except Diverged as error:
            print(f"{label} seed-{seed}: {error}")
            break
        curve, best = trained.state.curve, trained.state.best
        finalist.values.append(curve[best][f"valid_{metric}"])
        finalist.epochs.append(curve[-1]["epoch"])
        scores.append(predicted(header, arguments["model"], seed, trained, splits[1]))
    average = "diverged" if finalist.mean is None else f"mean valid {NAMES[metric]} {finalist.mean:.4f}"
    print(f"{label}: {average}", flush=True)
    return finalist, scores
