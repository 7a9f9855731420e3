"""One resumable download over HTTP.

A file arrives as `<file>.part` and gets its own name when it is complete and its checksum is right. A killed
download continues from its `.part`; `<file>.part.tag` keeps the server's version of the file until then.
"""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from time import sleep
from typing import IO

import requests
from requests.adapters import HTTPAdapter
from tqdm import tqdm
from urllib3 import HTTPResponse
from urllib3.exceptions import HTTPError
from urllib3.util import Retry

from pipeline.common.errors import PipelineError
from pipeline.common.files import write_text
from pipeline.download.manifest import checksum

CHUNK_BYTES = 1 << 16  # read at a time, and at most lost when a download is killed
ATTEMPTS = 5  # connections in a row that brought no byte before a download is given up
RETRY = Retry(total=ATTEMPTS, connect=2, backoff_factor=0.5, status_forcelist=(429, 500, 502, 503, 504))
TIMEOUT_SECONDS = (15, 60)  # to connect, and between bytes

# Signs a request. An Authorization header is not sent on where a redirect leaves the host, port or scheme.
Auth = Callable[[requests.PreparedRequest], requests.PreparedRequest]


class Unreachable(PipelineError):
    """An address does not answer, or refuses.

    Attributes:
        status: the HTTP status with which the address itself refused; None without an answer, and where
            the refusal came from an address to which it redirected.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


def fetch(url: str, path: Path, *, expected: str | None = None, auth: Auth | None = None) -> None:
    """Download a URL to `path`, continuing from `<path>.part` if an earlier download was interrupted.

    Args:
        expected: checksum of the file. Without it a `.part` is continued only if the server says that its
            file is still the same.

    Raises:
        Unreachable: the address does not answer, or refuses.
        PipelineError: the checksum is wrong; the file is deleted then.
        FileNotFoundError: the server has no such file.
    """
    part = beside(path, ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    resumed = part.exists()
    _download(url, part, expected, auth)
    if resumed and expected and checksum(part, expected) != expected:
        # the publisher's file may have changed since the first half was fetched
        part.unlink()
        _download(url, part, expected, auth)
    accept(part, path, expected, f"the download from {url}", "Run the command again to download it again.")
    beside(part, ".tag").unlink(missing_ok=True)


def _download(url: str, part: Path, expected: str | None, auth: Auth | None) -> None:
    """Complete `part`, connecting again as long as that brings more bytes."""
    failures = 0
    with requests.Session() as session:
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(max_retries=RETRY))
        while True:
            before = _size(part)
            try:
                return _request(session, url, part, expected, auth)
            except (requests.RequestException, HTTPError) as error:
                grown = _size(part) > before
                failures = 0 if grown else failures + 1
                refused = isinstance(error, requests.HTTPError)
                unreachable = isinstance(error, requests.ConnectionError) and not before and not grown
                if refused or unreachable or failures >= ATTEMPTS:
                    raise Unreachable(f"cannot fetch {url}: {_reason(error)}", _status(error)) from None
                sleep(min(2.0**failures / 4, 8))


def _request(
    session: requests.Session, url: str, part: Path, expected: str | None, auth: Auth | None
) -> None:
    """Send one request for what `part` lacks and append the answer, or replace `part` by it."""
    tag, size = beside(part, ".tag"), _size(part)
    version = tag.read_text() if tag.exists() else None
    headers = {"Accept-Encoding": "identity"}
    if size and (version or expected):
        headers["Range"] = f"bytes={size}-"
        if version:
            headers["If-Range"] = version
    with session.get(url, headers=headers, auth=auth, stream=True, timeout=TIMEOUT_SECONDS) as answer:
        content_range = answer.headers.get("Content-Range", "")
        if answer.status_code == requests.codes.requested_range_not_satisfiable and size:
            if content_range.endswith(f"/{size}"):
                return  # it was complete already
            part.unlink()
            raise requests.ConnectionError(f"{part.name} was longer than the file of {url}")
        if answer.status_code in (requests.codes.not_found, requests.codes.gone):
            raise FileNotFoundError(f"{url} does not exist (HTTP {answer.status_code})")
        answer.raise_for_status()
        # a server may ignore Range and send the whole file
        continues = answer.status_code == 206 and content_range.startswith(f"bytes {size}-")
        start = size if continues else 0
        _keep_version(tag, answer)
        with open(part, "ab" if start else "wb", buffering=0) as file:
            left = answer.raw.length_remaining
            total = None if left is None else start + left
            copy(answer.raw, file, total, part.name.removesuffix(".part"), start=start)


def _keep_version(tag: Path, answer: requests.Response) -> None:
    """Save what identifies the version of the server's file: a strong ETag, or its modification time."""
    etag = answer.headers.get("ETag", "W/")
    version = answer.headers.get("Last-Modified") if etag.startswith("W/") else etag
    if version:
        write_text(tag, version)
    else:
        tag.unlink(missing_ok=True)


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _reason(error: BaseException) -> str:
    """Return the innermost cause, without the query of a URL: in a redirect it is often a key."""
    while isinstance(cause := getattr(error, "reason", next(iter(error.args), None)), BaseException):
        error = cause
    return re.sub(r"\?\S+", "?...", str(error))


def _status(error: Exception) -> int | None:
    answer = error.response if isinstance(error, requests.HTTPError) else None
    return None if answer is None or answer.history else answer.status_code


def accept(part: Path, path: Path, expected: str | None, what: str, remedy: str) -> None:
    """Give a complete file its name.

    Args:
        what: what the file is, and `remedy`: what to do if its checksum is wrong, for the message.

    Raises:
        PipelineError: the checksum is not the expected one; the file is deleted.
    """
    found = checksum(part, expected) if expected else None
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


def copy(
    source: IO[bytes] | HTTPResponse, target: IO[bytes], total: int | None, name: str, *, start: int = 0
) -> None:
    """Copy an open file, with a progress bar on a terminal that begins at `start` of `total` bytes."""
    bar = {"total": total, "initial": start, "desc": name, "leave": False, "disable": None}
    with tqdm.wrapattr(target, "write", **bar) as writer:
        shutil.copyfileobj(source, writer, CHUNK_BYTES)


def beside(path: Path, suffix: str) -> Path:
    """Return the path with a suffix appended to its name."""
    return path.with_name(path.name + suffix)
