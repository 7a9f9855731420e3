"""One script per stage: read its params, call the library, write its outputs."""

import os
import shutil
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.common.errors import PipelineError, starting
from pipeline.common.names import check

if TYPE_CHECKING:
    from pipeline.config.params import Params
    from pipeline.config.settings import Dataset

if sys.argv[:1] == ["-m"]:  # `python -m stages.<stage>` is about to import the script
    starting()

_HELP = {"dataset": "an entry of `data` in params.yaml", "model": "an entry of `model` there"}


def arguments(purpose: str | None, *names: str) -> list[str]:
    """Return the values of these options on the command line: `dataset`, `model`.

    Raises:
        PipelineError: one is no name.
    """
    parser = ArgumentParser(description=purpose)
    for name in names:
        parser.add_argument(f"--{name}", required=True, help=_HELP[name])
    values = parser.parse_args()
    return [check(name, getattr(values, name)) for name in names]


def alone() -> None:
    """Refuse to be one of several processes: only training is shared between them.

    Raises:
        PipelineError: torchrun started more than one.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise PipelineError("only stages.train shares its work: start this stage without torchrun")


def dataset_entry(purpose: str | None) -> tuple[str, "Dataset", "Params"]:
    """Return the dataset named on the command line, its entry in params.yaml, and all params."""
    from pipeline.config import params  # not at the top: it takes seconds, in which Ctrl-C must work

    alone()
    (name,) = arguments(purpose, "dataset")
    settings = params.load()
    return name, settings.entry(name), settings


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path`; it replaces `path` when the block succeeds."""
    temporary = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if path.exists():
            shutil.rmtree(path)
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
