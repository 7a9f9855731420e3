"""What a kill leaves: unfinished folders, and two files that DVC writes in place and then refuses to read."""

import json
import shutil
import time
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

PAUSE_SECONDS = 1  # in which a file that DVC is writing right now becomes whole


def heal(root: Path) -> list[str]:
    """Remove a torn dvc.lock or .dvc/tmp/rwlock and unfinished folders; return a line for each.

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
    # of `stages.new_folder`, whose lock a living writer holds
    for folder in sorted(root.glob("data/*/.*.tmp")):
        lock = FileLock(folder.with_name(f"{folder.name.removesuffix('.tmp')}.lock"), timeout=0)
        with suppress(Timeout), lock:
            shutil.rmtree(folder, ignore_errors=True)
            lines.append(f"{folder}, half a result of a killed stage, is removed")
    return lines


def _is_lock(path: Path) -> bool:
    """Whether DVC would read a lock: cut behind `- path:` it is YAML still, and refused."""
    from dvc.exceptions import DvcException
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from dvc.utils.strictyaml import validate

    try:
        text = path.read_text("utf-8")
        validate(YAML(typ="safe", pure=True).load(text), COMPILED_LOCKFILE_SCHEMA, text)
    except (YAMLError, DvcException, ValueError):
        return False
    return True


def _is_json(path: Path) -> bool:
    try:
        return isinstance(json.loads(path.read_bytes()), dict)
    except ValueError:
        return False
