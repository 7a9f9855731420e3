"""A whole search: its trials, the finals, the winner."""

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

from pipeline.common.errors import PipelineError, error_context
from pipeline.common.files import digest, read_json, require_file, write_json
from pipeline.config.metric import Metric, sign
from pipeline.config.settings import Config
from pipeline.config.space import Dimension
from pipeline.train import cache, runs, workers
from pipeline.train.course import LogFn
from pipeline.train.refit import REFIT
from pipeline.train.runs import Resources, RunHeader, Splits
from pipeline.train.workers import Wait
from pipeline.tune import finals, search, tables
from pipeline.tune.budget import budget
from pipeline.tune.finals import Finalist
from pipeline.tune.finished import Finished
from pipeline.tune.points import Point
from pipeline.tune.pruning import Rule, Values
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
    metric: Metric
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
    refit, sharded = config.train.refit, config.train.sharded
    extra = {"tune": settings, **runs.execution_settings(splits, limit, refit=refit, tables=sharded)}
    return RunHeader.of("tune", dataset, model, config.architecture, defaults, processed, **extra)


@dataclass(frozen=True)
class _Trials:
    """What all who train trials of a search agree on.

    Attributes:
        header: what `describe` returns.
        splits: the rows.
    """

    header: RunHeader
    config: Config
    splits: Splits

    @cached_property
    def study(self) -> str:
        """The study's name: it goes on if only budget, finals or margin change; else a new one starts."""
        settings = {**self.header.extra["tune"], "trials": None, "finalists": None, "margin": None}
        named = {key: value for key, value in self.header.to_json().items() if key != REFIT}
        return f"{self._who}-{digest({**named, 'key': None, 'tune': settings})}"

    @cached_property
    def name(self) -> str:
        """The name by which it is kept: an environment that computes other bits has another study."""
        fingerprint = digest(cache.environment(self.config.architecture, self.splits[0].device))
        return f"{self._who}-{digest([self.study, fingerprint])[:8]}"

    @property
    def _who(self) -> str:
        return f"{self.header.dataset}-{self.header.model}"

    def at(self, point: Point) -> Block:
        """Return {"model": ..., "train": ...} at a point of the space."""
        return dict(zip(("model", "train"), self.config.at(point), strict=True))

    def train(self, number: int, point: Point, *logs: LogFn, progress: bool = True) -> float:
        """Train a trial on the first seed; return its value."""
        config, wave = self.config, self.config.tune.wave
        with error_context(config.where(point)):
            kept = train_trial(
                self.header,
                self.splits,
                self.at(point),
                config.train.seeds[0],
                logs=logs,
                checkpoint=checkpoint_of(self.study, number),
                first=number // wave * wave,
                progress=f"{self.header.model} trial-{number:03d}" if progress else None,
            )
        return kept[f"valid_{config.tune.metric}"]

    def take_part(self, server: str, *, show: bool) -> None:
        """Train trials of the study on a server until all are finished."""

        def objective(number: int, point: Point, report: LogFn) -> float:
            return self.train(number, point, report, progress=show)

        config = self.config
        search.take_part(self.name, config.space, config.starts, objective, config.tune, server, show=show)


