"""Train one model with its default configuration, on every seed; under torchrun in several processes."""

from pathlib import Path

from pipeline import tracking
from pipeline.common import engine
from pipeline.common.errors import error_context, exit_with_message, is_main_process
from pipeline.config import params
from pipeline.train import ranks, runs
from pipeline.train.device import pick_device
from pipeline.train.feasibility import warn
from stages import arguments


def main() -> None:
    dataset, model = arguments(__doc__, "dataset", "model")
    file = params.load()
    config = file.config(dataset, model)
    processed, out = Path("data/processed", dataset), Path("data/runs", dataset, model, "default")
    seeds, limit = config.train.seeds, config.train.rows_in_memory
    processes = engine.processes(file.processes)
    resources = runs.Resources(processed, config.train.device, config.train.threads, limit, processes)
    options = {"model": config.model, "train": config.train.fit}
    tables = config.train.sharded
    with ranks.group(pick_device(config.train.device), always=tables is not None) as device:
        splits = resources.load(device)
        if is_main_process() and not any(out.parents[1].glob("*/*/run.json")):  # the dataset's first training
            configs = {name: file.config(dataset, name) for name in file.models}
            models = {name: (each.architecture, each.model) for name, each in configs.items()}
            warn(dataset, splits[0].schema, models, config.train.fit["batch_size"])
        extra = runs.execution_settings(splits, limit, refit=config.train.refit, tables=tables)
        header = ranks.on_rank_0(
            lambda: runs.RunHeader.of(
                "train", dataset, model, config.architecture, {**options, "seeds": seeds}, processed, **extra
            )
        )
        if ranks.rank():  # rank 0 reports and writes
            with error_context(config.where()):
                runs.follow_rank_0(header, options, splits, seeds, resources)
            return
        # an error of MLflow is no fault of params.yaml
        with tracking.live(header.to_json(), splits[0]) as view, error_context(config.where()):
            result = runs.train_seeds(header, options, splits, seeds, view.child, out, resources)
        runs.finish(out, {**header.to_json(), **result})
        tracking.publish(out, model=False)  # evaluate logs the models of a dataset together


if __name__ == "__main__":
    exit_with_message(main, kept="finished trainings and the last checkpoint are kept")
