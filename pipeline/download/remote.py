"""The user's own log in an object store or on a server: s3://, gs:// and whatever else fsspec knows, https://.

The files come by way of a cache folder. One that is there is fetched again only if the store has another
version, and a download that was killed goes on from its `.part`, if that is of the same version. Who may read
a store is up to its own library, which looks into the environment and the user's configuration: params.yaml
holds no keys.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pipeline.common.errors import PipelineError
from pipeline.common.files import write_text
from pipeline.common.text import without_secrets
from pipeline.download.fetch import Unreachable, accept, beside, copy, fetch

T = TypeVar("T")
PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}
# what tells one version of a file from another, where a store has it
VERSION_KEYS = (
    "ETag",
    "etag",
    "generation",
    "md5Hash",
    "LastModified",
    "last_modified",
    "updated",
    "mtime",
    "created",
)
REASON_LETTERS = 300


class Remote(NamedTuple):
    """A file of a store.

    Attributes:
        name: its name in the raw folder.
        path: in the store.
        size: in bytes; None if the store does not say.
        version: changes with the content; None if the store has nothing like it.
    """

    name: str
    path: str
    size: int | None
    version: str | None


def is_remote(path: str | Path) -> bool:
    """Whether a path of params.yaml is an address."""
    return "://" in str(path)


def fetch_all(
    address: str, cache: Path, suffixes: tuple[str, ...], names: Sequence[str] | None
) -> list[Path]:
    """Fetch a file, the files of a folder, or those that a pattern names, into a folder of the cache.

    Args:
        address: of the file or folder, or a pattern with `*`, `?` or `[...]`.
        cache: folder for what comes from all addresses.
        suffixes: endings of the wanted files of a folder. Subfolders, and names that begin with a dot or an
            underscore, are left out, also of a pattern.
        names: of the wanted files of a folder, whatever they end in (default: all with these endings).

    Returns:
        the files, by name.

    Raises:
        Unreachable: the store does not answer, or refuses.
        PipelineError: there is no such file, two have one name, or a package is missing.
    """
    folder = cache / hashlib.sha256(address.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    if address.startswith(("http://", "https://")):
        name = address.split("?", maxsplit=1)[0].rstrip("/").rpartition("/")[2]
        path = folder / name
        try:
            fetch(address, path)
        except FileNotFoundError as error:
            raise PipelineError(f"{without_secrets(str(error))}{_NAMED_BY}") from None
        return [path]
    store, root = _store(address)
    found = _listed(store, root, address, suffixes, names)
    for file in found:
        _fetch(store, file, folder / file.name, address)
    return [folder / file.name for file in found]


_NAMED_BY = " (download.path of this dataset in params.yaml)"


def _store(address: str) -> tuple[Any, str]:
    """Return the file system of an address, and the path there."""
    import fsspec

    scheme = address.partition("://")[0]
    try:
        store, root = _asked(address, lambda: fsspec.core.url_to_fs(address, skip_instance_cache=True))
    except ImportError:
        package = PACKAGES.get(scheme, "an fsspec file system")
        raise PipelineError(
            f"{without_secrets(address)} needs {package}: install the extra [remote] (pip install -e "
            "'.[remote]')"
        ) from None
    except ValueError as error:
        raise PipelineError(f"{without_secrets(address)}: {error}{_NAMED_BY}") from None
    return store, root


def _listed(
    store: Any, root: str, address: str, suffixes: tuple[str, ...], names: Sequence[str] | None
) -> list[Remote]:
    where = without_secrets(address)
    if any(sign in root for sign in "*?["):
        infos = list(_asked(address, lambda: store.glob(root, detail=True)).values())
        wanted = _files(infos)
    elif not _asked(address, lambda: store.exists(root)):
        raise PipelineError(f"{where} does not exist{_NAMED_BY}")
    elif _asked(address, lambda: store.isdir(root)):
        infos = _asked(address, lambda: store.ls(root, detail=True))
        wanted = {
            name: every
            for name, every in _files(infos).items()
            if (name.endswith(suffixes) if names is None else name in names)
        }
        if names is not None and (missing := sorted(set(names) - wanted.keys())):
            raise PipelineError(f"{where} has no {', '.join(missing)} (download.files in params.yaml)")
    else:
        wanted = _files([_asked(address, lambda: store.info(root))])
    if not wanted:
        ends = f" that ends in {', '.join(filter(None, suffixes))}" if suffixes != ("",) else ""
        raise PipelineError(f"{where} contains no file{ends}{_NAMED_BY}")
    for name, every in wanted.items():
        if len(every) > 1:
            both = " and ".join(str(info["name"]) for info in every[:2])
            raise PipelineError(f"{where} names two files {name!r}, {both}: name their folders one by one")
    return [_remote(name, info) for name, (info,) in sorted(wanted.items())]


def _files(infos: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return what is said of the files, and not of folders, by their names."""
    found: dict[str, list[dict[str, Any]]] = {}
    for info in infos:
        name = str(info["name"]).rstrip("/").rpartition("/")[2]
        if info["type"] == "file" and name and name[0] not in "._":
            found.setdefault(name, []).append(info)
    return found


def _remote(name: str, info: dict[str, Any]) -> Remote:
    told = [f"{key} {info[key]}" for key in VERSION_KEYS if info.get(key) is not None]
    version = f"{info.get('size')} {told[0]}" if told else None
    return Remote(name, str(info["name"]), info.get("size"), version)


def _fetch(store: Any, file: Remote, path: Path, address: str) -> None:
    """Bring a file up to date, going on from what an earlier process left of the same version."""
    part, tag = beside(path, ".part"), beside(path, ".version")
    same = file.version is not None and tag.exists() and tag.read_text(encoding="utf-8") == file.version
    if same and path.exists() and path.stat().st_size == file.size:
        return
    if not same:
        part.unlink(missing_ok=True)
    if file.version is not None:
        write_text(tag, file.version)
    start = part.stat().st_size if part.exists() else 0
    with _asked(address, lambda: store.open(file.path, "rb")) as opened, open(part, "ab") as target:
        if start:
            _asked(address, lambda: opened.seek(start))
        copy(_Reader(opened, address), target, file.size, file.name, start=start)  # type: ignore[arg-type]
    if file.size is not None and part.stat().st_size != file.size:
        found = part.stat().st_size
        part.unlink()
        raise Unreachable(f"{file.name}: {found} of {file.size} bytes came from {without_secrets(address)}")
    accept(part, path, None, without_secrets(address), "")
    os.chmod(path, 0o644)


class _Reader:
    """What reads from a store, whose errors are told apart from those of this machine's disk."""

    def __init__(self, opened: Any, address: str) -> None:
        self._opened, self._address = opened, address

    def read(self, size: int) -> bytes:
        data: bytes = _asked(self._address, lambda: self._opened.read(size))
        return data


def _asked(address: str, ask: Callable[[], T]) -> T:
    """Return what a store answers.

    Raises:
        Unreachable: it does not, or refuses.
    """
    try:
        return ask()
    except (ImportError, ValueError):
        raise
    except Exception as error:  # noqa: BLE001  each store has errors of its own
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise Unreachable(
            f"cannot read {without_secrets(address)}: {without_secrets(reason)[:REASON_LETTERS]}{_NAMED_BY}"
        ) from None
