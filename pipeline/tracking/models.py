"""Export the model of a run and log it in MLflow."""

import copy
import tempfile
from importlib.metadata import version
from pathlib import Path

import jaxtyping
import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.common.errors import PipelineError
from pipeline.data.storage import read_schema
from pipeline.evaluate.runs import Run, load_model
from pipeline.schema import EMPTY, Schema
from pipeline.tracking import record
from pipeline.tracking.record import Block
from pipeline.tracking.store import Store
from pipeline.train.predict import is_timed, output

EXAMPLE_TIME_SECONDS = 1_500_000_000  # a Friday in July 2017
METADATA = ("key", "dataset", "model", "variant")  # of run.json, stored with the model


class ClickProbability(nn.Module):
    """A trained model for inference: ids (B, S) -> click probability (B,), on the CPU, without dropout.

    For a `timed` model the rows have one more column (B, S + 1): the time in seconds.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).cpu().requires_grad_(False)
        self.eval()

    def forward(self, rows: Int[Tensor, "B _"]) -> Float[Tensor, " B"]:
        """Return the click probability of each row."""
        inputs = (rows[:, :-1], rows[:, -1]) if is_timed(self.model) else (rows,)
        return torch.sigmoid(output(self.model, *inputs))


def example(schema: Schema, *, timed: bool = False) -> NDArray[np.int64]:
    """Return two rows (2, S) of valid ids: all unseen, and the last of each field with bags of one value.

    For a `timed` model a column of times follows.
    """
    unseen, last = [], []
    seen: set[int] = set()
    for index in schema.field_of_slot:
        first = schema.offsets[index]
        unseen.append(EMPTY if index in seen else first)
        last.append(EMPTY if index in seen else first + schema.fields[index].size - 1)
        seen.add(index)
    if timed:
        unseen.append(EXAMPLE_TIME_SECONDS)
        last.append(EXAMPLE_TIME_SECONDS)
    return np.array([unseen, last], dtype=np.int64)


def log_model(store: Store, experiment: str, parent: str, folder: Path, run: Block, processed: Path) -> None:
    """Log the model of the best seed on validation data as a torch.export graph, not a pickle."""
    import mlflow.pytorch
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus, Metric
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema as Columns
    from mlflow.types import TensorSpec

    schema = read_schema(processed)
    best = record.best_seed(run)
    seed = best["seed"]
    network = ClickProbability(load_model(Run(folder, run), schema, seed))
    examples = example(schema, timed=is_timed(network.model))
    signature = ModelSignature(
        # unnamed: with a name MLflow would pass the served model a dict, which it does not accept here
        inputs=Columns([TensorSpec(np.dtype(np.int64), (-1, examples.shape[1]))]),
        outputs=Columns([TensorSpec(np.dtype(np.float32), (-1,))]),
    )
    logged = store.client.create_logged_model(
        experiment,
        name=f"{run['model']}-{run['variant']}",
        source_run_id=parent,
        tags={"pipeline.key": run["key"], "seed": str(seed)},
        params={**record.params(run), "seed": str(seed)},
        model_type="click probability",
    )
    model = Model(
        artifact_path=logged.artifact_location,
        run_id=parent,
        model_uuid=logged.model_id,
        model_id=logged.model_id,
    )
    # the tests' shape checks would fix the number of rows to that of the example
    checks = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            path = f"{scratch}/model"
            mlflow.pytorch.save_model(
                network,
                path,
                mlflow_model=model,
                serialization_format="pt2",
                input_example=examples,
                signature=signature,
                # listed here, since MLflow would load the model to find them
                pip_requirements=[f"{name}=={_release(name)}" for name in ("mlflow", "numpy", "torch")],
                metadata={**{name: run[name] for name in METADATA}, "seed": seed},
            )
            store.client.log_model_artifacts(logged.model_id, path)
    except Exception as error:
        store.client.delete_logged_model(logged.model_id)
        raise PipelineError(f"{folder}: torch.export failed: {error}") from error
    finally:
        jaxtyping.config.update("jaxtyping_disable", checks)
    store.client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
    store.client.log_outputs(parent, [LoggedModelOutput(logged.model_id, step=0)])
    store.log(parent, tags={"mlflow.pipeline.logged_model": logged.model_id, "pipeline.seed": seed})
    child = store.children(experiment, parent)[f"seed-{seed}"].info.run_id
    for name in record.summary(best["best"]):
        # the same point again, time included, so it is not duplicated; now the model's page has it too
        for point in store.client.get_metric_history(child, name):
            again = Metric(name, point.value, point.timestamp, point.step, model_id=logged.model_id)
            store.log(child, metrics=[again])


def _release(package: str) -> str:
    """Version of a package without a build suffix such as +cpu."""
    return version(package).partition("+")[0]
