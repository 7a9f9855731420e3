"""Train one model with its default configuration, on every seed; under torchrun in several processes."""

from argparse import ArgumentParser
from pathlib import Path

from pipeline import parallel, params, runs, tracking
from pipeline.data import Split
from pipeline.errors import exit_with_message, placed
from pipeline.schema import PARTS
from pipeline.training import pick_device, reproducible


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--model", required=True)
    args = parser.parse_args()

    config = params.load().config(args.dataset, args.model)
    processed = Path("data/processed", args.dataset)
    out = Path("data/runs", args.dataset, args.model, "default")
    seeds, limit = config.train.seeds, config.train.rows_in_memory
    reproducible(config.train.threads)
    with parallel.group(pick_device(config.train.device)) as device:
        train, valid = (Split.load(processed, part, device, rows_in_memory=limit) for part in PARTS[:2])
        block = {"model": config.model, "train": config.train.fit}
        whole, more = {**block, "seeds": seeds}, runs.special(train, valid, limit)
        head = parallel.first(
            lambda: runs.header(
                "train", args.dataset, args.model, config.architecture, whole, processed, **more
            )
        )
        if parallel.rank():  # rank 0 tells and writes
            with placed(config.where()):
                for seed in seeds:
                    checkpoint = runs.checkpoint(head["key"], f"seed-{seed}")
                    runs.train_once(config.architecture, (train, valid), block, seed, checkpoint=checkpoint)
            return
        with tracking.live(head, f"train-{args.model}") as run, placed(config.where()):
            result = runs.train_seeds(head, block, (train, valid), seeds, run.child, out)
        runs.finish(out, {**head, **result})
        tracking.publish(out, model=False)  # evaluate logs all models of a dataset at once


if __name__ == "__main__":
    exit_with_message(main)
