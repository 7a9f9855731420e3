"""Members of a zip archive, unpacked safely."""

import stat
import zipfile
import zlib
from pathlib import Path

from pipeline.common.errors import PipelineError
from pipeline.download.fetch import copy

RATIO = 1000  # an archive member that unpacks to more than this many times its size is a bomb


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
                    copy(packed, file, info.file_size, path.name.removesuffix(".part"))
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
