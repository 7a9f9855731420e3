"""Put a dataset's files into its raw folder: from the publisher, a mirror, or the user's own disk.

A mirror is a folder or a URL with the layout `<source>/<file>`; it contains the unpacked files or the
publisher's archive. Files are downloaded into a cache folder and linked from there into the raw folder.
"""

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pipeline.common.errors import PipelineError
from pipeline.common.files import write_json
from pipeline.download.archive import unpack
from pipeline.download.fetch import Auth, Unreachable, accept, beside, copy, fetch
from pipeline.download.manifest import File, Source, manifest, matches_publisher
from pipeline.download.remote import fetch_all, is_remote


class NotInMirror(PipelineError):
    """A mirror lacks a file."""


def mirror_of(setting: str | None) -> str | None:
    """Return the mirror to use: the environment variable CTR_MIRROR, or else `mirror` of params.yaml."""
    return os.environ.get("CTR_MIRROR") or setting or None


def obtain(
    source: Source, folder: Path, *, cache: Path, mirror: str | None = None, auth: Auth | None = None
) -> None:
    """Put the source's files and `manifest.json` into `folder`.

    Args:
        cache: keeps the downloads; what is complete there is not fetched again.
        mirror: to use instead of the publisher.
        auth: signs requests to the publisher; never used for a mirror.

    Raises:
        NotInMirror: the mirror lacks a file.
        Unreachable: an address does not answer, or refuses.
        PipelineError: a file is unavailable, or its bytes are not the publisher's.
    """
    with _locked(cache):
        wanted = [file for file in source.files if not _is_complete(cache / file.name, file, mirror)]
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
    suffixes: tuple[str, ...] = ("",),
    names: Sequence[str] | None = None,
    further: Sequence[str] = (),
    licence: str = "the user's own data",
    cache: Path | None = None,
) -> None:
    """Copy the user's own file, or the files of a folder, into the raw folder and write `manifest.json`.

    They are copied, not linked, since DVC makes the files of the raw folder read-only.

    Args:
        path: of the file or folder; a relative one starts at the project's folder. Or an address: see
            `remote.fetch_all`.
        source: name for the manifest.
        suffixes: endings of the wanted files of a folder, such as `.csv` (default: all). Subfolders and
            names that begin with a dot or an underscore are left out.
        names: of the wanted files of a folder, whatever they end in (default: all with these endings).
        further: paths of files to copy beside them.
        licence: what its publisher allows, in a sentence.
        cache: folder that files come to from an address, and are linked from.

    Raises:
        Unreachable: an address does not answer, or refuses.
        PipelineError: a path does not exist, the folder contains no such file, or two files have one name.
    """
    own, fetched = Path(path).expanduser(), list[Path]()
    if cache is not None and is_remote(path):
        with _locked(cache):
            fetched = [_named(file) for file in fetch_all(str(path), cache, suffixes, names)]
            for file in fetched:
                _link(file, folder / file.name)
    found = [*fetched] or wanted_files(own, suffixes, names)
    for file in further_files(further):
        same = next((other for other in found if other.name == file.name), file)
        if not same.samefile(file):
            raise PipelineError(f"{file} has the name of {same}, another file of the dataset: rename it")
        found += [file] if same is file else []
    for file in found[len(fetched) :]:
        with open(file, "rb") as opened, open(folder / file.name, "wb") as target:
            copy(opened, target, file.stat().st_size, file.name)
    described = Source(source, url="", licence=licence, files=tuple(File(file.name) for file in found))
    content = {
        **manifest(described, folder),
        "publisher": None,
        "whole_folder": own.is_dir() and names is None,
    }
    write_json(folder / "manifest.json", content)


def wanted_files(path: Path, suffixes: tuple[str, ...], names: Sequence[str] | None) -> list[Path]:
    """Return what `copy_own` would copy; see there."""
    named_by = " (download.path of this dataset in params.yaml)"
    if names is None or not path.is_dir():
        return own_files(path, suffixes, named_by=named_by)
    return [file for name in sorted(set(names)) for file in own_files(path / name, named_by=named_by)]


def further_files(paths: Sequence[str], root: Path = Path()) -> list[Path]:
    """Return the files of `download.vectors`.

    Args:
        root: the project's folder.

    Raises:
        PipelineError: one is not there.
    """
    found = [root / Path(path).expanduser() for path in paths]
    for path in found:
        if not path.is_file():
            raise PipelineError(f"{path} is no file (download.vectors of this dataset in params.yaml)")
    return [_named(path) for path in found]


