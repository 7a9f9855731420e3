"""What may go wrong between the files and MLflow, in words."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.common.errors import PipelineError
from pipeline.common.files import read_json
from pipeline.tracking.record import Block
from pipeline.tracking.store import enabled


def warn_only(bring: Callable[[Path], bool], folder: Path) -> bool:
    """Bring a folder, or tell what went wrong: the stage whose results they are goes on."""
    try:
        return enabled() and bring(folder)
    except PipelineError as error:
        print(
            f"warning: not all is in MLflow: {error}\nThe results in data/ are complete; "
            "`python -m pipeline sync` shows the rest.",
            file=sys.stderr,
        )
        return False


@contextmanager
def mlflow_errors(folder: Path) -> Iterator[None]:
    """Say of which folder it is that MLflow refuses something."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        raise PipelineError(f"{folder}: MLflow refuses it: {error}") from error


def read(path: Path, *keys: str) -> Block:
    """Read one of the files this is a view of.

    Raises:
        PipelineError: it is missing, no JSON, or lacks a key.
    """
    try:
        values: Block = read_json(path)
        for key in keys:
            values[key]
    except FileNotFoundError:
        raise PipelineError(f"{path} is missing; run `dvc repro` (or `dvc pull`) to have it again") from None
    except (ValueError, KeyError, TypeError) as error:
        raise PipelineError(f"{path} is damaged ({error!r}); delete it and run `dvc repro`") from None
    return values
