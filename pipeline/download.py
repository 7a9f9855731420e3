"""Fetch raw files from their publisher or from a mirror: resumable, checked, unpacked safely.

A mirror is a folder or a URL with the layout `<source>/<file>`; it may hold the unpacked files or the
publisher's archive. Files arrive in a cache folder under the name `<file>.part` and get their own name
when they are whole and their digest is right; so a killed download goes on where it was. From the
cache they are linked into the dataset's raw folder, with a manifest that says what they are. The
manifest depends on the bytes alone and not on where they came from.
"""

import errno
import fcntl
import hashlib
import os
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import sleep
from typing import IO, Any

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from tqdm import tqdm
from urllib3.exceptions import HTTPError
from urllib3.util import Retry

from pipeline.errors import PipelineError
from pipeline.files import check, read_json, sha256, there, write_json, write_text

CHUNK = 1 << 16  # bytes read at a time, and at most lost when a download is killed
ATTEMPTS = 5  # connections in a row that brought no byte before a download is given up
RATIO = 1000  # an archive member that unpacks to more than this many times its size is a bomb


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


def mirror_of(setting: str | None) -> str | None:
    """Return the mirror to use: the environment's CTR_MIRROR, or else the one in params.yaml."""
    return os.environ.get("CTR_MIRROR") or setting or None


def obtain(
    source: Source, folder: Path, *, cache: Path, mirror: str | None = None, auth: AuthBase | None = None
) -> None:
    """Put the source's files and `manifest.json` into `folder`.

    Args:
        cache: keeps the downloads; what is whole there already is not fetched again.
        mirror: take the files from there and not from the publisher.
        auth: who asks, where the publisher wants to know; a mirror is never told.

    Raises:
        Lacking: the mirror does not have a file.
        Unreachable: an address gives no answer, or a refusal.
        PipelineError: a file cannot be had, or its bytes are not the publisher's.
    """
    with _alone(cache):
        wanted = [file for file in source.files if not _whole(cache / file.name, file, mirror)]
        if wanted and mirror:
            _from_mirror(source, wanted, cache, mirror)
        elif wanted:
            _from_publisher(source, wanted, cache, auth)
        for file in source.files:
            if (cache / file.name).exists():
                _link(cache / file.name, folder / file.name)
        write_json(folder / "manifest.json", manifest(source, folder))


def copy_own(
    path: str | Path,
    folder: Path,
    *,
    source: str,
    suffixes: tuple[str, ...] = (),
    licence: str = "the user's own data",
) -> None:
    """Copy the user's own file, or the files of a folder, into the raw folder and write `manifest.json`.

    A copy, since the raw folder is handed to DVC, which makes its files read-only.

    Args:
        path: of the file or folder; a relative one starts at the project's folder.
        source: name for the manifest.
        suffixes: endings of the files wanted from a folder, such as `.csv` (default: all); what begins
            with a dot or an underscore is left out, and so are folders within.
        licence: what its publisher allows, in a sentence.

    Raises:
        PipelineError: nothing is there.
    """
    origin = Path(path).expanduser()
    if not origin.exists():
        raise PipelineError(f"{origin} is not there (download.path of this dataset in params.yaml)")
    found = [origin]
    if origin.is_dir():
        found = [
            file
            for file in sorted(origin.iterdir())
            if file.is_file() and file.name.endswith(suffixes or ("",)) and file.name[0] not in "._"
        ]
    if not found:
        raise PipelineError(f"{origin} holds no file ending in {', '.join(suffixes) or 'anything'}")
    for file in found:
        with open(file, "rb") as opened, open(folder / file.name, "wb") as copy:
            _copy(opened, copy, file.stat().st_size, file.name)
    files = tuple(File(file.name) for file in found)
    own = Source(name=source, url="", licence=licence, files=files)
    content = {**manifest(own, folder), "publisher": None, "whole_folder": origin.is_dir()}
    write_json(folder / "manifest.json", content)


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
                "matches_publisher": _matches(path, file),
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
    content: dict[str, Any] = read_json(there(folder / "manifest.json", "download"))
    for name, entry in content["files"].items():
        path = there(folder / name, "download")
        check(path, entry["sha256"], "download")
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


