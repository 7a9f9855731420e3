"""The manifest of a raw folder: its files, their checksums, and whether they are the publisher's."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.common.files import check_folder, how_to_recreate, read_json, sha256

Block = dict[str, Any]
READ_BYTES = 1 << 20  # read at a time


@dataclass(frozen=True)
class File:
    """One raw file.

    Attributes:
        name: its name in the raw folder and in a mirror.
        checksum: of the publisher's file, as `<algorithm>:<hexadecimal>` with sha256, md5 or git-blob
            (Git's id of the content); None if none is published.
        rebuilt: a mirror may hold a reconstruction, with other bytes than the publisher's file; the
            manifest then says so. Otherwise other bytes are an error.
        optional: a mirror may lack it; the manifest then lists it as missing.
        records: the publisher's number of records, where the checksum is unknown: a file with fewer lines
            is incomplete.
        times: it holds the times of the log. Those of a copy with other bytes are not used unless the entry
            in params.yaml says so: a reconstruction may have imputed them, and even from the label.
        same_times: checksums of copies with other bytes and the publisher's times (other line ends, say).
    """

    name: str
    checksum: str | None = None
    rebuilt: bool = False
    optional: bool = False
    records: int | None = None
    times: bool = False
    same_times: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """Where a dataset comes from.

    Attributes:
        name: folder in a mirror.
        url: of the publisher's archive, or without `archive` of the folder that contains the files.
        licence: what the publisher allows, in a sentence.
        files: the files to get.
        archive: file name of the zip archive.
        checksum: of the archive, as in `File`.
        inside: prefix of the files' names in the archive; `*/` stands for any folder.
        max_bytes: of all files together, unpacked.
    """

    name: str
    url: str
    licence: str
    files: tuple[File, ...]
    archive: str | None = None
    checksum: str | None = None
    inside: str = ""
    max_bytes: int = 16 << 30


def manifest(source: Source, folder: Path) -> Block:
    """Describe the files of a raw folder; this depends on their bytes alone, not on where they came from.

    `matches_publisher` is None where the publisher's checksum is unknown.
    """
    files: Block = {}
    for file in source.files:
        path = folder / file.name
        if path.exists():
            files[file.name] = {
                "bytes": path.stat().st_size,
                "sha256": sha256(path),
                "matches_publisher": matches_publisher(path, file),
            }
    matches = {entry["matches_publisher"] for entry in files.values()}
    missing = [file.name for file in source.files if file.name not in files]
    return {
        "source": source.name,
        "publisher": source.url,
        "licence": source.licence,
        "files": files,
        "missing": missing,
        "doubtful_times": [
            file.name for file in source.files if file.name in files and _doubtful(folder / file.name, file)
        ],
        "matches_publisher": False if missing or False in matches else None if None in matches else True,
    }


def verify(folder: Path) -> Block:
    """Return the manifest of a raw folder after checking its files against it.

    Raises:
        PipelineError: the manifest or a file is missing, or a file has another checksum.
    """
    check_folder(folder, how_to_recreate(folder / "manifest.json", "download"))
    content: Block = read_json(folder / "manifest.json")
    return content


def origin(manifest: Block) -> Block:
    """Return the part of a manifest that later stages copy into their reports.

    That is the source; whether all files match the publisher's (None: unknown); and the names of those that
    differ (`differs`) or are missing (`missing`). `doubtful_times` says why the times of this copy are not
    used, and what to do; it is empty if they are.
    """
    files, doubtful = manifest["files"].items(), " and ".join(manifest.get("doubtful_times", []))
    doubt = (
        f"{doubtful} is not the publisher's file, so its times may be imputed, even from the label, and were "
        "left out: fetch the publisher's (without a mirror), or, if you know that they are right, set "
        "`unverified_times: true` in the dataset's block `preprocess` of params.yaml"
    )
    return {
        "source": manifest["source"],
        "matches_publisher": manifest["matches_publisher"],
        "differs": [name for name, entry in files if entry.get("matches_publisher") is False],
        "missing": manifest["missing"],
        "doubtful_times": doubt if doubtful else "",
    }


def differences(origin: Block) -> str:
    """Describe how the data differ from the publisher's; empty if they match or this is unknown.

    >>> differences({"differs": ["a.csv", "b.csv"], "missing": ["c.csv"]})
    'other bytes in a.csv, b.csv; without c.csv'
    """
    names = {"other bytes in": origin["differs"], "without": origin["missing"]}
    return "; ".join(f"{words} {', '.join(files)}" for words, files in names.items() if files)


def matches_publisher(path: Path, file: File) -> bool | None:
    """Whether a file has the publisher's bytes; None where that is unknown."""
    if file.checksum:
        return checksum(path, file.checksum) == file.checksum
    return False if file.records and _lines(path) < file.records else None


def checksum(path: Path, like: str) -> str:
    """Return `<algorithm>:<hexadecimal>` of a file, with the algorithm of the checksum `like`."""
    algorithm = like.partition(":")[0]
    with open(path, "rb") as file:
        if algorithm != "git-blob":
            return f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"
        found = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
        while data := file.read(READ_BYTES):
            found.update(data)
        return f"git-blob:{found.hexdigest()}"


def _doubtful(path: Path, file: File) -> bool:
    """Whether a file holds times that are not known to be the publisher's."""
    if not file.times or matches_publisher(path, file) is not False:
        return False
    return all(checksum(path, same) != same for same in file.same_times)


def _lines(path: Path) -> int:
    with open(path, "rb") as file:
        return sum(data.count(b"\n") for data in iter(lambda: file.read(READ_BYTES), b""))
