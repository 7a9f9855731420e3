"""`ctr check`: the user's own logs before DVC starts, and the bytes that stages have written."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.common.errors import PipelineError, unknown
from pipeline.common.files import SEAL, check_folder
from pipeline.common.text import counted
from pipeline.config import yaml_file
from pipeline.config.params import Params
from pipeline.config.settings import Dataset
from pipeline.datasets import DATASETS, tabular
from pipeline.download.obtain import further_files, wanted_files
from pipeline.download.remote import is_remote
from pipeline.papers import experiment
from pipeline.papers.exhibits import EXHIBITS
from pipeline.preprocess.tables import SUFFIXES
from pipeline.split.assign import check_files, need_column


def own_logs(root: Path, settings: Params) -> None:
    """Check that the user's own logs that run are there and have the columns that params.yaml names.

    The stages say so, too, but only when DVC has come to them.

    Args:
        settings: params.yaml of that folder.

    Raises:
        PipelineError: the first thing that is wrong, with its dataset.
    """
    for name in settings.datasets:
        entry = settings.entry(name)
        try:
            _check_files(root, name, entry)
        except PipelineError as error:
            raise PipelineError(f"data.{name}: {error}") from None
        method = entry.split.get("method", "random")
        if DATASETS[entry.source] is tabular and method != "random":
            need_column(tabular.column_names(**entry.preprocess), name, method, entry.split.get("column"))


def tables(root: Path, settings: Params) -> None:
    """Check that the papers' tables and figures that run can be shown on the datasets that run.

    Their stages say so, too, but only after everything before them.

    Raises:
        PipelineError: one has no dataset, or no condition in which it can be shown.
    """
    _, values = yaml_file.read(root / "params.yaml")
    for name in values.get("papers", []):
        experiment.conditions(EXHIBITS[name], settings)
        experiment.datasets(EXHIBITS[name], values, others=settings.paper.other_datasets)


def _check_files(root: Path, name: str, entry: Dataset) -> None:
    """Check the files of an entry that the user has, and of a log of the user's own what is in them."""
    path = entry.download.get("path")
    if path is None or is_remote(path):
        return
    own = root / Path(path).expanduser()
    if not own.exists() and _is_copied(root, name, entry.download):
        return  # its copy is used, which `refresh` says
    if DATASETS[entry.source] is not tabular:
        wanted_files(own, ("",), None)
        return
    files = wanted_files(own, SUFFIXES, entry.download.get("files"))
    vectors = entry.download.get("vectors", ())
    gone = [path for path in vectors if not (root / Path(path).expanduser()).is_file()]
    if gone and not _is_copied(root, name, entry.download):
        further_files(gone, root)
    tabular.check(files, _of_vectors(root, vectors, entry.preprocess), **entry.preprocess)
    column = entry.preprocess.get("file")
    if column is not None and (entry.split.get("method"), entry.split.get("column")) == ("column", column):
        aside = tabular.plan_of(fields=entry.preprocess["fields"]).aside
        check_files([file.name for file in files if file.name not in aside], entry.split.get("values"))


def _is_copied(root: Path, name: str, download: Mapping[str, Any]) -> bool:
    """Whether the raw folder holds what these arguments ask for.

    DVC downloads again when they have changed since: then a copy that is there is of other files.
    """
    lock = root / "dvc.lock"
    if not (root / "data/raw" / name / "manifest.json").exists() or not lock.exists():
        return False
    stage = (yaml_file.read(lock)[1] or {}).get("stages", {}).get(f"download@{name}", {})
    params = stage.get("params", {}).get("params.yaml", {})
    return bool(params.get(f"data.{name}.download") == download)


def all_well(settings: Params) -> str:
    """Return what was checked and found to be right."""
    datasets, models = len(settings.datasets), len(settings.models)
    return f"params.yaml: {counted(datasets, 'dataset')}, {counted(models, 'model')}: nothing to object to"


def _of_vectors(root: Path, paths: Sequence[str], arguments: Mapping[str, Any]) -> dict[str, Path]:
    """Return the files of vectors that fields name, but for those of which only a copy is there.

    Args:
        paths: of the files.
        arguments: of the entry's `preprocess`.

    Raises:
        PipelineError: a field names a file that is none of them.
    """
    there = {Path(path).name: root / Path(path).expanduser() for path in paths}
    found = {}
    for file, name in tabular.plan_of(fields=arguments["fields"]).aside.items():
        if file not in there:
            where = f"preprocess.fields.{name}.file"
            raise PipelineError(f"{where}: {unknown('file', file, there)}; see `download.vectors`")
        if there[file].exists():
            found[file] = there[file]
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
