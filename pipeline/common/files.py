"""Atomic file writes, canonical JSON, digests of values, files and folders, and folders sealed by them."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

import psutil

from pipeline.common.engine import map_ordered
from pipeline.common.errors import PipelineError, naming

SEAL = "SHA256SUMS"  # in every folder that a stage wrote: what `seal` writes and `check_sealed` reads
LINKED = (".dvc/cache/files", "data/downloads")  # caches whose files may be links to those of the stages


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it replaces `path` when the block succeeds.

    An exception or a full disk leaves the old file (or none) and no temporary one; what a killed process
    left is removed by the next call. DVC may have linked the old file to its cache: replacing the name does
    not touch the cached copy, writing into the file would.
    """
    make_folder(path.parent, path)
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        pid = leftover.suffixes[-2].removeprefix(".")
        if not (pid.isdecimal() and psutil.pid_exists(int(pid))):
            leftover.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            with naming(path):
                yield temporary
        except FileNotFoundError:
            with creating(path):  # what was looked for in vain may be the new file itself
                temporary.touch()
            raise
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def creating(path: Path) -> Iterator[None]:
    """Say what is wrong with the place of an output if it cannot be created there.

    Around what makes a file or a folder, and nothing else: elsewhere a file that is missing is a defect.

    Raises:
        PipelineError: a file is where a folder belongs, or the folder takes no new files, as those of /proc.
    """
    try:
        yield
    except (FileExistsError, NotADirectoryError, FileNotFoundError) as error:
        blocking = next((each for each in (path, *path.parents) if each.is_file()), None)
        if blocking and not isinstance(error, FileNotFoundError):
            raise PipelineError(
                f"{path} cannot be written: {blocking} is a file, not a folder; name another place, or move "
                "the file away"
            ) from None
        raise PipelineError(
            f"{path} cannot be written: nothing new can be made there ({error.strerror}); name another place"
        ) from None


