"""What a raw folder holds: files with their digests, and whether they are the publisher's."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.common.files import read_json, require_file, sha256, verify_file

Block = dict[str, Any]


def origin(manifest: Block) -> Block:
    """Return what of a raw folder's manifest goes along with the data.

    The source; whether all files are as the publisher has them, None where nobody can tell; and the names
    of those that are not (`differs`) or are not there (`missing`).
    """
    files = manifest["files"].items()
    return {
        "source": manifest["source"],
        "matches_publisher": manifest["matches_publisher"],
        "differs": [name for name, entry in files if entry.get("matches_publisher") is False],
        "missing": manifest["missing"],
    }


def differences(found: Block) -> str:
    """Say what of an `origin` is not as the publisher has it; empty if all is, or nobody can tell.

    >>> not_the_publishers({"differs": ["a.csv", "b.csv"], "missing": ["c.csv"]})
    'other bytes in a.csv, b.csv; without c.csv'
    """
    said = {"other bytes in": found["differs"], "without": found["missing"]}
    return "; ".join(f"{words} {', '.join(names)}" for words, names in said.items() if names)


@dataclass(frozen=True)
class File:
    """One raw file.

    Attributes:
        name: its name in the raw folder and in a mirror.
        digest: what the publisher's bytes have, as `<algorithm>:<hexadecimal>` with sha256, md5 or
            git-blob (the id git gives the content); None where nobody has published one.
        rebuilt: a mirror may hold other bytes than the publisher (a reconstruction); the manifest
            then says so. Otherwise other bytes are an error.
        optional: a mirror may lack it; the manifest then lists it as missing.
        records: how many the publisher counts, where its digest is not known: a file with fewer lines
            is only a part of it.
    """

    name: str
    digest: str | None = None
    rebuilt: bool = False
    optional: bool = False
    records: int | None = None


@dataclass(frozen=True)
class Source:
    """Where a dataset comes from.

    Attributes:
        name: folder in a mirror.
        url: the publisher's archive, or without `archive` the folder its files lie in.
        licence: what the publisher allows, in a sentence.
        files: what is wanted.
        archive: file name of the zip archive.
        digest: the archive's, as in `File`.
        inside: what stands before a file's name in the archive; `*/`: whatever folder it lies in.
        limit: bytes that unpack at most.
    """

    name: str
    url: str
    licence: str
    files: tuple[File, ...]
    archive: str | None = None
    digest: str | None = None
    inside: str = ""
    limit: int = 16 << 30


def manifest(source: Source, folder: Path) -> dict[str, Any]:
    """Describe the files of a raw folder.

    `matches_publisher` is None where the publisher's digest is not known.
    """
    files: dict[str, Any] = {}
    for file in source.files:
        path = folder / file.name
        if path.exists():
            files[file.name] = {
                "bytes": path.stat().st_size,
                "sha256": sha256(path),
                "matches_publisher": matches_publisher(path, file),
            }
    answers = {entry["matches_publisher"] for entry in files.values()}
    missing = [file.name for file in source.files if file.name not in files]
    return {
        "source": source.name,
        "publisher": source.url,
        "licence": source.licence,
        "files": files,
        "missing": missing,
        "matches_publisher": False if missing or False in answers else None if None in answers else True,
    }


def verify(folder: Path) -> dict[str, Any]:
    """Return the manifest of a raw folder, its files being what the download stage put there.

    Raises:
        PipelineError: a file or the manifest is missing, or a file has other bytes.
    """
    content: dict[str, Any] = read_json(require_file(folder / "manifest.json", "download"))
    for name, entry in content["files"].items():
        path = require_file(folder / name, "download")
        verify_file(path, entry["sha256"], "download")
    return content


def digest(path: Path, like: str) -> str:
    """Return `<algorithm>:<hexadecimal>` of a file, with the algorithm of the digest `like`."""
    algorithm = like.partition(":")[0]
    with open(path, "rb") as file:
        if algorithm != "git-blob":
            return f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"
        found = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
        while data := file.read(1 << 20):
            found.update(data)
        return f"git-blob:{found.hexdigest()}"


def matches_publisher(path: Path, file: File) -> bool | None:
    """Whether these are the publisher's bytes; None where that is not known."""
    if file.digest:
        return digest(path, file.digest) == file.digest
    return False if file.records and _lines(path) < file.records else None


def _lines(path: Path) -> int:
    with open(path, "rb") as file:
        return sum(data.count(b"\n") for data in iter(lambda: file.read(1 << 20), b""))
