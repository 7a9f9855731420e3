"""From a run's files back to a model, and into MLflow in the form in which others use it."""

import copy
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.common.errors import PipelineError
from pipeline.common.files import read_json
from pipeline.models import build
from pipeline.schema import EMPTY, Schema
from pipeline.tracking import record
from pipeline.tracking.record import Block
from pipeline.tracking.store import Store
from pipeline.train.predict import is_timed

_MOMENT = 1_500_000_000  # seconds, of the example's rows: a Friday in July 2017
_NAMES = ("key", "dataset", "model", "variant")  # what a logged model says of itself


class ClickProbability(nn.Module):
    """What a trained model is used for: ids (B, S) -> click probability (B,), on the CPU, no dropout.

    Of a model that is `timed` the rows have one more column (B, S + 1): the time in seconds.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).cpu().requires_grad_(False)
        self.eval()

    def forward(self, rows: Int[Tensor, "B _"]) -> Float[Tensor, " B"]:
        """Return the click probability of each row."""
        inputs = (rows[:, :-1], rows[:, -1]) if is_timed(self.model) else (rows,)
        return torch.sigmoid(self.model(*inputs))


def load(folder: Path, run: dict[str, Any], schema: Schema, seed: int) -> nn.Module:
    """Rebuild the model of one seed from a run's folder, on the CPU.

    Args:
        folder: holds `seed-<seed>.safetensors`.
        run: the content of its run.json.
        schema: of the dataset it was trained on.

    Raises:
        PipelineError: the weights are missing, damaged, or belong to another schema.
    """
    path = folder / f"seed-{seed}.safetensors"
    try:
        model = build(run["architecture"], schema, run["params"]["model"], seed=seed)
        model.load_state_dict(load_file(path))
    except FileNotFoundError:
        raise PipelineError(f"{path} is missing; run `dvc repro` (or `dvc pull`) to have it again") from None
    except (PipelineError, SafetensorError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise PipelineError(
            f"{path}: the weights do not fit the model that run.json and the dataset's schema describe "
            f"({reason}); run `dvc repro` to train it again"
        ) from None
    return model


def read_schema(folder: Path) -> Schema:
    """Read the schema of a processed dataset.

    Raises:
        PipelineError: the dataset is not there.
    """
    path = folder / "schema.json"
    if not path.exists():
        raise PipelineError(f"{path} is missing; run `dvc repro` (or `dvc pull`) to have it again")
    return Schema.from_json(read_json(path))


def example(schema: Schema, *, timed: bool = False) -> NDArray[np.int64]:
    """Return two rows (2, S) of valid ids: all unseen, and the last of each field with bags of one value.

    A model that is `timed` has a time behind them.
    """
    unseen, last = [], []
    seen: set[int] = set()
    for index in schema.field_of_slot:
        first = schema.offsets[index]
        unseen.append(EMPTY if index in seen else first)
        last.append(EMPTY if index in seen else first + schema.fields[index].size - 1)
        seen.add(index)
    if timed:
        unseen.append(_MOMENT)
        last.append(_MOMENT)
    return np.array([unseen, last], dtype=np.int64)


def log_model(store: Store, experiment: str, parent: str, folder: Path, run: Block, processed: Path) -> None:
    """Log the model of the best seed on validation data, as a graph of torch.export's: no pickle."""
    import mlflow.pytorch
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus, Metric
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema as Columns
    from mlflow.types import TensorSpec

    schema, best = read_schema(processed), record.best_seed(run)
    seed = best["seed"]
    network = ClickProbability(load(folder, run, schema, seed))
    examples = example(schema, timed=is_timed(network.model))
    signature = ModelSignature(
        # no names: with one the served model would be given a dict, which MLflow does not take here
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
    # the shape checks of the tests would make the example's number of rows the only one
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
                # named here, since MLflow would load the model to find out
                pip_requirements=[f"{name}=={_release(name)}" for name in ("mlflow", "numpy", "torch")],
                metadata={**{name: run[name] for name in _NAMES}, "seed": seed},
            )
            store.client.log_model_artifacts(logged.model_id, path)
    except Exception as error:
        store.client.delete_logged_model(logged.model_id)
        raise PipelineError(f"{folder}: torch.export cannot take the model down: {error}") from error
    finally:
        jaxtyping.config.update("jaxtyping_disable", checks)
    store.client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
    store.client.log_outputs(parent, [LoggedModelOutput(logged.model_id, step=0)])
    store.log(parent, tags={"mlflow.pipeline.logged_model": logged.model_id, "pipeline.seed": seed})
    child = store.children(experiment, parent)[f"seed-{seed}"].info.run_id
    for name in record.summary(best["best"]):
        # the same point again, time included, so it is no second one; now the model's page has it too
        for point in store.client.get_metric_history(child, name):
            again = Metric(name, point.value, point.timestamp, point.step, model_id=logged.model_id)
            store.log(child, metrics=[again])


def _release(package: str) -> str:
    """Version of a package without the part that names a build, such as +cpu."""
    return version(package).partition("+")[0]