def run(
    header: RunHeader,
    config: Config,
    splits: Splits,
    resources: Resources,
    view: View,
    server: str | None = None,
) -> Study:
    """Search or go on searching; then train the best trials and the default on every seed.

    Args:
        header: what `describe` returns.
        view: shows the trials.
        server: address of the studies; None for the file.
    """
    seeds, metric = config.train.seeds, config.tune.metric
    these = _Trials(header, config, splits)

    def objective(number: int, point: Point, report: LogFn) -> float:
        name = f"trial-{number:03d}"
        with view.child(name, f"{header.key}/{name}", these.at(point)) as log:
            return these.train(number, point, log, report)

    def ahead(points: dict[int, Point], earlier: list[Values]) -> AbstractContextManager[Wait]:
        tune = config.tune
        rule = Rule(
            tune.pruner_quantile,
            tune.pruner_startup_trials,
            tune.pruner_warmup_evaluations,
            maximise=sign(metric) > 0,
        )
        trials = {number: these.at(point) for number, point in points.items()}
        wave = Wave(header, resources, these.study, seeds[0], metric, rule, earlier, trials)
        return wave.train_ahead(splits)

    def show(trials: list[Finished]) -> None:
        if trials and (best := budget(trials, [], metric, len(splits[0]))["best"][-1]) is not None:
            view.log({f"search_best_{metric}": best}, trials[-1].number)

    with _helpers(header, config, splits, resources, server):
        trials, importances = search.search(
            these.name,
            config.space,
            config.starts,
            objective,
            config.tune,
            after_trial=show,
            prefetch=ahead,
            server=server,
        )
    best = search.finalists(trials, metric, config.tune.finalists)
    with error_context(config.where()):
        finalists = finals.play(best, metric, these.at, header, splits, seeds, resources)
    winner = finals.winner(finalists, metric, config.tune.margin)
    print(finals.verdict(winner, finalists, metric, config.tune.margin), flush=True)
    rows = len(splits[0])
    return Study(these.study, header, trials, finalists, winner, importances, metric, rows, these.at)


def of_default(header: RunHeader, config: Config, splits: Splits, default: Path) -> tuple[Study, Block]:
    """Return a search of one trial, the default, and run.json's remaining values, from its finished run.

    There is no other search where tables are sharded: they are trained by torchrun, one training at a time.

    Args:
        header: what `describe` returns.
        default: the folder of the run.

    Raises:
        PipelineError: it has no finished run of these rows and settings.
    """
    cure = f"train@{header.dataset}-{header.model}"
    again = f"train it first, by torchrun (docs/scale.md) or `dvc repro {cure}`"
    if not (default / "run.json").exists():
        raise PipelineError(f"{default} holds no finished run: {again}")
    run = read_json(require_file(default / "run.json", cure))
    ours = header.to_json()
    same = all(run.get(key) == ours.get(key) for key in ("params", "input", runs.TABLES))
    if not same or (REFIT in run) != (REFIT in ours):
        raise PipelineError(f"{default} was trained with other settings or on other rows: {again}")
    seeds, metric = run["seeds"], config.tune.metric
    values = [seed["best"][f"valid_{metric}"] for seed in seeds]
    trial = Finished(0, "COMPLETE", values[0], config.start, seeds[0]["curve"])
    winner = Finalist(0, config.train.seeds, values, [seed["curve"][-1]["epoch"] for seed in seeds])
    these = _Trials(header, config, splits)
    found = Study(these.study, header, [trial], [winner], winner, {}, metric, len(splits[0]), these.at)
    return found, {key: value for key, value in run.items() if key not in ours or key == REFIT}


def join(header: RunHeader, config: Config, splits: Splits, server: str) -> None:
    """Take trials of a search on a server until all are finished, whoever ends it.

    Args:
        header: what `describe` returns here: with other rows, settings or another environment it is
            another search.
    """
    _Trials(header, config, splits).take_part(server, show=True)


@contextmanager
def _helpers(
    header: RunHeader, config: Config, splits: Splits, resources: Resources, server: str | None
) -> Iterator[None]:
    """Let workers of this machine take trials from the server, too, for as long as the block lasts."""
    if server is None:
        yield
        return
    most = min(resources.count(splits, config.train.fit["epochs"]), config.tune.wave, config.tune.trials)
    config = portable(config)
    help_out = partial(_help, header, config, resources, server)
    with workers.prefetch(help_out, help_out, range(most), most):
        yield


def portable(config: Config) -> Config:
    """Return settings that another process can be sent: the axes of params.yaml have types made for them."""
    space = {axis: Dimension(**dimension.model_dump()) for axis, dimension in config.space.items()}
    return config.model_copy(update={"space": space})


def _help(
    header: RunHeader, config: Config, resources: Resources, server: str, numbers: Iterable[int]
) -> Iterator[int]:
    """Be such a worker; whatever ends it, the search goes on."""
    _Trials(header, config, resources.load()).take_part(server, show=False)
    yield from numbers
