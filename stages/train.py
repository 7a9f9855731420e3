"""Train one model with its default configuration, on every seed; under torchrun in several processes."""

from argparse import ArgumentParser
from pathlib import Path

from pipeline import tracking
from pipeline.common.errors import error_context, exit_with_message
from pipeline.config import params
from pipeline.train import ranks, runs, workers
from pipeline.train.device import pick_device


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--model", required=True)
    args = parser.parse_args()

    file = params.load()
    config = file.config(args.dataset, args.model)
    processed = Path("data/processed", args.dataset)
    out = Path("data/runs", args.dataset, args.model, "default")
    seeds, limit = config.train.seeds, config.train.rows_in_memory
    processes = workers.processes(file.processes)
    setup = runs.Resources(processed, config.train.device, config.train.threads, limit, processes)
    with ranks.group(pick_device(config.train.device)) as device:
        parts = setup.load(device)
        block = {"model": config.model, "train": config.train.fit}
        whole, more = {**block, "seeds": seeds}, runs.execution_settings(parts, limit)
        head = ranks.on_rank_0(
            lambda: runs.header(
                "train", args.dataset, args.model, config.architecture, whole, processed, **more
            )
        )
        with error_context(config.where()):
            if ranks.rank():  # rank 0 tells and writes
                for seed in seeds:
                    runs.train_once(head, parts, block, seed, checkpoint=runs.seed_checkpoint(head, seed))
                return
            with tracking.live(head, f"train-{args.model}") as run:
                result = runs.train_seeds(head, block, parts, seeds, run.child, out, setup)
        runs.finish(out, {**head, **result})
        tracking.publish(out, model=False)  # evaluate logs all models of a dataset at once


if __name__ == "__main__":
    exit_with_message(main)
