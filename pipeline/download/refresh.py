"""The user's own files that are no longer what was copied of them into data/raw.

DVC watches the parameter `download.path` and not the file that it names, which may lie anywhere; so a
file that was replaced has to be noticed here.
"""

from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.common.errors import PipelineError, unknown
from pipeline.common.files import read_json, sha256


def stale(root: Path = Path()) -> list[str]:
    """Return the items of `datasets` in params.yaml whose own files have changed since they were taken.

    A file counts as changed if its bytes differ; they are compared only if the file system says that
    something happened to it since. So does a folder that lost a file or gained one of a kind it held. One
    that is gone is told of.

    Raises:
        PipelineError: there is no params.yaml, or an item of `datasets` is not in it.
    """
    path = root / "params.yaml"
    try:
        values = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
        for name in values["datasets"]:
            if name not in values["data"]:
                raise PipelineError(f"{path}: datasets: {unknown('dataset', name, values['data'])}")
        named = {name: values["data"][name]["download"].get("path") for name in values["datasets"]}
    except FileNotFoundError:
        raise PipelineError(f"{path} is not there; run the command from the project's folder") from None
    except (YAMLError, LookupError, TypeError, AttributeError):
        return []  # the stages say what is wrong
    found = []
    for name, own in named.items():
        manifest = root / "data/raw" / name / "manifest.json"
        if not own or not manifest.exists():
            continue  # nothing was taken yet
        path = root / Path(own).expanduser()
        if not path.exists():
            print(f"{name}: {own} is gone; going on with the copy in data/raw/{name}")
        elif _changed(path, manifest):
            found.append(name)
    return found


def _changed(own: Path, manifest: Path) -> bool:
    content = read_json(manifest)
    taken = content["files"]
    files = {own.name: own}
    if own.is_dir():
        kinds = {Path(name).suffix for name in taken} if content["whole_folder"] else set()
        files = {
            file.name: file
            for file in own.iterdir()
            if file.name in taken or (file.is_file() and file.suffix in kinds and file.name[0] not in "._")
        }
    if set(files) != set(taken):
        return True
    since = manifest.stat().st_ctime
    for name, file in files.items():
        status = file.stat()
        if status.st_size != taken[name]["bytes"]:
            return True
        if status.st_ctime >= since and sha256(file) != taken[name]["sha256"]:
            return True
    return False
