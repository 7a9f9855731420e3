"""Fetch raw files from their publisher or from a mirror: resumable, checked, unpacked safely.

A mirror is a folder or a URL with the layout `<source>/<file>`; it may hold the unpacked files or the
publisher's archive. Files arrive in a cache folder under the name `<file>.part` and get their own name
when they are whole and their digest is right; so a killed download goes on where it was. From the
cache they are linked into the dataset's raw folder, with a manifest that says what they are. The
manifest depends on the bytes alone and not on where they came from.
"""

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from requests.auth import AuthBase

from pipeline.common.errors import PipelineError
from pipeline.common.files import write_json
from pipeline.download.archive import unpack
from pipeline.download.fetch import Unreachable, accept, beside, copy, fetch
from pipeline.download.manifest import File, Source, manifest, matches_publisher


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
        with open(file, "rb") as opened, open(folder / file.name, "wb") as target:
            copy(opened, target, file.stat().st_size, file.name)
    files = tuple(File(file.name) for file in found)
    own = Source(name=source, url="", licence=licence, files=files)
    content = {**manifest(own, folder), "publisher": None, "whole_folder": origin.is_dir()}
    write_json(folder / "manifest.json", content)


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
    part = beside(path, ".part")
    with open(origin, "rb") as opened, open(part, "wb") as target:
        copy(opened, target, origin.stat().st_size, file.name)
    accept(part, path, expected, str(origin), "Replace it in the mirror, or use no mirror.")
    return True


def _members(source: Source, wanted: list[File], archive: Path, cache: Path, mirror: str | None) -> None:
    """Unpack the wanted files and check each."""
    parts = {f"{source.inside}{file.name}": beside(cache / file.name, ".part") for file in wanted}
    unpack(archive, parts, limit=source.limit)
    for file, (member, part) in zip(wanted, parts.items(), strict=True):
        expected = None if file.rebuilt and mirror else file.digest
        accept(
            part, cache / file.name, expected, f"{member} in {archive}", f"Delete {archive} and try again."
        )


class Lacking(PipelineError):
    """A mirror that does not have a file."""


def _whole(path: Path, file: File, mirror: str | None) -> bool:
    """Whether the cache holds a file as it should be; what is not so is fetched again."""
    if not path.exists():
        return False
    return matches_publisher(path, file) is not False or (file.rebuilt and mirror is not None)


def _link(path: Path, to: Path) -> None:
    """Make the file appear in the raw folder, sharing its bytes where the file system can."""
    to.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path, to)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        shutil.copyfile(path, to)


def _layout(source: Source) -> str:
    names = ", ".join(f"{source.name}/{file.name}" for file in source.files)
    return names + (f" (or {source.name}/{source.archive})" if source.archive else "")


@contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """Hold the cache folder: two downloads of one source write the same files, so one waits."""
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / ".lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
