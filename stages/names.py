"""Check the names in params.yaml, which become folders and words of commands, before any other stage runs."""

from pathlib import Path

from pipeline.common.errors import error_context, exit_with_message
from pipeline.common.files import write_text
from pipeline.common.names import RULE, check_targets
from pipeline.config import yaml_file
from stages import alone


def main() -> None:
    alone()
    path = Path("params.yaml")
    _, values = yaml_file.read(path)
    with error_context(str(path)):
        for models in ("models", "variants"):
            check_targets(values.get("datasets") or [], values.get(models) or [])
    write_text(Path("data/names.txt"), f"{RULE}\n")


if __name__ == "__main__":
    exit_with_message(main)
