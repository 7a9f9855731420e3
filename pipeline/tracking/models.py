"""Log the model of a run in MLflow: its package, as a pyfunc that takes raw rows and needs no checkout."""

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline.common.errors import PipelineError
from pipeline.config.settings import Evaluate
from pipeline.evaluate.runs import Run
from pipeline.scoring import load, pack
from pipeline.scoring.package import Package
from pipeline.tracking import record
from pipeline.tracking.guards import MlflowFailure
from pipeline.tracking.record import Block
from pipeline.tracking.store import Store
from pipeline.watch import reference

METADATA = ("key", "dataset", "model", "variant")  # of run.json, stored with the model
SCRIPT = Path(__file__).with_name("served.py")
CODE = Path(__file__).parents[1]
LEFT_OUT = (
    "config",
    "inspection",
    "tracking",
    "tune",
    "__main__.py",
    "__pycache__",
)  # rooms that scoring does without
REQUIREMENTS = (
    *("mlflow", "torch", "numpy", "pandas", "pyarrow", "safetensors", "scipy", "pydantic", "annotated-types"),
    *("jaxtyping", "psutil", "requests", "urllib3", "tqdm"),
)
PROGRESS_BAR = "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"
ROWS_PER_REQUEST = 100_000
BYTES_PER_REQUEST = 1 << 25  # of the body, in MLflow's server: so many rows of some 300 bytes


def log_model(store: Store, experiment: str, parent: str, folder: Path, run: Block, root: Path) -> None:
    """Log the model of the best seed on validation data.

    Args:
        folder: of the run.
        root: the project's folder.

    Raises:
        PipelineError: it cannot be packed or saved.
        MlflowFailure: MLflow refused it, as when another checkout has deleted it meanwhile.
    """
    from mlflow.entities import Metric

    package = reference.added(root, pack.of_run(root, Run(folder, run)), Evaluate().bins)
    seed = package.trained_on["seed"]
    model = log_package(
        store,
        experiment,
        parent,
        package,
        name=record.name(run),
        tags={"pipeline.key": run["key"], "seed": str(seed)},
        params={**record.params(run), "seed": str(seed)},
        metadata={**{name: run[name] for name in METADATA}, "seed": seed},
    )
    store.log(parent, tags={"mlflow.pipeline.logged_model": model, "pipeline.seed": seed})
    child = store.children(experiment, parent)[f"seed-{seed}"].info.run_id
    best = next(each for each in run["seeds"] if each["seed"] == seed)
    for name in record.shown(record.summary(best["best"])):
        # the same point again, time included, so it is not duplicated; now the model's page has it too
        for point in store.client.get_metric_history(child, name):
            again = Metric(name, point.value, point.timestamp, point.step, model_id=model)
            store.log(child, metrics=[again])


def log_package(
    store: Store,
    experiment: str,
    run: str,
    package: Package,
    *,
    name: str,
    tags: dict[str, str],
    params: dict[str, str],
    metadata: Block,
) -> str:
    """Log a package as a model of a run; return the model's id.

    Args:
        metadata: stored with the model.

    Raises:
        PipelineError: it cannot be saved.
        MlflowFailure: MLflow refused it.
    """
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus
    from mlflow.exceptions import MlflowException
    from mlflow.models import Model as Description

    logged = store.client.create_logged_model(
        experiment, name=name, source_run_id=run, tags=tags, params=params, model_type="click probability"
    )
    description = Description(
        artifact_path=logged.artifact_location,
        run_id=run,
        model_uuid=logged.model_id,
        model_id=logged.model_id,
    )
    try:
        with tempfile.TemporaryDirectory() as scratch:
            package.write(Path(scratch, "package"))
            save(
                Path(scratch, "package"), Path(scratch, "model"), mlflow_model=description, metadata=metadata
            )
            store.client.log_model_artifacts(logged.model_id, f"{scratch}/model")
    except Exception as error:
        store.client.delete_logged_model(logged.model_id)
        kind = MlflowFailure if isinstance(error, MlflowException) else PipelineError
        raise kind(f"{metadata['dataset']}: the model {name} cannot be saved: {error}") from error
    store.client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
    store.client.log_outputs(run, [LoggedModelOutput(logged.model_id, step=0)])
    return str(logged.model_id)


def save(package: Path, folder: Path, **more: object) -> None:
    """Write a package as a folder that MLflow loads, serves and builds images from, without this checkout.

    Args:
        more: arguments of `mlflow.pyfunc.save_model`.
    """
    import mlflow.pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema
    from mlflow.types.schema import AnyType

    model = load(package)
    # declared by hand: what MLflow infers from an example refuses int32, or integers with a missing value
    any_type: Any = AnyType
    inputs: list[Any] = [
        ColSpec(any_type(), name, required=name not in model.optional_columns) for name in model.columns
    ]
    outputs: list[Any] = [ColSpec("float", name) for name in ("probability", "raw_probability")]
    with tempfile.TemporaryDirectory() as scratch, _quiet():
        code = shutil.copytree(CODE, Path(scratch, CODE.name), ignore=shutil.ignore_patterns(*LEFT_OUT))
        mlflow.pyfunc.save_model(
            folder,
            python_model=str(SCRIPT),
            artifacts={"package": str(package)},
            code_paths=[str(code)],
            signature=ModelSignature(Schema(inputs), Schema(outputs)),
            input_example=model.example(),
            # listed here, since MLflow would load the model to find them
            pip_requirements=[f"{name}=={_release(name)}" for name in REQUIREMENTS],
            model_config={"rows": ROWS_PER_REQUEST, "bytes": BYTES_PER_REQUEST},
            **more,
        )


def registered_package(root: Path, name: str) -> Path:
    """Return the folder of a registered model's package.

    Args:
        name: and alias or version, as in `ctr-synthetic@champion` or `ctr-synthetic/1`.

    Raises:
        PipelineError: there is no such model.
    """
    from mlflow.exceptions import MlflowException

    from pipeline.tracking.store import configure

    try:
        return package_of(configure(root), f"models:/{name}")
    except MlflowException as error:
        raise PipelineError(f"--registered {name}: {error}") from None


def package_of(store: Store, source: str) -> Path:
    """Return the folder of the package of a model in MLflow.

    Raises:
        MlflowException: there is no such model.
    """
    import mlflow.artifacts

    with _quiet():
        folder = mlflow.artifacts.download_artifacts(source, tracking_uri=store.client.tracking_uri)
    return Path(folder, "artifacts", "package")


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out a progress bar, and MLflow's remarks on type hints, which a signature makes needless."""
    logger = logging.getLogger("mlflow")
    level, shown = logger.level, os.environ.get(PROGRESS_BAR)
    logger.setLevel(logging.ERROR)
    os.environ[PROGRESS_BAR] = "false"
    try:
        yield
    finally:
        logger.setLevel(level)
        os.environ.pop(PROGRESS_BAR)
        os.environ.update({} if shown is None else {PROGRESS_BAR: shown})


def _release(package: str) -> str:
    """Version of a package without a build suffix such as +cpu."""
    return version(package).partition("+")[0]
