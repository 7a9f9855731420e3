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

if TYPE_CHECKING:
    from pipeline.config.params import Params
    from pipeline.config.settings import Dataset

if sys.argv[:1] == ["-m"]:  # `python -m stages.<stage>` is on its way to the script
    starting()


def alone() -> None:
    """Refuse to be one of several processes: only training shares its work between them.

    Raises:
        PipelineError: torchrun started more than one.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise PipelineError("only stages.train shares its work: start this stage without torchrun")


def dataset_entry(purpose: str | None) -> tuple[str, "Dataset", "Params"]:
    """Return the name of the dataset on the command line, its entry in params.yaml, and all params."""
    from pipeline.config import params  # not at the top: it takes seconds, and Ctrl-C is to be heard before

    alone()
    parser = ArgumentParser(description=purpose)
    parser.add_argument("--dataset", required=True, help="an entry of `data` in params.yaml")
    name = parser.parse_args().dataset
    settings = params.load()
    return name, settings.entry(name), settings


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path`; it takes the place of `path` when the block succeeds."""
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
