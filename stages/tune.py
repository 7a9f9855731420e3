"""Search the hyper-parameters of one model, then train the best trials and the default on every seed."""

import shutil
from pathlib import Path

from pipeline import tracking
from pipeline.common import engine
from pipeline.common.errors import error_context, exit_with_message
from pipeline.common.files import writing
from pipeline.config import params
from pipeline.train import runs
from pipeline.tune import shared, study
from stages import alone, arguments


def main() -> None:
    dataset, model = arguments(__doc__, "dataset", "model")
    alone()
    file = params.load()
    config = file.config(dataset, model)
    processed, out = Path("data/processed", dataset), Path("data/runs", dataset, model, "tuned")
    seeds, limit = config.train.seeds, config.train.rows_in_memory
    processes = engine.processes(file.processes)
    resources = runs.Resources(processed, config.train.device, config.train.threads, limit, processes)
    splits = resources.load()
    header = study.describe(dataset, model, config, splits, processed)
    if config.train.sharded is not None:
        default = out.with_name("default")
        found, result = study.of_default(header, config, splits, default)
        print("tables are sharded: there is no search, and its one trial is the default")
        for path in default.glob("*.safetensors"):
            with path.open("rb") as source, writing(out / path.name) as copied:
                shutil.copyfileobj(source, copied)
    else:
        with tracking.live(header.to_json(), splits[0]) as view:
            found = study.run(header, config, splits, resources, view, shared.server_of(file.studies))
            with error_context(config.where(found.point)):
                result = runs.train_seeds(header, found.options, splits, seeds, view.child, out, resources)
    found.write(out)
    params_of_run = {**found.options, "seeds": seeds}
    runs.finish(out, {**header.to_json(), "params": params_of_run, **result, "search": found.history()})
    found.clean()
    tracking.publish(out, model=False)  # evaluate logs the models of a dataset together


if __name__ == "__main__":
    exit_with_message(main, kept="finished trials and the last checkpoint are kept")
