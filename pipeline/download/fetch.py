"""One resumable download over HTTP.

A file arrives as `<file>.part` and gets its own name when it is whole and its digest is right; so a killed
download goes on where it was.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from time import sleep
from typing import IO, Any

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from tqdm import tqdm
from urllib3.exceptions import HTTPError
from urllib3.util import Retry

from pipeline.common.errors import PipelineError
from pipeline.common.files import write_text
from pipeline.download.manifest import digest

CHUNK = 1 << 16  # bytes read at a time, and at most lost when a download is killed
ATTEMPTS = 5  # connections in a row that brought no byte before a download is given up


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
    part = beside(path, ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    resumed = _stream(url, part, expected, auth)
    if resumed and expected and digest(part, expected) != expected:
        # the publisher's file may have changed between the two halves: once more from the start
        part.unlink()
        _stream(url, part, expected, auth)
    accept(part, path, expected, f"the download from {url}", "Run the command again to fetch it anew.")
    beside(part, ".tag").unlink(missing_ok=True)


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
    tag = beside(part, ".tag")
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
                        write_chunks(chunks, file, total, start, part.name.removesuffix(".part"))
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


def accept(part: Path, path: Path, expected: str | None, what: str, remedy: str) -> None:
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


def copy(file: IO[bytes], to: IO[bytes], total: int, name: str) -> None:
    """Copy an open file, with a bar on a terminal."""
    write_chunks(iter(lambda: file.read(CHUNK), b""), to, total, 0, name)


def write_chunks(
    chunks: Iterable[bytes], file: IO[bytes] | Any, total: int | None, done: int, name: str
) -> None:
    """Write chunks with a bar on a terminal."""
    with tqdm(
        desc=name, total=total, initial=done, unit="B", unit_scale=True, leave=False, disable=None
    ) as bar:
        for chunk in chunks:
            file.write(chunk)
            bar.update(len(chunk))


def beside(path: Path, suffix: str) -> Path:
    """Return the path with a suffix appended to its name."""
    return path.with_name(path.name + suffix)
