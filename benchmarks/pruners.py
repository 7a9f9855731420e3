"""How many trials of a search come to their end under several pruners, and whether the best are among them.

    python -m benchmarks.pruners movielens-100k fm --trials 20

Trains whole trials, none pruned, on the first seed, and lets each pruner judge their curves in their order.
The proposals are thus those of a search without pruning.
The dataset must be prepared (`dvc repro split@...`).
"""

from argparse import ArgumentParser
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import optuna
from optuna.pruners import BasePruner, MedianPruner, PercentilePruner
from optuna.trial import TrialState

from pipeline.config import params
from pipeline.config.metric import sign
from pipeline.train import runs
from pipeline.tune import search
from pipeline.tune.finished import QuantilePruner
from pipeline.tune.points import Point

PRUNERS: list[tuple[str, BasePruner, int]] = [  # name, pruner, number of the first evaluation
    ("median of the complete, from the 2nd", MedianPruner(n_startup_trials=4, n_warmup_steps=2), 1),
    ("median of the complete, from the 6th", MedianPruner(n_startup_trials=4, n_warmup_steps=5), 0),
    ("PercentilePruner(75), from the 6th", PercentilePruner(75, n_startup_trials=4, n_warmup_steps=5), 0),
    ("lower quartile of all, from the 6th", QuantilePruner(0.25, 4, 5), 1),
]


def whole_trials(dataset: str, model: str, trials: int) -> list[list[float]]:
    """Train the trials of a search to their ends; return the curve of each."""
    config = params.load().config(dataset, model)
    train = config.train
    processed = Path("data/processed", dataset)
    splits = runs.Resources(processed, train.device, train.threads, train.rows_in_memory).load()
    options = {"model": config.model}
    header = runs.RunHeader.of("tune", dataset, model, config.architecture, options, processed)
    key = f"valid_{config.tune.metric}"
    with TemporaryDirectory() as folder:

        def objective(number: int, point: Point, log: Any) -> float:
            arguments = dict(zip(("model", "train"), config.at(point), strict=True))
            checkpoint = Path(folder, str(number))
            seed = train.seeds[0]
            state = runs.train_once(header, splits, arguments, seed, checkpoint=checkpoint, log=log).state
            return state.curve[state.best][key]

        settings = config.tune.model_copy(update={"trials": trials, "pruner_quantile": 0.0})
        journal = Path(folder, "journal.jsonl")
        found, _ = search.search("pruners", config.space, config.starts, objective, settings, journal=journal)
    return [[sign(config.tune.metric) * row[key] for row in trial.curve] for trial in found if trial.curve]


def ends(curves: list[list[float]], pruner: BasePruner, first: int) -> list[tuple[bool, int]]:
    """Whether each trial comes to its end, and after how many evaluations it stops."""
    study = optuna.create_study(direction="maximize", pruner=pruner)
    result = []
    for curve in curves:
        trial, done, pruned = study.ask(), 0, False
        while done < len(curve) and not pruned:
            trial.report(curve[done], done + first)
            done, pruned = done + 1, trial.should_prune()
        state = TrialState.PRUNED if pruned else TrialState.COMPLETE
        study.tell(trial, None if pruned else max(curve), state=state)
        result.append((not pruned, done))
    return result


def main() -> None:
    """Train, judge and print."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    parser.add_argument("model")
    parser.add_argument("--trials", type=int, default=20)
    given = parser.parse_args()
    curves = whole_trials(given.dataset, given.model, given.trials)
    best = sorted(range(len(curves)), key=lambda i: -max(curves[i]))[:3]
    print(f"{given.model}: {len(curves)} whole trials, {sum(map(len, curves))} evaluations")
    for name, pruner, first in PRUNERS:
        found = ends(curves, pruner, first)
        ended, kept = sum(end for end, _ in found), sum(found[i][0] for i in best)
        share = sum(done for _, done in found) / sum(map(len, curves))
        print(f"{name:38s} {ended:3d} to their end, {share:4.0%} of evaluations, {kept} of the best three")


if __name__ == "__main__":
    main()
