"""Writes are atomic whatever goes wrong; digests depend on contents alone."""

import os
import resource
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from pipeline.common import files
from pipeline.common.errors import PipelineError

ROOT = Path(__file__).parents[1]


class Crash(BaseException):
    """Not caught by `except Exception`."""


@pytest.fixture(params=["new", "replaced"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "file.bin"
    if request.param == "replaced":
        path.write_bytes(b"old")
    return path


def content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def test_the_content_appears_at_the_end_and_at_once(target: Path) -> None:
    before = content(target)
    with files.writing(target) as file:
        file.write(b"new")
        file.flush()
        assert content(target) == before
    assert target.read_bytes() == b"new"
    assert os.listdir(target.parent) == [target.name]


def write_half_and_raise(out: Any, error: type[BaseException]) -> None:
    (out.write_bytes if isinstance(out, Path) else out.write)(b"half")
    raise error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, Crash])
@pytest.mark.parametrize("how", [files.writing, files.replacing])
def test_an_exception_leaves_the_old_file_and_no_other(
    target: Path, how: Any, error: type[BaseException]
) -> None:
    before = content(target)
    with pytest.raises(error), how(target) as out:
        write_half_and_raise(out, error)
    assert content(target) == before
    assert os.listdir(target.parent) == ([target.name] if before else [])


def test_a_block_that_writes_nothing_replaces_nothing(target: Path) -> None:
    before = content(target)
    with pytest.raises(FileNotFoundError), files.replacing(target):
        pass
    assert content(target) == before


