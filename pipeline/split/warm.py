"""A warm start, part one: the packages that models begin from, and the vocabulary that they grow from.

A package (pipeline/scoring/package.py) may lie anywhere and be replaced at any time. So its files that a
training needs are copied into the processed folder, whose digest decides what is trained again:

    start/<model>/package.json, schema.json, vocabulary.json, weights.safetensors
"""

import shutil
from pathlib import Path

from pipeline.common.errors import PipelineError, error_context
from pipeline.common.files import check_folder, read_json, sha256
from pipeline.config import yaml_file
from pipeline.split.vocabulary import Vocabulary

FOLDER = "start"  # within the processed folder
FILES = ("package.json", "schema.json", "vocabulary.json", "weights.safetensors")


def take(
    processed: Path, name: str = "dataset", *, warm_start: dict[str, str] | None = None
) -> Vocabulary | None:
    """Copy the packages into a processed folder; return the vocabulary that all of them have, if any.

    Args:
        name: of the dataset, for messages.
        warm_start: the folder of the package that a model begins from, by the model's name in params.yaml;
            a model that is not named begins anew, with the same grown vocabulary.

    Raises:
        PipelineError: a folder is no package, was changed, or has another vocabulary than the first.
    """
    found: dict[str, Vocabulary] = {}
    for model, package in (warm_start or {}).items():
        with error_context(f"data.{name}.encode.warm_start.{model}"):
            folder = Path(package).expanduser()
            if not (folder / FILES[0]).exists():
                raise PipelineError(
                    f"{folder} is no package of a model: it has no {FILES[0]}. `python -m pipeline package "
                    f"--dataset NAME --model {model} -o {folder}` makes one"
                )
            check_folder(folder, "make the package again")
            if not (folder / FILES[3]).exists():
                raise PipelineError(
                    f"{folder} is the package of a blend: a model begins from that of one model"
                )
            target = processed / FOLDER / model
            target.mkdir(parents=True)
            for file in FILES:
                shutil.copyfile(folder / file, target / file)
            found[model] = read_json(folder / "vocabulary.json")
            first = next(iter(found))
            if found[model] != found[first]:
                raise PipelineError(
                    f"{folder} has another vocabulary than the package of {first}: the models of a dataset "
                    "share one, so take packages of the same day"
                )
    return next(iter(found.values()), None)


def stale(root: Path = Path()) -> list[str]:
    """Return the `datasets` of params.yaml of whose packages one is another than when `split` copied it.

    DVC watches the parameter `encode.warm_start`, but not the folders that it names.
    """
    _, values = yaml_file.read(root / "params.yaml")
    found = []
    for name in values["datasets"]:
        copies = root / "data/processed" / name / FOLDER
        packages = values["data"][name].get("encode", {}).get("warm_start") or {}
        pairs = (
            (root / Path(package).expanduser() / file, copies / model / file)
            for model, package in packages.items()
            for file in FILES
        )
        if any(own.exists() and copy.exists() and sha256(own) != sha256(copy) for own, copy in pairs):
            found.append(name)
    return found