def make_folder(folder: Path, output: Path | None = None) -> None:
    """Make a folder for outputs, and those above it, where they are not there yet.

    Args:
        output: what it is made for, to be named in a message; None for the folder itself.

    Raises:
        PipelineError: it cannot be made there; see `creating`.
    """
    with creating(output or folder):
        folder.mkdir(parents=True, exist_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[IO[bytes]]:
    """Open `path` for writing bytes; the file appears under that name only when it is complete."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def require_file(path: Path, stage: str) -> Path:
    """Return `path`, a file that a stage wrote into a dataset's folder, if it is as the stage left it.

    Args:
        stage: its name, or a whole DVC target where the folder's name is not the dataset's.

    Raises:
        PipelineError: the file is missing, unreadable or another one than the folder's seal says; the
            message says how to recreate it.
    """
    return check_sealed(path, how_to_recreate(path, stage))


def how_to_recreate(path: Path, stage: str) -> str:
    """Return how to recreate a file that a stage wrote into a dataset's folder, as part of a message."""
    again = f"run `dvc repro {stage}`"
    if "@" not in stage:
        again = f"run the {stage} stage again, or `dvc repro {stage}@{path.parent.name}`"
    return f"{again}, which takes it from DVC's cache if that has it"


def target(stage: str, dataset: str) -> str:
    """Return how to run a stage on a dataset, as part of a message: DVC knows those on the list alone."""
    return f"run `dvc repro {stage}@{dataset}`, with {dataset} in `datasets` of params.yaml"


def seal(folder: Path, known: Mapping[str, str] = MappingProxyType({})) -> None:
    """Write the SHA-256 of every file of a folder into its `SHA256SUMS`; `sha256sum -c` reads it, too.

    Its first line has the digest of the others.

    Args:
        known: digests by name, where they were computed already.

    Raises:
        PipelineError: a file's name has a line break or a backslash.
    """
    names = sorted(_name(path, folder) for path in folder.rglob("*") if path.is_file())
    for name in names:
        if not name.isprintable() or "\\" in name:
            raise PipelineError(f"{folder}: the file {name!r} has a name that no list can hold; rename it")
    names = [name for name in names if name != SEAL]
    found = map_ordered(lambda name: known.get(name) or sha256(folder / name), names)
    lines = [f"{content}  {name}\n" for name, content in zip(names, found, strict=True)]
    text = "".join(lines)
    write_text(folder / SEAL, f"# {hashlib.sha256(text.encode()).hexdigest()}\n{text}")


def check_sealed(path: Path, cure: str, folder: Path | None = None) -> Path:
    """Return `path`, a file of a sealed folder, after checking it against the seal.

    Files are hashed once per process, unless they change.

    Args:
        cure: how to make the file again, as part of a message.
        folder: that was sealed, where it is not the file's own.

    Raises:
        PipelineError: the file is missing, unreadable, not in the seal, or another one.
    """
    folder = folder or path.parent
    try:
        status = path.stat()
        found = _sha256_once(path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    except FileNotFoundError:
        raise PipelineError(f"{path} is missing; {cure}") from None
    except OSError as error:
        raise _unreadable(path, error, cure) from None
    recorded = sealed_digests(folder, cure).get(_name(path, folder), "nothing")
    if found != recorded:
        raise PipelineError(
            f"{path} was changed after it was written (sha256 {found[:12]}..., {SEAL} has "
            f"{recorded[:12]}...); {_afresh(path, cure)}"
        )
    return path


def check_folder(folder: Path, cure: str) -> dict[str, str]:
    """Check every file of a sealed folder; return their SHA-256 by name.

    Raises:
        PipelineError: see `check_sealed`.
    """
    recorded = sealed_digests(folder, cure)
    for name in recorded:
        check_sealed(folder / name, cure, folder)
    return recorded


def sealed_digests(folder: Path, cure: str) -> dict[str, str]:
    """Return the SHA-256 of every file of a sealed folder by its name, as `seal` recorded them.

    Raises:
        PipelineError: the seal is missing or damaged.
    """
    path = folder / SEAL
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise PipelineError(f"{path} is missing; {cure}") from None
    except OSError as error:
        raise _unreadable(path, error, cure) from None
    first, _, rest = content.partition(b"\n")
    if first != f"# {hashlib.sha256(rest).hexdigest()}".encode():
        raise PipelineError(f"{path} is damaged; {_afresh(path, cure)}")
    lines = (line.split("  ", 1) for line in rest.decode().splitlines())
    return {name: found for found, name in lines}


def _unreadable(path: Path, error: OSError, cure: str) -> PipelineError:
    return PipelineError(
        f"{path} cannot be read ({error.strerror}); make it readable, or remove it and {cure}"
    )


def _afresh(path: Path, cure: str) -> str:
    """Return a cure for a damaged file: remove it and whatever is linked to it, then `cure`.

    The cache of DVC and that of downloads share the bytes of linked files, and neither would notice: DVC
    hashes a file again only if its time or size changed.
    """
    removed = [path]
    root = next((folder for folder in path.absolute().parents if (folder / ".dvc").is_dir()), None)
    if root and (path.is_symlink() or path.stat().st_nlink > 1):
        files = (file for cache in LINKED for file in (root / cache).rglob("*") if file.is_file())
        removed += [file for file in files if file.samefile(path)]
    return f"remove {' and '.join(map(str, removed))}, then {cure}"


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


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
    """Read a JSON file.

    Raises:
        PipelineError: it is not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise PipelineError(f"{path} is damaged ({error}): remove it and make it again") from None


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@cache
def _sha256_once(path: Path, _device: int, _inode: int, _bytes: int, _modified: int) -> str:
    return sha256(path)


def file_digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file in a folder, by its path within the folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256(path) for path in files}


def folder_digest(folder: Path) -> str:
    """Return 16 hexadecimal digits over the paths and contents of a folder's files, not their times."""
    return digest(file_digests(folder))
