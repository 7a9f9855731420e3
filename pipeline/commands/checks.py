"""`ctr check`: the user's own logs before DVC starts, and the bytes that stages have written."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.common.errors import PipelineError, unknown
from pipeline.common.files import SEAL, check_folder
from pipeline.common.text import counted
from pipeline.config.params import Params
from pipeline.datasets import DATASETS, tabular
from pipeline.download.obtain import wanted_files
from pipeline.download.remote import is_remote
from pipeline.preprocess.tables import SUFFIXES


def own_logs(root: Path, settings: Params) -> None:
    """Check that the user's own logs that run are there and have the columns that params.yaml names.

    The download stage says so, too, but only when DVC has come to it, and preprocess later still.

    Args:
        settings: params.yaml of that folder.

    Raises:
        PipelineError: the first thing that is wrong, with its dataset.
    """
    for name in settings.datasets:
        entry = settings.entry(name)
        if DATASETS[entry.source] is not tabular or is_remote(entry.download["path"]):
            continue
        own = root / Path(entry.download["path"]).expanduser()
        if not own.exists() and (root / "data/raw" / name / "manifest.json").exists():
            continue  # its copy is used, which `refresh` says
        try:
            files = wanted_files(own, SUFFIXES, entry.download.get("files"))
            copies, paths = root / "data/raw" / name, entry.download.get("vectors", ())
            tabular.check(files, _of_vectors(root, paths, copies, entry.preprocess), **entry.preprocess)
        except PipelineError as error:
            raise PipelineError(f"data.{name}: {error}") from None


def _of_vectors(
    root: Path, paths: Sequence[str], copies: Path, arguments: Mapping[str, Any]
) -> dict[str, Path]:
    """Return the files of vectors that fields name, but for those of which only a copy is there.

    Args:
        paths: of the files.
        copies: the folder of those that were copied before.
        arguments: of the entry's `preprocess`.

    Raises:
        PipelineError: a file is not there.
    """
    there = {Path(path).name: root / Path(path).expanduser() for path in paths}
    found = {}
    for file, name in tabular.plan_of(fields=arguments["fields"]).aside.items():
        if file not in there:
            where = f"preprocess.fields.{name}.file"
            raise PipelineError(f"{where}: {unknown('file', file, there)}; see `download.vectors`")
        if there[file].exists() or not (copies / file).exists():
            (found[file],) = wanted_files(there[file], SUFFIXES, None)
    return found


def files(root: Path) -> str:
    """Check every file that a stage has sealed; return how many there are.

    Raises:
        PipelineError: some are missing or damaged; the message says how to recreate each.
    """
    count, wrong = 0, []
    for seal in sorted((root / "data").rglob(SEAL)):
        try:
            count += len(check_folder(seal.parent, "run `dvc repro`"))
        except PipelineError as error:
            wrong.append(str(error))
    if wrong:
        raise PipelineError("\n".join(wrong))
    return f"{counted(count, 'file')} as the stages left them"
