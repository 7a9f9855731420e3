"""One trial of a search: a training on the first seed that the pruner may stop; and trials trained ahead."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pipeline.common.errors import Diverged
from pipeline.train import cache, workers
from pipeline.train.course import LogFn
from pipeline.train.runs import CHECKPOINTS, Block, Resources, RunHeader, Splits, train_once
from pipeline.train.workers import Wait
from pipeline.tune.pruning import Rule, Values


def train_trial(
    header: RunHeader,
    splits: Splits,
    arguments: Block,
    seed: int,
    *,
    logs: Sequence[LogFn],
    checkpoint: Path,
    first: int,
    progress: str | None,
) -> dict[str, float]:
    """Train one trial and report every evaluation to all `logs`; checkpoints of earlier waves are removed.

    Args:
        checkpoint: what `checkpoint_of` returns.
        first: the number of the first trial of its wave.

    Returns:
        the evaluation whose weights the training kept.
    """
    for old in checkpoint.parent.glob("trial-*.pt"):
        if int(old.name.split("-")[1]) < first:
            old.unlink(missing_ok=True)  # several processes may find it

    def log(row: dict[str, float], step: int) -> None:
        for each in logs:
            each(row, step)

    state = train_once(
        header, splits, arguments, seed, log=log, checkpoint=checkpoint, progress=progress
    ).state
    return state.curve[state.best]


def checkpoint_of(study: str, number: int) -> Path:
    """Return the start of the name of a trial's checkpoint; see `train_once`."""
    return CHECKPOINTS / study / f"trial-{number:03d}"


@dataclass(frozen=True)
class Wave:
    """Trials that may be trained ahead of a search, which finds them in the cache, or at their checkpoints.

    Attributes:
        header, resources: of the search.
        study: its name.
        seed: of all its trials.
        metric: the pruner's.
        rule: by which the pruner will stop them.
        earlier: the values of the trials of the waves before.
        trials: {"model": ..., "train": ...} by number.
    """

    header: RunHeader
    resources: Resources
    study: str
    seed: int
    metric: str
    rule: Rule
    earlier: Sequence[Values]
    trials: Mapping[int, Block]

    def train_ahead(self, splits: Splits) -> AbstractContextManager[Wait]:
        """Start workers, if there should be any; see `workers.prefetch`."""
        device = splits[0].device
        missing = [
            number
            for number, options in self.trials.items()
            if not cache.contains(self.header.cache_key(options, self.seed, device))
        ]
        epochs = min((options["train"]["epochs"] for options in self.trials.values()), default=0)
        count = min(self.resources.count(splits, epochs), len(missing))
        return workers.prefetch(self.train, partial(self.train, splits=splits), missing, count)

    def train(self, numbers: Iterable[int], splits: Splits | None = None) -> Iterator[int]:
        """Train trials, of a worker on rows that it loads; yield each when done."""
        splits, first = splits or self.resources.load(), min(self.trials)
        for number in numbers:
            values: dict[int, float] = {}

            def log(row: dict[str, float], _step: int, values: dict[int, float] = values) -> None:
                values[len(values) + 1] = row[f"valid_{self.metric}"]
                if self.rule.stops(values, self.earlier):
                    raise _Stopped

            # the search meets a training that diverges, too, and says so
            with suppress(_Stopped, Diverged):
                train_trial(
                    self.header,
                    splits,
                    self.trials[number],
                    self.seed,
                    logs=[log],
                    checkpoint=checkpoint_of(self.study, number),
                    first=first,
                    progress=None,
                )
            yield number


class _Stopped(Exception):
    """The search will prune this trial."""
