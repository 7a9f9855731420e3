"""Errors between the files and MLflow, and what becomes of them: the files are complete without it."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pipeline.common.errors import PipelineError, explain
from pipeline.common.files import read_json
from pipeline.common.text import without_secrets
from pipeline.tracking.database import Unavailable
from pipeline.tracking.record import Block

T = TypeVar("T")
REASON_LETTERS = 300
_TEMPORARY = (
    "INTERNAL_ERROR",
    "TEMPORARILY_UNAVAILABLE",
)  # codes of a server or database that does not answer
_warned = set[str]()  # MLflow's failures that this process has told


class Guard:
    """Shows things in MLflow as long as it answers: its first failure costs a warning and ends it."""

    def __init__(self) -> None:
        self.broken = False

    def do(self, action: Callable[[], T]) -> T | None:
        """Return what `action` returns; None if MLflow fails, or has failed before."""
        if self.broken:
            return None
        try:
            with mlflow_errors():
                return action()
        except (Unavailable, MlflowFailure) as error:
            self.broken = True
            warn(error)
            return None


class MlflowFailure(PipelineError):
    """MLflow refused something."""


def warn(error: PipelineError) -> None:
    """Print a warning: one line, and one in a process for a store that does not answer."""
    if isinstance(error, Unavailable):
        if "unavailable" in _warned:
            return
        _warned.add("unavailable")
    print(
        f"warning: MLflow is incomplete: {error}; the results in data/ are not, and "
        "`python -m pipeline sync` shows the rest later",
        file=sys.stderr,
    )


def warn_only(update: Callable[[], bool]) -> bool:
    """Update MLflow; an error is only a warning, so that the stage goes on."""
    try:
        return update()
    except PipelineError as error:
        warn(error)
        return False


@contextmanager
def mlflow_errors(folder: Path | None = None) -> Iterator[None]:
    """Turn errors of MLflow, its database and its folders into ours, and name the folder that was published.

    Raises:
        Unavailable: the store does not answer, is locked, or may not be written.
        MlflowFailure: MLflow refused something else.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    where = f"{folder}: " if folder else ""
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it prints pages of traceback
    try:
        yield
    except Unavailable:
        raise
    except MlflowException as error:
        kind = Unavailable if error.error_code in _TEMPORARY else MlflowFailure
        raise kind(f"{where}MLflow failed: {explain(error) or reason(error)}") from error
    except (OSError, SQLAlchemyError) as error:
        raise Unavailable(f"{where}MLflow failed: {explain(error) or reason(error)}") from error


def reason(error: BaseException) -> str:
    """Return the first line of an error, without secrets: MLflow's go on for pages."""
    first = next(iter(str(error).splitlines()), type(error).__name__)
    return without_secrets(first)[:REASON_LETTERS]


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
