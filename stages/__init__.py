"""One script per stage: read its params, call the library, write its outputs."""

import ast
import os
import shutil
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.common.command_line import Parser
from pipeline.common.errors import (
    PipelineError,
    exit_with_message,
    is_main_process,
    naming,
    starting,
    unknown,
)
from pipeline.common.names import check

if TYPE_CHECKING:
    from pipeline.config.params import Params
    from pipeline.config.settings import Dataset

_HELP = {
    "dataset": "an entry of `data` in params.yaml",
    "model": "an entry of `model` there",
    "paper": "a table or figure, such as flsest-table-1",
}


def _parsed(stage: str, purpose: str | None, names: tuple[str, ...]) -> Namespace:
    parser = Parser(prog=f"python -m stages.{stage}", description=purpose)
    for name in names:
        parser.add_argument(f"--{name}", required=True, metavar="NAME", help=_HELP[name])
    return parser.parse_args()


def arguments(purpose: str | None, *names: str) -> list[str]:
    """Return the values of these options on the command line: `dataset`, `model`.

    Raises:
        PipelineError: one is no name.
    """
    values = _parsed(Path(sys.argv[0]).stem, purpose, names)
    return [check(name, getattr(values, name)) for name in names]


def begin(stage: str) -> None:
    """Check the command line of a stage and say which one it is, before its imports, which take seconds.

    Raises:
        PipelineError: there is no such stage, or params.yaml has no dataset or model of that name.
    """
    from pipeline.config import plan, yaml_file

    scripts = {path.stem: path for path in Path(__file__).parent.glob("[!_]*.py")}
    if stage not in scripts:
        raise PipelineError(f"{unknown('stage', stage, scripts)}; the command is `python -m stages.<stage>`")
    purpose = ast.get_docstring(ast.parse(scripts[stage].read_text(encoding="utf-8")))
    options = {"names": (), "train": ("dataset", "model"), "tune": ("dataset", "model"), "paper": ("paper",)}
    names: tuple[str, ...] = options.get(stage, ("dataset",))
    item = vars(_parsed(stage, purpose, names))
    _, values = yaml_file.read(Path("params.yaml"))
    plan.check_names(values, item)
    if is_main_process():
        place = plan.place(stage, item, values)
        which = f"stage {place[0]} of {place[1]}: " if place else ""
        print(f"{which}{stage} {' on '.join(reversed(item.values()))}".rstrip(), flush=True)


if sys.argv[:1] == ["-m"]:  # `python -m stages.<stage>` is about to import the script
    exit_with_message(lambda: begin(sys.orig_argv[sys.orig_argv.index("-m") + 1].removeprefix("stages.")))
    starting()


def alone() -> None:
    """Refuse to be one of several processes: only training is shared between them.

    Raises:
        PipelineError: torchrun started more than one.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise PipelineError("only stages.train shares its work: start this stage without torchrun")


def dataset_entry(purpose: str | None) -> tuple[str, "Dataset", "Params"]:
    """Return the dataset named on the command line, its entry in params.yaml, and all params."""
    from pipeline.common import engine
    from pipeline.config import params  # not at the top: it takes seconds, in which Ctrl-C must work

    alone()
    (name,) = arguments(purpose, "dataset")
    settings = params.load()
    engine.use(engine.processes(settings.processes), settings.engine)
    return name, settings.entry(name), settings


@contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """Hold a stage's output against other processes; a killed one lets go.

    Raises:
        PipelineError: another one holds it.
    """
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path.with_name(f".{path.name}.lock"), timeout=0):
            yield
    except Timeout:
        raise PipelineError(f"another process is writing {path}: wait for it, or stop it first") from None


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path`; it replaces `path` when the block succeeds.

    Raises:
        PipelineError: another process is writing it.
    """
    with only_writer(path), _replacing(path) as folder:
        yield folder


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    temporary = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        with naming(path):
            yield temporary
        if path.exists():
            shutil.rmtree(path)
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
