"""The finals of a search: its best trials and the default, trained on all seeds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from pipeline.common.errors import Diverged, PipelineError
from pipeline.train.runs import Job, Resources, RunHeader, Splits, train_once
from pipeline.train.workers import Wait
from pipeline.tune.finished import Finished
from pipeline.tune.points import Point

Block = dict[str, Any]


@dataclass(frozen=True)
class Finalist:
    """A trial of the finals.

    Attributes:
        trial: its number.
        seeds: the seeds that it was trained on, in order; one on which it diverged is the last.
        values: the metric of the weights that each training kept; one less than `seeds` if it diverged.
        epochs: how long each training took.
    """

    trial: int
    seeds: list[int]
    values: list[float]
    epochs: list[float]

    @property
    def mean(self) -> float | None:
        """Over the seeds; None if it diverged on one."""
        return mean(self.values) if len(self.values) == len(self.seeds) else None

    def to_json(self) -> Block:
        """Return it as it is in run.json."""
        return {**vars(self), "mean": self.mean}


def play(
    trials: Sequence[Finished],
    metric: str,
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
    found = []
    with resources.prefetch(header, jobs, splits) as wait:
        for place, trial in enumerate(trials):
            first = place * len(seeds)
            numbered = dict(enumerate(jobs[first : first + len(seeds)], first))
            found.append(_train(trial, f"valid_{metric}", numbered, header, splits, wait))
    return found


def winner(finalists: Sequence[Finalist], metric: str) -> Finalist:
    """Return the finalist with the best mean; of equals the earlier trial.

    Raises:
        PipelineError: every finalist diverged on some seed.
    """
    sign = 1 if metric == "auc" else -1
    means = {finalist.trial: finalist.mean for finalist in finalists}
    whole = [(-sign * value, trial) for trial, value in means.items() if value is not None]
    if not whole:
        raise PipelineError(
            "every finalist of the search diverged on some seed: narrow tune.space.train.lr in params.yaml"
        )
    _, best = min(whole)
    return next(finalist for finalist in finalists if finalist.trial == best)


def verdict(winner: Finalist, finalists: Sequence[Finalist], metric: str) -> str:
    """Say which trial won the finals, and what it gains over the default."""
    default = next((one.mean for one in finalists if one.trial == 0), None)
    name, mean = "AUC" if metric == "auc" else metric, winner.mean or 0.0
    gain = f", {mean - default:+.4f} over the default" if default is not None and winner.trial else ""
    who = f"trial-{winner.trial:03d}" if winner.trial else "the default (trial-000)"
    return f"winner: {who}, mean valid {name} {mean:.4f} over {len(winner.seeds)} seeds{gain}"


def _train(
    trial: Finished, key: str, jobs: Mapping[int, Job], header: RunHeader, splits: Splits, wait: Wait
) -> Finalist:
    finalist = Finalist(trial.number, [], [], [])
    label = f"{header.model} finalist trial-{trial.number:03d}"
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
        finalist.values.append(curve[best][key])
        finalist.epochs.append(curve[-1]["epoch"])
    average = "diverged" if finalist.mean is None else f"mean {key.replace('_', ' ')} {finalist.mean:.4f}"
    print(f"{label}: {average}", flush=True)
    return finalist
