"""The order in which DVC runs the stages, read before anything slow is imported."""

import re
from itertools import product
from pathlib import Path
from typing import Any

from pipeline.common.errors import PipelineError, unknown
from pipeline.config import yaml_file

MODELS = Path(__file__).parents[1] / "models"  # each has its file here, which is not imported
Item = dict[str, str]  # the values of a stage's matrix: dataset, model


def check_names(values: Any, item: Item) -> None:
    """Check that params.yaml has a dataset entry and a block of these names; all else is left to `Params`.

    Raises:
        PipelineError: it has none.
    """
    for kind, block in (("dataset", "data"), ("model", "model")):
        known = values.get(block) if isinstance(values, dict) else None
        if kind in item and isinstance(known, dict) and item[kind] not in known:
            told = unknown(kind, item[kind], known)
            if kind == "model" and has_file(item[kind]):
                told = f"has no block {item[kind]!r}; write `{item[kind]}: {{}}` for its defaults"
            raise PipelineError(f"params.yaml: {block}: {told}")


def require_dataset(root: Path, name: str) -> None:
    """Check that a project's params.yaml, where there is one, has an entry of this name.

    Raises:
        PipelineError: it has none.
    """
    if (path := root / "params.yaml").exists():
        check_names(yaml_file.read(path)[1], {"dataset": name})


def has_file(model: str) -> bool:
    """Whether somebody has written a model of this name, be it in `CLASSES` or not yet."""
    return (MODELS / f"{model}.py").exists()


def place(script: str, item: Item, values: Any) -> tuple[int, int] | None:
    """Return the number of a stage in the order of dvc.yaml, from 1, and how many there are.

    Args:
        script: the stage's script: `tune` of both tune and tune-variant.
        item: what it runs on.
        values: of params.yaml.

    Returns:
        None if it is not among those that `dvc repro` runs.

    Raises:
        PipelineError: dvc.yaml is no valid YAML.
    """
    file = Path("dvc.yaml")
    if not (file.exists() and isinstance(values, dict)):
        return None
    stages: list[tuple[str, Item]] = []
    for block in yaml_file.read(file)[1]["stages"].values():
        matrix = block.get("matrix", {})
        command = re.search(r"stages\.(\w+)", block["cmd"])
        found = [values.get(source[2:-1]) for source in matrix.values()]
        lists = [names if isinstance(names, list) else [] for names in found]
        name = command[1] if command else ""
        stages += [(name, dict(zip(matrix, each, strict=True))) for each in product(*lists)]
    return (stages.index((script, item)) + 1, len(stages)) if (script, item) in stages else None
