"""Errors between the files and MLflow, and what becomes of them."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.common.errors import PipelineError
from pipeline.common.files import read_json
from pipeline.tracking.record import Block
from pipeline.tracking.store import enabled


def warn_only(update: Callable[[Path], bool], folder: Path) -> bool:
    """Update MLflow from a folder; an error is only a warning, so that the stage goes on."""
    try:
        return enabled() and update(folder)
    except PipelineError as error:
        print(
            f"warning: MLflow is incomplete: {error}\nThe results in data/ are complete; "
            "`python -m pipeline sync` publishes the rest.",
            file=sys.stderr,
        )
        return False


@contextmanager
def mlflow_errors(folder: Path) -> Iterator[None]:
    """Name the folder in errors of MLflow."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        raise PipelineError(f"{folder}: MLflow failed: {error}") from error


def read(path: Path, *keys: str) -> Block:
    """Read a JSON file of a run or a report.

    Raises:
        PipelineError: it is missing, is not JSON, or lacks a key.
    """
    try:
        values: Block = read_json(path)
        for key in keys:
            values[key]
    except FileNotFoundError:
        raise PipelineError(f"{path} is missing; recreate it with `dvc repro` (or `dvc pull`)") from None
    except (ValueError, KeyError, TypeError) as error:
        raise PipelineError(f"{path} is damaged ({error!r}); delete it and run `dvc repro`") from None
    return values
