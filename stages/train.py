"""Train one model with its default configuration, on every seed; under torchrun in several processes."""

from pathlib import Path

from pipeline import tracking
from pipeline.common.errors import error_context, exit_with_message
from pipeline.config import params
from pipeline.train import ranks, runs, workers
from pipeline.train.device import pick_device
from stages import arguments


def main() -> None:
    dataset, model = arguments(__doc__, "dataset", "model")
    file = params.load()
    config = file.config(dataset, model)
    processed, out = Path("data/processed", dataset), Path("data/runs", dataset, model, "default")
    seeds, limit = config.train.seeds, config.train.rows_in_memory
    processes = workers.processes(file.processes)
    resources = runs.Resources(processed, config.train.device, config.train.threads, limit, processes)
    options = {"model": config.model, "train": config.train.fit}
    with ranks.group(pick_device(config.train.device)) as device:
        splits = resources.load(device)
        extra = runs.execution_settings(splits, limit)
        header = ranks.on_rank_0(
            lambda: runs.RunHeader.of(
                "train", dataset, model, config.architecture, {**options, "seeds": seeds}, processed, **extra
            )
        )
        with error_context(config.where()):
            if ranks.rank():  # rank 0 reports and writes
                for seed in seeds:
                    checkpoint = header.seed_checkpoint(seed)
                    runs.train_once(header, splits, options, seed, checkpoint=checkpoint)
                return
            with tracking.live(header.to_json(), f"train-{model}") as view:
                result = runs.train_seeds(header, options, splits, seeds, view.child, out, resources)
        runs.finish(out, {**header.to_json(), **result})
        tracking.publish(out, model=False)  # evaluate logs the models of a dataset together


if __name__ == "__main__":
    exit_with_message(main)
