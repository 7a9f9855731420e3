"""Time of a training and rows scored a second of trained models, all measured in turn on one machine.

Nothing of it is a result that DVC keeps, since seconds differ from run to run: models are compared within one
call, where they take turns, round by round, and the median of the rounds counts.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch

from pipeline.common.errors import PipelineError
from pipeline.data.batches import Batch, Split
from pipeline.evaluate.runs import Run, load_model
from pipeline.models import build
from pipeline.train.loop import fit
from pipeline.train.predict import predict
from pipeline.train.runs import DEFAULTS
from pipeline.train.start import effective_batch_size

STEPS = 20  # of training between two readings of the clock, at least
ROWS = 20_000  # trained between two readings, at least, and scored, at most
FEW = 32  # validation rows of each class: an evaluation ends each reading, and should cost nothing
MOST = 1_000_000  # among which they are looked for


@dataclass(frozen=True)
class Cost:
    """What one model costs.

    Attributes:
        run: the better variant of the model on validation rows.
        training: seconds of one training as it was: its epochs over the train rows with the evaluations
            between them, and what it learns before the first step; mean over the run's seeds.
        scoring: rows a second, encoded as ids and in memory.
    """

    run: Run
    training: float
    scoring: float


def measure(
    runs: Sequence[Run],
    train: Split,
    valid: Split,
    test: Split,
    *,
    rounds: int = 3,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Cost]:
    """Measure every run `rounds` times, in turn.

    A training is not repeated: its steps and evaluations are timed, and counted in run.json. Of a model that
    trains another one first, which `trainings` says, both are taken to cost the same.

    Args:
        train, valid, test: on the device that is measured. Time on a CPU is that of its processors,
            summed, so that other work on the machine matters little.

    Raises:
        PipelineError: validation rows of one class, or weights that are not there or do not fit.
    """
    found: list[list[tuple[float, float]]] = [[] for _ in runs]
    few = _few(valid)
    for number in range(rounds):
        for run, readings in zip(runs, found, strict=True):
            progress(f"round {number + 1} of {rounds}: {run.model} ({run.variant})")
            readings.append((_scoring(run, test), _training(run, train, few)))
    costs = []
    for run, readings in zip(runs, found, strict=True):
        scoring, training = (statistics.median(column) for column in zip(*readings, strict=True))
        costs.append(Cost(run, training + _evaluations(run) * len(valid) / scoring, scoring))
    return costs


def _scoring(run: Run, test: Split) -> float:
    """Return the rows scored a second by one network."""
    model = load_model(run, test.schema, run.best_seed["seed"]).to(test.device)
    rows = _first(test, ROWS)
    predict(model, _first(test, FEW))  # what is built at the first call
    before = clock(test.device)
    predict(model, rows)
    return len(rows) / (clock(test.device) - before)


class _EnoughError(Exception):
    """Ends a training that was timed long enough."""


def _training(run: Run, train: Split, valid: Split) -> float:
    """Return the seconds of a training as long as the run's without its evaluations, mean over its seeds."""
    settings = dict(run.info["params"]["train"])
    given = (settings.get(name, DEFAULTS[name]) for name in ("batch_size", "min_steps_per_epoch"))
    size = effective_batch_size(len(train), *given)
    readings_per_epoch = max(1, train.count(size) // max(STEPS, -(-ROWS // size)))
    settings |= {
        "evaluations_per_epoch": readings_per_epoch,
        "epochs": -(-3 // readings_per_epoch),
        "patience": 4,  # more than the readings: they are no reason to stop
    }
    network = build(run.info["architecture"], train.schema, run.info["params"]["model"], seed=1)
    readings: list[tuple[float, int]] = []

    def log(_: dict[str, float], step: int) -> None:
        readings.append((clock(train.device), step))
        if len(readings) == 3:  # see below
            raise _EnoughError

    before = clock(train.device)
    with suppress(_EnoughError):
        fit(network.to(train.device), train, valid, seed=1, log=log, **settings)
    # what happens once, such as `prepare`, is in the first part; the other two are steps alone
    (first, steps), _, (last, more) = readings
    step = (last - first) / (more - steps)
    once = max(0.0, first - before - steps * step)
    taken = statistics.fmean(result["curve"][-1]["step"] for result in run.seeds) * step
    trainings = int(run.info.get("trainings", 1))
    return taken * trainings if trainings > 1 else taken + once


def _evaluations(run: Run) -> float:
    """Return how often a training was evaluated, mean over its seeds."""
    return statistics.fmean(len(result["curve"]) for result in run.seeds)


def _first(split: Split, rows: int) -> Split:
    """Return at most the first `rows` rows, in memory."""
    some = next(split.batches(min(rows, len(split))))
    return Split(split.schema, some.ids, some.label, some.time)


def _few(split: Split) -> Split:
    """Return a few rows of both classes."""
    rows = _first(split, MOST)
    each = [torch.nonzero(rows.label == label)[:FEW, 0] for label in (0, 1)]
    if not all(map(len, each)):
        raise PipelineError(f"the first {len(rows):,} validation rows are all of one class")
    few = Batch(rows.ids, rows.label, rows.time).rows(torch.cat(each))
    return Split(split.schema, few.ids, few.label, few.time)


def clock(device: torch.device) -> float:
    """Return seconds: of all processors on a CPU, of the wall's clock after all work on another device."""
    if device.type == "cpu":
        return time.process_time()
    torch.accelerator.synchronize(device)
    return time.perf_counter()
