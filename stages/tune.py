"""Search the hyper-parameters of one model, then train the winner on every seed."""

import shutil
from argparse import ArgumentParser
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from pipeline import tracking
from pipeline.common.errors import error_context, exit_with_message
from pipeline.common.files import digest, replacing, write_json
from pipeline.config import params
from pipeline.train import cache, runs, workers
from pipeline.train.loop import LogFn
from pipeline.tune import search
from stages import alone


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--model", required=True)
    args = parser.parse_args()
    alone()

    file = params.load()
    config = file.config(args.dataset, args.model)
    processed = Path("data/processed", args.dataset)
    out = Path("data/runs", args.dataset, args.model, "tuned")
    seeds, metric = config.train.seeds, config.tune.metric
    processes, limit = workers.processes(file.processes), config.train.rows_in_memory
    setup = runs.Resources(processed, config.train.device, config.train.threads, limit, processes)
    parts = setup.load()

    space = {axis: dimension.model_dump(exclude_defaults=True) for axis, dimension in config.space.items()}
    plan = {**config.tune.model_dump(), "space": space}
    block = {"model": config.model, "train": config.train.fit}
    whole = {**block, "seeds": seeds}
    more = {"tune": plan, **runs.execution_settings(parts, limit)}
    head = runs.header("tune", args.dataset, args.model, config.architecture, whole, processed, **more)
    # a study goes on when only its budget grows; a change of anything else starts a new one
    study = f"{args.dataset}-{args.model}-{digest({**head, 'key': None, 'tune': {**plan, 'trials': None}})}"
    # ... and so does other code, or a machine that computes other bits: what it has tried says nothing here
    ground = digest(cache.environment(config.architecture, parts[0].device))
    with tracking.live(head, f"tune-{args.model}") as run:

        def objective(number: int, point: runs.Block, report: LogFn) -> None:
            model, fit = config.at(point)
            name = f"trial-{number:03d}"
            child = run.child(name, f"{head['key']}/{name}", {"model": model, "train": fit})
            with error_context(config.where(point)), child as log:
                runs.train_trial(
                    head,
                    parts,
                    {"model": model, "train": fit},
                    seeds[0],
                    logs=(log, report),
                    checkpoint=runs.CHECKPOINTS / study / name,
                    progress=f"{args.model} {name}",
                )

        trials, importances = search.search(
            f"{study}-{ground}", config.space, config.start, objective, config.tune
        )
        winner = search.best(trials, metric)
        model, fit = config.at(winner.point)
        tuned = {"model": model, "train": fit}
        with error_context(config.where(winner.point)):
            result = runs.train_seeds(head, tuned, parts, seeds, run.child, out, setup)

    rows = []
    for trial in trials:
        model, fit = config.at(trial.point)
        rows.append({**asdict(trial), "params": {"model": model, "train": fit}})
    best = {"trial": winner.number, f"valid_{metric}": winner.value, **tuned}
    write_json(out / "best.json", best)
    with replacing(out / "trials.csv") as path:
        flat = [{"number": t.number, "state": t.state, "value": t.value, **t.point} for t in trials]
        pd.DataFrame(flat).to_csv(path, index=False, lineterminator="\n")
    found = {
        "study": study,
        "metric": metric,
        "best": winner.number,
        "trials": rows,
        "importances": importances,
    }
    runs.finish(out, {**head, "params": {**tuned, "seeds": seeds}, **result, "search": found})
    shutil.rmtree(runs.CHECKPOINTS / study, ignore_errors=True)
    tracking.publish(out, model=False)  # evaluate logs all models of a dataset at once


if __name__ == "__main__":
    exit_with_message(main)
