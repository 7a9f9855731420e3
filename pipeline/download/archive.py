"""Members of a zip archive, unpacked safely."""

import stat
import zipfile
import zlib
from pathlib import Path

from pipeline.common.errors import PipelineError
from pipeline.download.fetch import copy

MAX_RATIO = 1000  # unpacked bytes per packed byte; a member above it is taken for a zip bomb


def unpack(archive: Path, members: dict[str, Path], *, max_bytes: int) -> None:
    """Unpack the named members of a zip archive to the given paths, and nothing else.

    Args:
        members: name -> path to write to; a name `*/x` is that of a file x in any folder.
        max_bytes: of all of them together, unpacked.

    Raises:
        PipelineError: no zip archive, damaged, a member is missing, not a regular file or too large.
    """
    left = max_bytes
    try:
        with zipfile.ZipFile(archive) as opened:
            for name, path in members.items():
                info = _member(opened, name, archive)
                left -= info.file_size
                if left < 0 or info.file_size > MAX_RATIO * max(info.compress_size, 1):
                    raise PipelineError(
                        f"{archive}: {name} would unpack from {info.compress_size} to {info.file_size} "
                        "bytes; refused"
                    )
                if stat.S_ISLNK(info.external_attr >> 16) or info.is_dir():
                    raise PipelineError(f"{archive}: {name} is not a regular file; refused")
                with opened.open(info) as packed, open(path, "wb") as file:
                    copy(packed, file, info.file_size, path.name.removesuffix(".part"))
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise PipelineError(
            f"{archive} cannot be unpacked ({error}); delete it and run the command again"
        ) from None


def _member(opened: zipfile.ZipFile, name: str, archive: Path) -> zipfile.ZipInfo:
    """Find a member by its name, or by the end of its name after `*/`."""
    found = [name]
    if name.startswith("*/"):
        found = [known for known in opened.namelist() if f"/{known}".endswith(name.removeprefix("*"))]
    if len(found) > 1:
        raise PipelineError(f"{archive}: the archive contains several: {', '.join(found)}")
    try:
        return opened.getinfo(found[0])
    except (KeyError, IndexError):
        raise PipelineError(f"{archive}: the archive does not contain {name}") from None
