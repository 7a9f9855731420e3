"""Check the names in params.yaml, which become folders and words of commands, before any other stage runs."""

import shutil
from pathlib import Path
from typing import Any

from pipeline.common.errors import PipelineError, error_context, exit_with_message, unknown
from pipeline.common.files import write_text
from pipeline.common.names import RULE, check_targets
from pipeline.config import yaml_file
from stages import alone

LISTS = (("datasets", "dataset", "data"), ("models", "model", "model"), ("variants", "variant", "model"))


def main() -> None:
    alone()
    path = Path("params.yaml")
    _, values = yaml_file.read(path)
    with error_context(str(path)):
        for models in ("models", "variants"):
            check_targets(values.get("datasets") or [], values.get(models) or [])
        for key, kind, block in LISTS:  # before anything of a name that is off the lists is removed
            for name in values.get(key) or []:
                if name not in values.get(block, {}):
                    raise PipelineError(f"{key}: {unknown(kind, name, values.get(block, {}))}")
    remove_leftovers(Path("data/runs"), values)
    write_text(Path("data/names.txt"), f"{RULE}\n")


def remove_leftovers(runs: Path, values: dict[str, Any]) -> None:
    """Remove the runs of models that left the lists: dvc.lock would depend on what happens to lie there.

    DVC's cache keeps them: on the list again, they come back without training.
    """
    listed = {*(values.get("models") or []), *(values.get("variants") or [])}
    for dataset in values.get("datasets") or []:
        for folder in sorted((runs / dataset).glob("*")):
            if folder.name not in listed:
                print(f"{folder} is removed: {folder.name} is on no list (DVC's cache keeps it)")
                shutil.rmtree(folder)


if __name__ == "__main__":
    exit_with_message(main)
