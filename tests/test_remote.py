"""A log at an address: a file, a folder or a pattern; killed downloads go on, nothing is fetched twice."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import web
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem

from pipeline.common.errors import PipelineError
from pipeline.datasets import tabular
from pipeline.download.fetch import Unreachable

LOGS = {
    "a.csv": "user,click\nu,1\n",
    "b.csv": "user,click\nv,0\n",
    "notes.md": "no table",
    "_temporary.csv": "x",
}


@pytest.fixture
def store() -> Iterator[MemoryFileSystem]:
    """fsspec's file system in memory, with a folder of logs."""
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]
    for name, text in LOGS.items():
        memory.pipe(f"/logs/{name}", text.encode())
    memory.pipe("/logs/older/a.csv", b"user,click\nold,1\n")
    yield memory
    memory.store.clear()


def taken(folder: Path, path: str, **more: Any) -> dict[str, str]:
    """What the download stage puts into the raw folder."""
    raw = folder / "raw"
    for old in raw.glob("*"):
        old.unlink()
    raw.mkdir(parents=True, exist_ok=True)
    tabular.download(raw, folder / "cache", path=path, **more)
    manifest = json.loads((raw / "manifest.json").read_text())
    assert manifest["publisher"] is None and manifest["missing"] == []
    files = {path.name: path.read_text() for path in sorted(raw.iterdir()) if path.name != "manifest.json"}
    assert list(manifest["files"]) == list(files)
    return files


def some(*names: str) -> dict[str, str]:
    return {name: LOGS[name] for name in names}


def test_a_file_a_folder_named_files_and_a_pattern(store: MemoryFileSystem, tmp_path: Path) -> None:
    assert taken(tmp_path, "memory://logs/a.csv") == some("a.csv")
    assert taken(tmp_path, "memory://logs") == some("a.csv", "b.csv")
    assert taken(tmp_path, "memory://logs", files=["notes.md", "b.csv"]) == some("b.csv", "notes.md")
    assert taken(tmp_path, "memory://logs/*.csv") == some("a.csv", "b.csv")


def test_what_is_there_is_not_fetched_again_and_what_has_changed_is(
    store: MemoryFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    go = MemoryFileSystem.open
    monkeypatch.setattr(
        MemoryFileSystem, "open", lambda self, path, *a, **k: opened.append(path) or go(self, path, *a, **k)
    )
    first = taken(tmp_path, "memory://logs")
    assert len(opened) == 2
    assert taken(tmp_path, "memory://logs") == first
    assert len(opened) == 2
    monkeypatch.undo()
    store.pipe("/logs/b.csv", b"user,click\nw,1\n")  # as long as before
    assert taken(tmp_path, "memory://logs")["b.csv"] == "user,click\nw,1\n"


class Lost(BaseException):
    """Stands for a process that goes away in the middle."""


@pytest.mark.parametrize("changed", [False, True])
def test_a_download_goes_on_where_it_was_killed_unless_the_file_is_another(
    store: MemoryFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: bool
) -> None:
    text = b"user,click\n" + b"".join(b"u%d,1\n" % i for i in range(40_000))
    store.pipe("/big/log.csv", text)
    go, read = MemoryFile.read, list[int]()

    def dies(self: MemoryFile, size: int = -1) -> bytes:
        read.append(self.tell())
        if len(read) == 4:
            raise Lost
        return go(self, size)

    monkeypatch.setattr(MemoryFile, "read", dies)
    with pytest.raises(Lost):
        taken(tmp_path, "memory://big")
    assert not list((tmp_path / "cache").rglob("*.csv"))
    if changed:
        text = text.replace(b"u", b"w")
        store.pipe("/big/log.csv", text)
    read[:] = [0] * 4
    assert taken(tmp_path, "memory://big")["log.csv"].encode() == text
    assert (read[4] == 0) == changed


def test_messages_name_what_is_wrong_and_no_secret(
    store: MemoryFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path, reason in (
        ("memory://nowhere/log.csv", r"memory://nowhere/log.csv does not exist \(download.path"),
        ("memory://logs/*.parquet", "contains no file"),
        ("memory://logs/**/a.csv", "names two files 'a.csv'"),
        ("quatsch://me:secret@bucket/log.csv", r"quatsch://\*\*\*@bucket/log.csv: Protocol not known"),
    ):
        with pytest.raises(PipelineError, match=reason):
            taken(tmp_path, path)
    with pytest.raises(PipelineError, match=r"has no c.csv \(download.files"):
        taken(tmp_path, "memory://logs", files=["a.csv", "c.csv"])

    def refuses(*_: Any, **__: Any) -> None:
        raise OSError("403 for https://me:secret@host/?X-Amz-Signature=secret")

    monkeypatch.setattr(MemoryFileSystem, "exists", refuses)
    with pytest.raises(Unreachable, match="cannot read memory://logs: 403") as info:
        taken(tmp_path, "memory://logs")
    assert "secret" not in str(info.value)


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(PipelineError, match=r"gs://bucket/log.csv needs gcsfs: install the extra \[remote\]"):
        taken(tmp_path, "gs://bucket/log.csv")


def test_an_address_of_the_web_is_one_file(tmp_path: Path) -> None:
    with web.serving() as site:
        site.files["log.csv"] = LOGS["a.csv"].encode()
        assert taken(tmp_path, f"{site.url}/log.csv") == {"log.csv": LOGS["a.csv"]}
        with pytest.raises(PipelineError, match="does not exist"):
            taken(tmp_path, f"{site.url}/none.csv")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An S3 of moto's on this machine, with the logs in a bucket."""
    pytest.importorskip("s3fs", reason="the extra [remote] is not installed")
    pytest.importorskip("moto.server", reason="no moto: pip install 'moto[server]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    out = subprocess.DEVNULL
    server = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(key, "testing")
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        while server.poll() is None:
            with socket.socket() as trial:
                if trial.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        store = fsspec.filesystem("s3", skip_instance_cache=True)
        store.mkdir("clicks")
        for name, text in LOGS.items():
            store.pipe(f"clicks/logs/{name}", text.encode())
        yield "s3://clicks"
    finally:
        server.kill()
        server.wait()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # what the library of the store does with its sockets is its affair
def test_s3(bucket: str, tmp_path: Path) -> None:
    assert taken(tmp_path, f"{bucket}/logs") == some("a.csv", "b.csv")
    assert taken(tmp_path, f"{bucket}/logs/b*") == some("b.csv")
    with pytest.raises(PipelineError, match="does not exist"):
        taken(tmp_path, f"{bucket}/none.csv")
    cached = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.csv")}
    assert taken(tmp_path, f"{bucket}/logs") == some("a.csv", "b.csv")
    assert {path: path.stat().st_mtime_ns for path in cached} == cached
