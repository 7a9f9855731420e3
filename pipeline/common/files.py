"""Files that are either whole or absent, and digests that name what they hold."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from pipeline.common.errors import PipelineError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it takes the place of `path` when the block succeeds.

    A crash, a full disk or an exception leaves the old file (or none) and no temporary one. DVC
    may have linked the old file read-only into its cache: replacing the name leaves the cache
    alone, writing into the file would not.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for stale in path.parent.glob(f".{path.name}.*.tmp"):
        if not _runs(stale.suffixes[-2][1:]):  # left by a process that was killed
            stale.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _runs(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    except PermissionError:  # it runs and belongs to somebody else
        return True
    return True


@contextmanager
def writing(path: Path) -> Iterator[IO[bytes]]:
    """Open `path` for writing bytes; the content appears under that name only when complete."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def require_file(path: Path, stage: str) -> Path:
    """Return the path of a file that a stage wrote into a dataset's folder.

    Raises:
        PipelineError: it is not there.
    """
    if not path.exists():
        raise PipelineError(f"{path} is missing; {how_to_recreate(path, stage)}")
    return path


def how_to_recreate(path: Path, stage: str) -> str:
    """Say how to have a file again that a stage wrote into a dataset's folder."""
    return (
        f"run the {stage} stage again, or `dvc repro {stage}@{path.parent.name}`, which takes it from DVC's "
        "cache if that has it"
    )


def verify_file(path: Path, recorded: str, stage: str, *, found: str | None = None) -> None:
    """Refuse a file of a dataset's folder that has other bytes than the stage gave it.

    DVC links such files to its cache, so what writes into one of them changes the cached copy too, and DVC
    would go on believing in both. A file that has no other name has been replaced, and the copy is whole.

    Args:
        recorded: its SHA-256 when the stage wrote it.
        found: its SHA-256 now, if that is known.

    Raises:
        PipelineError: it has other bytes.
    """
    found = sha256(path) if found is None else found
    if found == recorded:
        return
    linked = path.is_symlink() or path.stat().st_nlink > 1
    cure = (
        f"remove {path.parent} and .dvc/cache, which may be linked to it (`make clean` removes these and "
        "more), and run again"
    )
    raise PipelineError(
        f"{path} was changed after its {stage} (sha256 {found[:12]}..., it was {recorded[:12]}...): "
        + (cure if linked else how_to_recreate(path, stage))
    )


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with writing(path) as file:
        file.write(text.encode())


def canonical(value: Any) -> str:
    """Return the one JSON text of `value`: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any) -> str:
    """Return 16 hexadecimal digits that name a JSON-able value."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:16]


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON with sorted keys: same value, same bytes."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file in a folder, by its name within it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256(path) for path in files}


def folder_digest(folder: Path) -> str:
    """Return 16 hexadecimal digits that name the contents of a folder: names and bytes, no times."""
    return digest(file_digests(folder))
