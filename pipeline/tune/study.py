"""A whole search: its trials, the finals, the winner."""

import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pipeline.common.errors import error_context
from pipeline.common.files import digest, write_json
from pipeline.config.settings import Config
from pipeline.train import cache, runs
from pipeline.train.loop import LogFn
from pipeline.train.refit import REFIT
from pipeline.train.runs import Resources, RunHeader, Splits
from pipeline.train.workers import Wait
from pipeline.tune import finals, search, tables
from pipeline.tune.budget import budget
from pipeline.tune.finals import Finalist
from pipeline.tune.pruning import Rule, Values
from pipeline.tune.search import Finished, Point
from pipeline.tune.trial import Wave, checkpoint_of, train_trial

Block = dict[str, Any]


class View(Protocol):
    """Who watches a search, such as MLflow."""

    def child(self, name: str, key: str, params: Block) -> AbstractContextManager[LogFn]:
        """Show one trial."""

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Show values of the search itself."""


@dataclass(frozen=True)
class Study:
    """A search that has ended.

    Attributes:
        name: of the study, without the digest of the environment.
        header: of the run whose configuration was searched.
        trials, finalists, winner: what was tried.
        importances: of each axis, by method.
        metric: by which the winner was chosen.
        rows: of the train split.
        at: {"model": ..., "train": ...} at a point of the space.
    """

    name: str
    header: RunHeader
    trials: Sequence[Finished]
    finalists: Sequence[Finalist]
    winner: Finalist
    importances: dict[str, dict[str, float]]
    metric: str
    rows: int
    at: Callable[[Point], Block]

    @property
    def options(self) -> Block:
        """The winner's {"model": ..., "train": ...}."""
        return self.at(self.point)

    @property
    def point(self) -> Point:
        """The winner's point of the space."""
        return self.trials[self.winner.trial].point

    def write(self, out: Path) -> None:
        """Write best.json and trials.csv into a folder."""
        write_json(out / "best.json", tables.best(self.winner, self.metric, self.options))
        tables.write_csv(out / "trials.csv", self.trials, self.finalists)

    def history(self) -> Block:
        """Return the `search` of run.json."""
        cost = budget(self.trials, self.finalists, self.metric, self.rows)
        return tables.history(
            self.name, self.metric, self.winner, self.trials, self.finalists, self.importances, cost, self.at
        )

    def clean(self) -> None:
        """Remove the checkpoints of the trials."""
        shutil.rmtree(runs.CHECKPOINTS / self.name, ignore_errors=True)


def describe(dataset: str, model: str, config: Config, splits: Splits, processed: Path) -> RunHeader:
    """Return the header of the run that a search of this configuration makes."""
    space = {axis: dimension.model_dump(exclude_defaults=True) for axis, dimension in config.space.items()}
    settings = {**config.tune.model_dump(), "space": space}
    if config.tune.wave == 1:
        del settings["wave"]  # it is a search as it was before there were waves
    defaults = {"model": config.model, "train": config.train.fit, "seeds": config.train.seeds}
    limit = config.train.rows_in_memory
    extra = {"tune": settings, **runs.execution_settings(splits, limit, refit=config.train.refit)}
    return RunHeader.of("tune", dataset, model, config.architecture, defaults, processed, **extra)


def run(header: RunHeader, config: Config, splits: Splits, resources: Resources, view: View) -> Study:
    """Search or go on searching; then train the best trials and the default on every seed.

    Args:
        header: what `describe` returns.
        view: shows the trials.
    """
    dataset, model, seeds, metric = header.dataset, header.model, config.train.seeds, config.tune.metric
    # a study continues if only its budget or its finals grow; a change of anything else starts a new one
    settings = {**header.extra["tune"], "trials": None, "finalists": None}
    named = {key: value for key, value in header.to_json().items() if key != REFIT}
    study = f"{dataset}-{model}-{digest({**named, 'key': None, 'tune': settings})}"
    # ... and so does an environment that computes other bits: trials from there do not count here
    fingerprint = digest(cache.environment(config.architecture, splits[0].device))

    def at(point: Point) -> Block:
        return dict(zip(("model", "train"), config.at(point), strict=True))

    def objective(number: int, point: Point, report: LogFn) -> float:
        options, name = at(point), f"trial-{number:03d}"
        child = view.child(name, f"{header.key}/{name}", options)
        with error_context(config.where(point)), child as log:
            kept = train_trial(
                header,
                splits,
                options,
                seeds[0],
                logs=(log, report),
                checkpoint=checkpoint_of(study, number),
                first=number // config.tune.wave * config.tune.wave,
                progress=f"{model} {name}",
            )
        return kept[f"valid_{metric}"]

    def ahead(points: dict[int, Point], earlier: list[Values]) -> AbstractContextManager[Wait]:
        tune = config.tune
        rule = Rule(
            tune.pruner_quantile,
            tune.pruner_startup_trials,
            tune.pruner_warmup_evaluations,
            maximise=metric == "auc",
        )
        trials = {number: at(point) for number, point in points.items()}
        wave = Wave(header, resources, study, seeds[0], metric, rule, earlier, trials)
        return wave.train_ahead(splits)

    def show(trials: list[Finished]) -> None:
        if (best := budget(trials, [], metric, len(splits[0]))["best"][-1]) is not None:
            view.log({f"search_best_{metric}": best}, trials[-1].number)

    trials, importances = search.search(
        f"{dataset}-{model}-{digest([study, fingerprint])[:8]}",
        config.space,
        config.starts,
        objective,
        config.tune,
        after_trial=show,
        prefetch=ahead,
    )
    best = search.finalists(trials, metric, config.tune.finalists)
    with error_context(config.where()):
        finalists = finals.play(best, metric, at, header, splits, seeds, resources)
    winner = finals.winner(finalists, metric)
    print(finals.verdict(winner, finalists, metric), flush=True)
    return Study(study, header, trials, finalists, winner, importances, metric, len(splits[0]), at)
