"""Atomic file writes, canonical JSON, and digests of values, files and folders."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import psutil

from pipeline.common.errors import PipelineError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it replaces `path` when the block succeeds.

    An exception or a full disk leaves the old file (or none) and no temporary one; what a killed process
    left is removed by the next call. DVC may have linked the old file to its cache: replacing the name does
    not touch the cached copy, writing into the file would.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        pid = leftover.suffixes[-2].removeprefix(".")
        if not (pid.isdecimal() and psutil.pid_exists(int(pid))):
            leftover.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[IO[bytes]]:
    """Open `path` for writing bytes; the file appears under that name only when it is complete."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def require_file(path: Path, stage: str) -> Path:
    """Return `path`, a file that a stage wrote into a dataset's folder.

    Raises:
        PipelineError: the file does not exist; the message says how to recreate it.
    """
    if not path.exists():
        raise PipelineError(f"{path} is missing; {how_to_recreate(path, stage)}")
    return path


def how_to_recreate(path: Path, stage: str) -> str:
    """Return how to recreate a file that a stage wrote into a dataset's folder, as part of a message."""
    return (
        f"run the {stage} stage again, or `dvc repro {stage}@{path.parent.name}`, which takes it from DVC's "
        "cache if that has it"
    )


def verify_file(path: Path, recorded: str, stage: str, *, found: str | None = None) -> None:
    """Check that a file of a dataset's folder has the checksum that its stage recorded.

    DVC links such files to its cache. Writing into a linked file also changes the cached copy, which DVC
    then takes for the right one; so the message asks to remove both. A file that is not linked was
    replaced, and the cached copy is intact.

    Args:
        recorded: the SHA-256 when the stage wrote it.
        found: the SHA-256 now, if it is known already.

    Raises:
        PipelineError: the checksums differ.
    """
    found = sha256(path) if found is None else found
    if found == recorded:
        return
    remedy = how_to_recreate(path, stage)
    if path.is_symlink() or path.stat().st_nlink > 1:
        remedy = (
            f"remove {path.parent} and .dvc/cache, which may be linked to it (`make clean` removes these and "
            "more), and run again"
        )
    raise PipelineError(
        f"{path} was changed after its {stage} "
        f"(sha256 {found[:12]}..., recorded {recorded[:12]}...): {remedy}"
    )


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with writing(path) as file:
        file.write(text.encode())


def canonical(value: Any) -> str:
    """Return `value` as canonical JSON: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of a value's canonical JSON."""
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
    """Return the SHA-256 of every file in a folder, by its path within the folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256(path) for path in files}


def folder_digest(folder: Path) -> str:
    """Return 16 hexadecimal digits over the paths and contents of a folder's files, not their times."""
    return digest(file_digests(folder))
