"""A sealed folder: whatever happens to one of its files is noticed, named, and can be mended as told."""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.commands import checks
from pipeline.common import files
from pipeline.common.errors import PipelineError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    for name, content in {"a.npy": "aaaa", "sub/b c.json": "{}", "käse.txt": "x"}.items():
        files.write_text(folder / name, content)
    files.seal(folder)
    return folder


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "one bit": flip,
    "gone": Path.unlink,
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


def test_a_whole_folder_has_the_digests_that_sha256sum_finds(folder: Path) -> None:
    found = files.check_folder(folder, "no cure")
    assert found == {
        name: digest for name, digest in files.file_digests(folder).items() if name != files.SEAL
    }
    subprocess.run(["sha256sum", "--check", "--strict", files.SEAL], cwd=folder, check=True)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["a.npy", "sub/b c.json", "käse.txt", files.SEAL])
def test_any_damage_is_named_with_the_cure(folder: Path, name: str, damage: str) -> None:
    DAMAGES[damage](folder / name)
    with pytest.raises(PipelineError, match="make it again") as error:
        files.check_folder(folder, "make it again")
    assert str(folder / name) in str(error.value)


def test_a_file_that_was_added_is_not_taken_for_one_of_the_stage(folder: Path) -> None:
    (folder / "train.time.npy").write_bytes(b"new")
    with pytest.raises(PipelineError, match=r"train\.time\.npy was changed .* has nothing"):
        files.check_sealed(folder / "train.time.npy", "run again")


def test_the_copies_that_a_cache_shares_are_named_too(folder: Path, tmp_path: Path) -> None:
    """A byte written into a linked file changes the cached copy, which would come back otherwise."""
    copies = [tmp_path / ".dvc/cache/files/md5/ab/cdef", tmp_path / "data/downloads/source/a.npy"]
    for copy in copies:
        copy.parent.mkdir(parents=True)
        copy.hardlink_to(folder / "a.npy")
    (tmp_path / ".dvc/cache/files/md5/ab/other").write_text("aaaa")
    flip(folder / "a.npy")
    with pytest.raises(PipelineError) as error:
        files.check_folder(folder, "run again")
    removed = re.findall(r"(\S+?)(?:,| and)", str(error.value).rpartition("; remove ")[2])
    assert set(removed) == {str(path) for path in [folder / "a.npy", *copies]}


def test_a_name_with_a_line_break_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a\nb").write_text("")
    with pytest.raises(PipelineError, match="rename it"):
        files.seal(tmp_path)


def test_every_byte_is_checked_where_dvc_looks_at_times_alone(tmp_path: Path) -> None:
    """`ctr check --files`."""
    for name in ("raw/a", "runs/a/lr/default"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "file").write_bytes(b"content")
        files.seal(tmp_path / "data" / name)
    assert checks.files(tmp_path) == "2 files as the stages left them"
    path = tmp_path / "data/runs/a/lr/default/file"
    times = path.stat()
    path.write_bytes(b"contenT")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    files._sha256_once.cache_clear()  # as in a new process
    with pytest.raises(PipelineError, match=r"default/file was changed .* then run `dvc repro`"):
        checks.files(tmp_path)