def own_files(path: Path, suffixes: tuple[str, ...] = ("",), *, named_by: str = "") -> list[Path]:
    """Return the user's own file, or the files of a folder that `copy_own` would copy, by name.

    Args:
        path: of the file or folder.
        suffixes: endings of the wanted files of a folder.
        named_by: where the path comes from, for the message.

    Raises:
        PipelineError: the path does not exist, or the folder contains no such file.
    """
    if not path.exists():
        raise PipelineError(f"{path} does not exist{named_by}")
    if not path.is_dir():
        return [_named(path)]
    files = [file for file in sorted(path.iterdir()) if file.is_file() and file.name[0] not in "._"]
    found = [file for file in files if file.name.endswith(suffixes)]
    if not found:
        wanted, others = ", ".join(filter(None, suffixes)) or "anything", [file.name for file in files[:4]]
        cure = f"; name its files under `download`: `files: {others}`" if others and suffixes != ("",) else ""
        raise PipelineError(f"{path} contains no file that ends in {wanted}{named_by}{cure}")
    return [_named(file) for file in found]


def _named(path: Path) -> Path:
    """Return the path; raise if the file's name cannot be written into a manifest or to a terminal."""
    try:
        printable = path.name.encode().decode().isprintable()
    except UnicodeEncodeError:
        printable = False
    if not printable:
        raise PipelineError(
            f"the file {os.fsencode(path)!r} has bytes in its name that are no text in UTF-8, or control "
            "characters: rename it"
        )
    return path


def _from_publisher(source: Source, wanted: list[File], cache: Path, auth: Auth | None) -> None:
    hint = (
        "Without network, set the environment variable CTR_MIRROR (or `mirror` in params.yaml) to a "
        f"folder or URL that contains {_layout(source)}; the publisher's address is {source.url}"
    )
    try:
        if source.archive:
            archive = cache / source.archive
            if not _is_complete(archive, File(source.archive, source.checksum), None):
                fetch(source.url, archive, expected=source.checksum, auth=auth)
            _unpack(source, wanted, archive, cache, None)
        else:
            for file in wanted:
                url = f"{source.url.rstrip('/')}/{file.name}"
                fetch(url, cache / file.name, expected=file.checksum, auth=auth)
    except FileNotFoundError as error:
        raise PipelineError(f"{source.name}: {error}. {hint}") from None
    except Unreachable as error:
        raise Unreachable(f"{source.name}: {error}. {hint}", error.status) from None


def _from_mirror(source: Source, wanted: list[File], cache: Path, mirror: str) -> None:
    missing = [file for file in wanted if not _mirrored(source, file, cache, mirror)]
    if not missing:
        return
    archive = File(source.archive, source.checksum) if source.archive else None
    if archive and _mirrored(source, archive, cache, mirror):
        _unpack(source, missing, cache / archive.name, cache, mirror)
        return
    needed = [file.name for file in missing if not file.optional]
    if needed or len(missing) == len(source.files):
        raise NotInMirror(
            f"the mirror {mirror} lacks {', '.join(needed) or 'every file'} of {source.name}: it must "
            f"contain {_layout(source)}. Unset CTR_MIRROR and `mirror` in params.yaml to fetch from the "
            f"publisher, {source.url}"
        )


def _mirrored(source: Source, file: File, cache: Path, mirror: str) -> bool:
    """Copy one file from the mirror into the cache; return whether the mirror has it."""
    path = cache / file.name
    expected = None if file.rebuilt else file.checksum
    if mirror.startswith(("http://", "https://")):
        try:
            fetch(f"{mirror.rstrip('/')}/{source.name}/{file.name}", path, expected=expected)
        except FileNotFoundError:
            return False
        return True
    mirrored = Path(mirror).expanduser() / source.name / file.name
    if not mirrored.is_file():
        return False
    part = beside(path, ".part")
    with open(mirrored, "rb") as opened, open(part, "wb") as target:
        copy(opened, target, mirrored.stat().st_size, file.name)
    accept(part, path, expected, str(mirrored), "Replace it in the mirror, or use no mirror.")
    return True


def _unpack(source: Source, wanted: list[File], archive: Path, cache: Path, mirror: str | None) -> None:
    """Unpack the wanted files into the cache and check each."""
    parts = {f"{source.inside}{file.name}": beside(cache / file.name, ".part") for file in wanted}
    unpack(archive, parts, max_bytes=source.max_bytes)
    for file, (member, part) in zip(wanted, parts.items(), strict=True):
        expected = None if file.rebuilt and mirror else file.checksum
        what, remedy = f"{member} in {archive}", f"Delete {archive} and try again."
        accept(part, cache / file.name, expected, what, remedy)


def _is_complete(path: Path, file: File, mirror: str | None) -> bool:
    """Whether the cache already has a file as it should be."""
    if not path.exists():
        return False
    return matches_publisher(path, file) is not False or (file.rebuilt and mirror is not None)


def _link(path: Path, to: Path) -> None:
    """Hard-link a file into the raw folder, or copy it where the file system cannot."""
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
def _locked(cache: Path) -> Iterator[None]:
    """Hold the cache folder: downloads of one source write the same files, so the second one waits."""
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / ".lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
