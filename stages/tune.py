"""Search the hyper-parameters of one model, then train the best trials and the default on every seed."""

import shutil
from pathlib import Path

from pipeline import tracking
from pipeline.common.errors import error_context, exit_with_message
from pipeline.common.files import digest, write_json
from pipeline.config import params
from pipeline.train import cache, runs, workers
from pipeline.train.loop import LogFn
from pipeline.tune import finals, search, tables
from pipeline.tune.budget import budget
from pipeline.tune.trial import train_trial
from stages import alone, arguments


def main() -> None:
    dataset, model = arguments(__doc__, "dataset", "model")
    alone()
    file = params.load()
    config = file.config(dataset, model)
    processed, out = Path("data/processed", dataset), Path("data/runs", dataset, model, "tuned")
    seeds, limit = config.train.seeds, config.train.rows_in_memory
    processes = workers.processes(file.processes)
    resources = runs.Resources(processed, config.train.device, config.train.threads, limit, processes)
    splits = resources.load()
    metric = config.tune.metric

    space = {axis: dimension.model_dump(exclude_defaults=True) for axis, dimension in config.space.items()}
    settings = {**config.tune.model_dump(), "space": space}
    defaults = {"model": config.model, "train": config.train.fit, "seeds": seeds}
    extra = {"tune": settings, **runs.execution_settings(splits, limit)}
    header = runs.RunHeader.of("tune", dataset, model, config.architecture, defaults, processed, **extra)
    # a study continues if only its budget or its finals grow; a change of anything else starts a new one
    named = {**header.to_json(), "key": None, "tune": {**settings, "trials": None, "finalists": None}}
    study = f"{dataset}-{model}-{digest(named)}"
    # ... and so does an environment that computes other bits: trials from there do not count here
    fingerprint = digest(cache.environment(config.architecture, splits[0].device))

    def at(point: runs.Block) -> runs.Block:
        return dict(zip(("model", "train"), config.at(point), strict=True))

    with tracking.live(header.to_json(), f"tune-{model}") as view:

        def objective(number: int, point: runs.Block, report: LogFn) -> float:
            options, name = at(point), f"trial-{number:03d}"
            child = view.child(name, f"{header.key}/{name}", options)
            with error_context(config.where(point)), child as log:
                checkpoint = runs.CHECKPOINTS / study / name
                kept = train_trial(
                    header,
                    splits,
                    options,
                    seeds[0],
                    logs=(log, report),
                    checkpoint=checkpoint,
                    progress=f"{model} {name}",
                )
            return kept[f"valid_{metric}"]

        def show(trials: list[search.Finished]) -> None:
            if (best := budget(trials, [], metric, len(splits[0]))["best"][-1]) is not None:
                view.log({f"search_best_{metric}": best}, trials[-1].number)

        trials, importances = search.search(
            f"{dataset}-{model}-{digest([study, fingerprint])[:8]}",
            config.space,
            config.starts,
            objective,
            config.tune,
            after_trial=show,
        )
        best = search.finalists(trials, metric, config.tune.finalists)
        with error_context(config.where()):
            finalists = finals.play(best, metric, at, header, splits, seeds, resources)
        winner = finals.winner(finalists, metric)
        print(finals.verdict(winner, finalists, metric), flush=True)
        tuned = at(trials[winner.trial].point)
        with error_context(config.where(trials[winner.trial].point)):
            result = runs.train_seeds(header, tuned, splits, seeds, view.child, out, resources)

    write_json(out / "best.json", tables.best(winner, metric, tuned))
    tables.write_csv(out / "trials.csv", trials, finalists)
    cost = budget(trials, finalists, metric, len(splits[0]))
    found = tables.history(study, metric, winner, trials, finalists, importances, cost, at)
    runs.finish(out, {**header.to_json(), "params": {**tuned, "seeds": seeds}, **result, "search": found})
    shutil.rmtree(runs.CHECKPOINTS / study, ignore_errors=True)
    tracking.publish(out, model=False)  # evaluate logs the models of a dataset together


if __name__ == "__main__":
    exit_with_message(main)
