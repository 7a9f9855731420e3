"""Train one model with its default configuration, on every seed."""

from argparse import ArgumentParser
from pathlib import Path

from pipeline import params, runs, tracking, workers
from pipeline.errors import exit_with_message, placed


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--model", required=True)
    args = parser.parse_args()

    file = params.load()
    config = file.config(args.dataset, args.model)
    processed = Path("data/processed", args.dataset)
    out = Path("data/runs", args.dataset, args.model, "default")
    processes = workers.processes(file.processes)
    setup = runs.Setup(processed, config.train.device, config.train.threads, processes)
    parts = setup.load()

    block = {"model": config.model, "train": config.train.fit}
    whole = {**block, "seeds": config.train.seeds}
    head = runs.header("train", args.dataset, args.model, config.architecture, whole, processed)
    with tracking.live(head, f"train-{args.model}") as run, placed(config.where()):
        result = runs.train_seeds(head, block, parts, config.train.seeds, run.child, out, setup)
    runs.finish(out, {**head, **result})
    tracking.publish(out, model=False)  # evaluate logs all models of a dataset at once


if __name__ == "__main__":
    exit_with_message(main)
