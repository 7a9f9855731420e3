"""What a kill leaves of DVC's own files: it writes two of them in place, and then refuses to run."""

import json
import time
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

PAUSE_SECONDS = 1  # in which a file that DVC is writing right now becomes whole


def heal(root: Path) -> list[str]:
    """Remove a torn dvc.lock and a torn .dvc/tmp/rwlock; return a line for each.

    Neither holds anything that is lost: DVC takes the outputs from its cache of runs, or runs a stage again.
    """
    lines = []
    for path, whole in ((root / "dvc.lock", _is_lock), (root / ".dvc/tmp/rwlock", _is_json)):
        if not path.exists() or whole(path):
            continue
        time.sleep(PAUSE_SECONDS)
        if path.exists() and not whole(path):
            path.unlink()
            lines.append(f"{path} was torn by a kill and is removed: DVC makes it again")
    return lines


def _is_lock(path: Path) -> bool:
    try:
        values = YAML(typ="safe", pure=True).load(path.read_bytes())
        return all({"cmd"} <= stage.keys() for stage in values["stages"].values())
    except (YAMLError, ValueError, LookupError, TypeError, AttributeError):
        return False


def _is_json(path: Path) -> bool:
    try:
        return isinstance(json.loads(path.read_bytes()), dict)
    except ValueError:
        return False
