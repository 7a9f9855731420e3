"""Detect local source files that changed after they were copied into data/raw.

DVC watches the parameter `download.path`, but not the file that it names, which may lie anywhere.
"""

from pathlib import Path

from pipeline.common.errors import PipelineError, unknown
from pipeline.common.files import read_json, sha256
from pipeline.common.names import check
from pipeline.config import yaml_file
from pipeline.download.remote import is_remote


def stale(root: Path = Path()) -> list[str]:
    """Return the `datasets` of params.yaml whose source files have changed since they were copied.

    A file has changed if its bytes differ; they are compared only if the file system reports a later change.
    A folder has changed if it lost a file or gained one of a kind that it had. A source that no longer
    exists is reported and does not count as changed.

    Raises:
        PipelineError: params.yaml is missing or invalid YAML, or one of `datasets` is not in it.
    """
    path = root / "params.yaml"
    _, values = yaml_file.read(path)
    try:
        for name in values["datasets"]:
            check("dataset", name)
            if name not in values["data"]:
                raise PipelineError(f"{path}: datasets: {unknown('dataset', name, values['data'])}")
        blocks = {name: values["data"][name]["download"] for name in values["datasets"]}
        sources = {name: (block.get("path"), block.get("vectors") or []) for name, block in blocks.items()}
    except (LookupError, TypeError, AttributeError):
        return []  # the stages report what is wrong with the parameters
    found = []
    for name, (source, vectors) in sources.items():
        manifest = root / "data/raw" / name / "manifest.json"
        if not source or is_remote(source) or not manifest.exists():
            continue  # nothing was copied yet, or a store would have to be asked
        own, *further = [root / Path(path).expanduser() for path in (source, *vectors)]
        gone = [
            path for path, file in zip((source, *vectors), (own, *further), strict=True) if not file.exists()
        ]
        for path in gone:
            print(f"{name}: {path} no longer exists; the copy in data/raw/{name} is used")
        if not gone and _changed(own, further, manifest):
            found.append(name)
    return found


def _changed(own: Path, further: list[Path], manifest: Path) -> bool:
    content, beside = read_json(manifest), {file.name: file for file in further}
    copied = content["files"]
    files = {own.name: own}
    if own.is_dir():
        kinds = (
            {Path(name).suffix for name in copied if name not in beside} if content["whole_folder"] else set()
        )
        files = {
            file.name: file
            for file in own.iterdir()
            if file.name in copied or (file.is_file() and file.suffix in kinds and file.name[0] not in "._")
        }
    files |= beside
    if set(files) != set(copied):
        return True
    copied_at = manifest.stat().st_ctime
    for name, file in files.items():
        status = file.stat()
        if status.st_size != copied[name]["bytes"]:
            return True
        if status.st_ctime >= copied_at and sha256(file) != copied[name]["sha256"]:
            return True
    return False