def fetch(url: str, path: Path, *, expected: str | None = None, auth: AuthBase | None = None) -> None:
    """Download a URL to `path`, going on from `<path>.part` where an earlier download broke off.

    Args:
        expected: the digest its bytes must have.
        auth: who asks; only the URL's own host is told, and none that it redirects to.

    Raises:
        Unreachable: the address gives no answer, or a refusal.
        PipelineError: the bytes are wrong (they are deleted then).
        FileNotFoundError: the server says there is no such file.
    """
    part = _beside(path, ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    resumed = _stream(url, part, expected, auth)
    if resumed and expected and digest(part, expected) != expected:
        # the publisher's file may have changed between the two halves: once more from the start
        part.unlink()
        _stream(url, part, expected, auth)
    _accept(part, path, expected, f"the download from {url}", "Run the command again to fetch it anew.")
    _beside(part, ".tag").unlink(missing_ok=True)


def unpack(archive: Path, members: dict[str, Path], *, limit: int) -> None:
    """Unpack the named members of a zip archive to the given paths (`.part` names until whole).

    Nothing but these names is touched, whatever else the archive holds; links are refused, and so is
    what unpacks to more than `limit` bytes in all or `RATIO` times its packed size.

    Raises:
        PipelineError: not a zip archive, damaged, a member missing, or too large.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            for name, path in members.items():
                info = _member(opened, name, archive)
                limit -= info.file_size
                if limit < 0 or info.file_size > RATIO * max(info.compress_size, 1):
                    raise PipelineError(
                        f"{archive}: {name} would unpack from {info.compress_size} to {info.file_size} "
                        "bytes; refused"
                    )
                if stat.S_ISLNK(info.external_attr >> 16) or info.is_dir():
                    raise PipelineError(f"{archive}: {name} is no plain file; refused")
                with opened.open(info) as packed, open(path, "wb") as file:
                    _copy(packed, file, info.file_size, path.name.removesuffix(".part"))
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise PipelineError(
            f"{archive} cannot be unpacked ({error}); delete it and run the command again"
        ) from None


def _member(opened: zipfile.ZipFile, name: str, archive: Path) -> zipfile.ZipInfo:
    """Find a member by its name, or by the end of it after `*/`."""
    if name.startswith("*/"):
        names = [known for known in opened.namelist() if f"/{known}".endswith(name.removeprefix("*"))]
        if len(names) > 1:
            raise PipelineError(f"{archive}: the archive holds several: {', '.join(names)}")
        name = names[0] if names else name
    try:
        return opened.getinfo(name)
    except KeyError:
        raise PipelineError(f"{archive}: the archive holds no {name}") from None


def _from_publisher(source: Source, wanted: list[File], cache: Path, auth: AuthBase | None) -> None:
    hint = (
        "Without network, set the environment variable CTR_MIRROR (or `mirror` in params.yaml) to a "
        f"folder or URL that holds {_layout(source)}; the publisher's address is {source.url}"
    )
    try:
        if source.archive:
            archive = cache / source.archive
            if not _whole(archive, File(source.archive, source.digest), None):
                fetch(source.url, archive, expected=source.digest, auth=auth)
            _members(source, wanted, archive, cache, None)
        else:
            for file in wanted:
                url = f"{source.url.rstrip('/')}/{file.name}"
                fetch(url, cache / file.name, expected=file.digest, auth=auth)
    except FileNotFoundError as error:
        raise PipelineError(f"{source.name}: {error}. {hint}") from None
    except Unreachable as error:
        raise Unreachable(f"{source.name}: {error}. {hint}", error.status) from None


def _from_mirror(source: Source, wanted: list[File], cache: Path, mirror: str) -> None:
    missing = [file for file in wanted if not _take(source, file, cache, mirror)]
    if not missing:
        return
    archive = File(source.archive, source.digest) if source.archive else None
    if archive and _take(source, archive, cache, mirror):
        _members(source, missing, cache / archive.name, cache, mirror)
        return
    lacking = [file.name for file in missing if not file.optional]
    if lacking or len(missing) == len(source.files):
        raise Lacking(
            f"the mirror {mirror} lacks {', '.join(lacking) or 'every file'} of {source.name}: it must hold "
            f"{_layout(source)}. Unset CTR_MIRROR and `mirror` in params.yaml to fetch from the publisher, "
            f"{source.url}"
        )


def _take(source: Source, file: File, cache: Path, mirror: str) -> bool:
    """Copy one file from the mirror; False where the mirror has none of that name."""
    path = cache / file.name
    expected = None if file.rebuilt else file.digest
    if mirror.startswith(("http://", "https://")):
        try:
            fetch(f"{mirror.rstrip('/')}/{source.name}/{file.name}", path, expected=expected)
        except FileNotFoundError:
            return False
        return True
    origin = Path(mirror).expanduser() / source.name / file.name
    if not origin.is_file():
        return False
    part = _beside(path, ".part")
    with open(origin, "rb") as opened, open(part, "wb") as copy:
        _copy(opened, copy, origin.stat().st_size, file.name)
    _accept(part, path, expected, str(origin), "Replace it in the mirror, or use no mirror.")
    return True


def _members(source: Source, wanted: list[File], archive: Path, cache: Path, mirror: str | None) -> None:
    """Unpack the wanted files and check each."""
    parts = {f"{source.inside}{file.name}": _beside(cache / file.name, ".part") for file in wanted}
    unpack(archive, parts, limit=source.limit)
    for file, (member, part) in zip(wanted, parts.items(), strict=True):
        expected = None if file.rebuilt and mirror else file.digest
        _accept(
            part, cache / file.name, expected, f"{member} in {archive}", f"Delete {archive} and try again."
        )


class Lacking(PipelineError):
    """A mirror that does not have a file."""


class Unreachable(PipelineError):
    """An address that gives no answer, or no useful one.

    Attributes:
        status: the HTTP status with which the address itself refused; None where it was another host,
            to which it had redirected, or no refusal.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


def _stream(url: str, part: Path, expected: str | None, auth: AuthBase | None) -> bool:
    """Bring `part` up to the whole content of `url`; return whether older bytes were kept.

    Without a digest to check against, older bytes are kept only if the server has marked its file
    with a tag and still has the same one.
    """
    tag = _beside(part, ".tag")
    kept, failures = False, 0
    with requests.Session() as session:
        retry = Retry(
            total=ATTEMPTS, connect=2, backoff_factor=0.5, status_forcelist=(429, 500, 502, 503, 504)
        )
        session.mount("http://", HTTPAdapter(max_retries=retry))
        session.mount("https://", HTTPAdapter(max_retries=retry))
        while True:
            have = part.stat().st_size if part.exists() else 0
            mark = tag.read_text() if tag.exists() else None
            if have and not mark and not expected:
                have = 0
            headers = {"Accept-Encoding": "identity"}
            if have:
                headers["Range"] = f"bytes={have}-"
                if mark:
                    headers["If-Range"] = mark
            try:
                # a redirect to another host, port or scheme goes there without the authorisation
                with session.get(url, headers=headers, auth=auth, stream=True, timeout=(15, 60)) as answer:
                    if answer.status_code == requests.codes.requested_range_not_satisfiable and have:
                        if answer.headers.get("Content-Range", "").endswith(f"/{have}"):
                            return True  # all of it was there already
                        part.unlink()
                        continue
                    if answer.status_code in (404, 410):
                        raise FileNotFoundError(f"{url} is not there (HTTP {answer.status_code})")
                    answer.raise_for_status()
                    start = have if _continues(answer, have) else 0
                    kept = kept or start > 0
                    _mark(tag, answer)
                    with open(part, "ab" if start else "wb", buffering=0) as file:
                        length = answer.headers.get("Content-Length")
                        total = start + int(length) if length and length.isdigit() else None
                        chunks = answer.raw.stream(CHUNK, decode_content=False)
                        _write(chunks, file, total, start, part.name.removesuffix(".part"))
                return kept
            except (requests.RequestException, HTTPError) as error:
                grown = (part.stat().st_size if part.exists() else 0) > have
                failures = 0 if grown else failures + 1
                refused = isinstance(error, requests.HTTPError)
                nobody_there = isinstance(error, requests.ConnectionError) and not have and not grown
                if refused or nobody_there or failures >= ATTEMPTS:
                    raise Unreachable(f"cannot fetch {url}: {_reason(error)}", _status(error)) from None
                sleep(min(2.0**failures / 4, 8))


def _continues(answer: requests.Response, have: int) -> bool:
    """Whether the answer goes on at byte `have` (a server may ignore Range and send all)."""
    return answer.status_code == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")


def _mark(tag: Path, answer: requests.Response) -> None:
    """Keep what names the version of the server's file: a strong ETag, or the date of its last change."""
    etag = answer.headers.get("ETag", "")
    mark = etag if etag and not etag.startswith("W/") else answer.headers.get("Last-Modified")
    if mark:
        write_text(tag, mark)
    else:
        tag.unlink(missing_ok=True)


def _reason(error: Exception) -> str:
    """The innermost cause: what the layers above add is their own names.

    Without the query of an address: a storage to which one was redirected takes it for a key.
    """
    inner: Any = error
    while True:
        cause = getattr(inner, "reason", None) or (inner.args[0] if inner.args else None)
        if not isinstance(cause, Exception):
            return re.sub(r"\?\S+", "?...", str(inner))
        inner = cause


def _status(error: Exception) -> int | None:
    answer = error.response if isinstance(error, requests.HTTPError) else None
    return None if answer is None or answer.history else answer.status_code


def _accept(part: Path, path: Path, expected: str | None, what: str, remedy: str) -> None:
    """Give a complete file its name, or delete it and say what is wrong with it."""
    found = digest(part, expected) if expected else None
    if found != expected:
        size = part.stat().st_size
        part.unlink()
        raise PipelineError(
            f"{path.name}: {what} is truncated or altered: expected {expected}, "
            f"found {found} ({size} bytes). {remedy}"
        )
    with open(part, "rb") as file:
        os.fsync(file.fileno())
    os.replace(part, path)


def _whole(path: Path, file: File, mirror: str | None) -> bool:
    """Whether the cache holds a file as it should be; what is not so is fetched again."""
    if not path.exists():
        return False
    return _matches(path, file) is not False or (file.rebuilt and mirror is not None)


def _matches(path: Path, file: File) -> bool | None:
    """Whether these are the publisher's bytes; None where that is not known."""
    if file.digest:
        return digest(path, file.digest) == file.digest
    return False if file.records and _lines(path) < file.records else None


def _lines(path: Path) -> int:
    with open(path, "rb") as file:
        return sum(data.count(b"\n") for data in iter(lambda: file.read(1 << 20), b""))


def _link(path: Path, to: Path) -> None:
    """Make the file appear in the raw folder, sharing its bytes where the file system can."""
    to.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path, to)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        shutil.copyfile(path, to)


def _copy(file: IO[bytes], to: IO[bytes], total: int, name: str) -> None:
    _write(iter(lambda: file.read(CHUNK), b""), to, total, 0, name)


def _write(chunks: Iterable[bytes], file: IO[bytes] | Any, total: int | None, done: int, name: str) -> None:
    """Write chunks with a bar on a terminal."""
    with tqdm(
        desc=name, total=total, initial=done, unit="B", unit_scale=True, leave=False, disable=None
    ) as bar:
        for chunk in chunks:
            file.write(chunk)
            bar.update(len(chunk))


def _layout(source: Source) -> str:
    names = ", ".join(f"{source.name}/{file.name}" for file in source.files)
    return names + (f" (or {source.name}/{source.archive})" if source.archive else "")


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


@contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """Hold the cache folder: two downloads of one source write the same files, so one waits."""
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / ".lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