@pytest.mark.parametrize(
    "save",
    [lambda file: file.write(bytes(100_000)), lambda file: torch.save(torch.zeros(100_000), file)],
    ids=["bytes", "torch"],
)
def test_a_full_disk_leaves_the_old_file_and_no_other(
    target: Path, save: Callable[[IO[bytes]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """/dev/full fails every write with ENOSPC, as a full disk does."""
    before, real_open = content(target), open
    monkeypatch.setattr(files, "open", lambda _path, mode: real_open("/dev/full", mode), raising=False)
    with pytest.raises(OSError, match="No space left on device"), files.writing(target) as file:
        save(file)
    assert content(target) == before
    assert os.listdir(target.parent) == ([target.name] if before else [])


def test_a_file_over_the_limit_is_one_clear_message(target: Path) -> None:
    """A real short write: the process may write files of 4 KiB at most."""
    before = content(target)
    code = (
        "import sys; from pathlib import Path; from pipeline.common import errors, files\n"
        "errors.exit_with_message(lambda: files.write_text(Path(sys.argv[1]), 'x' * 100_000))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, target],
        cwd=ROOT,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
    )
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: {target}: File too large; nothing was left half-written")
    assert content(target) == before
    assert os.listdir(target.parent) == ([target.name] if before else [])


def test_missing_folders_are_made(tmp_path: Path) -> None:
    files.write_text(tmp_path / "a" / "b" / "c.txt", "é\n")
    assert (tmp_path / "a" / "b" / "c.txt").read_bytes() == "é\n".encode()


def place(name: str, folder: Path) -> Path:
    """A path at which nothing can be created."""
    (folder / "some.csv").touch()
    return Path("/proc") if name == "proc" else folder / "some.csv" / name


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("proc", r"nothing new can be made there \(No such file or directory\); name another place"),
        ("", r"some\.csv is a file, not a folder; name another place"),
        ("deeper", r"some\.csv is a file, not a folder; name another place"),
    ],
)
def test_an_output_where_none_can_be_says_so(name: str, reason: str, tmp_path: Path) -> None:
    folder = place(name, tmp_path)
    for write in (
        lambda: files.write_text(folder / "x.csv", "x"),
        lambda: files.write_text(folder / "x/x.csv", "x"),
        lambda: files.make_folder(folder / "x"),
        lambda: pq.write_table(pa.table({"a": [1]}), stack.enter_context(files.replacing(folder / "x.csv"))),
    ):
        with pytest.raises(PipelineError, match=reason) as caught, ExitStack() as stack:
            write()
        assert str(caught.value).startswith(f"{folder / 'x'}")
        assert ".tmp" not in str(caught.value)


def test_a_folder_for_outputs_may_be_there_and_is_no_file(tmp_path: Path) -> None:
    files.make_folder(tmp_path / "a/b")
    files.make_folder(tmp_path / "a/b")
    (tmp_path / "a/b/c").touch()
    with pytest.raises(PipelineError, match=r"^.*/c cannot be written: .*/c is a file, not a folder"):
        files.make_folder(tmp_path / "a/b/c")


def test_a_file_that_is_missing_while_another_is_written_stays_a_defect(target: Path) -> None:
    before = content(target)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.txt"), files.replacing(target):
        (target.parent / "nowhere.txt").read_bytes()
    assert content(target) == before
    assert os.listdir(target.parent) == ([target.name] if before else [])


def test_a_link_into_a_cache_is_replaced_and_the_cache_left_alone(tmp_path: Path) -> None:
    """DVC links its read-only cache into the working tree."""
    cached, hard, soft = tmp_path / "cached", tmp_path / "hard", tmp_path / "soft"
    cached.write_text("cached")
    cached.chmod(stat.S_IREAD)
    os.link(cached, hard)
    soft.symlink_to(cached)
    for path in (hard, soft):
        files.write_text(path, "mine")
        assert path.read_text() == "mine"
        assert not path.is_symlink()
    assert cached.read_text() == "cached"


def test_same_value_same_bytes(tmp_path: Path) -> None:
    a, b = tmp_path / "a.json", tmp_path / "b.json"
    files.write_json(a, {"x": [1, 2.5, None], "é": {"b": 1, "a": True}})
    files.write_json(b, {"é": {"a": True, "b": 1}, "x": [1, 2.5, None]})
    assert a.read_bytes() == b.read_bytes()
    assert files.read_json(a) == {"x": [1, 2.5, None], "é": {"b": 1, "a": True}}
    assert a.read_text().endswith("}\n")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_json_lacks_is_an_error_and_nothing_is_written(target: Path, value: float) -> None:
    before = content(target)
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(target, {"auc": value})
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.digest(value)
    assert content(target) == before


def test_equal_values_have_equal_digests_and_different_values_different_ones() -> None:
    assert files.digest({"a": 1, "b": [2]}) == files.digest({"b": [2], "a": 1})
    assert len({files.digest(value) for value in ({"a": 1}, {"a": "1"}, {"b": 1}, [1], 1, None)}) == 6
    assert files.digest(None) == "74234e98afe7498f", "digests must not change between versions"


def test_sha256_of_known_bytes(tmp_path: Path) -> None:
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    assert files.sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_folder_digest_covers_names_and_bytes_but_not_times(tmp_path: Path) -> None:
    def folder(name: str, contents: dict[str, str]) -> Path:
        for path, text in contents.items():
            files.write_text(tmp_path / name / path, text)
        return tmp_path / name

    one = files.folder_digest(folder("one", {"a": "1", "sub/b": "2"}))
    same = folder("two", {"sub/b": "2", "a": "1"})
    os.utime(same / "a", (0, 0))
    assert files.folder_digest(same) == one
    assert files.folder_digest(folder("three", {"a": "1", "sub/b": "3"})) != one
    assert files.folder_digest(folder("four", {"a": "1", "sub/c": "2"})) != one
    assert files.folder_digest(folder("five", {"a": "1", "b": "2"})) != one


def test_the_temporary_file_of_a_dead_process_is_removed_and_of_a_live_one_kept(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    dead, alive = tmp_path / f".a.json.{gone.pid}.tmp", tmp_path / f".a.json.{os.getppid()}.tmp"
    dead.touch()
    alive.touch()
    files.write_text(tmp_path / "a.json", "x")
    assert not dead.exists()
    assert alive.exists()
