import errno
import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from requests.auth import HTTPBasicAuth
from urllib3.util import Retry
from web import Site, serving

from pipeline.common.errors import PipelineError, exit_with_message
from pipeline.download.archive import unpack
from pipeline.download.fetch import CHUNK_BYTES, Unreachable, fetch
from pipeline.download.manifest import File, Source, checksum, manifest, origin
from pipeline.download.obtain import NotInMirror, mirror_of, obtain

BODY = b"".join(hashlib.sha256(str(i).encode()).digest() for i in range(1 << 14))  # 512 KiB, no two alike
SMALL = b"user|age\n1|24\n"


def sha(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("pipeline.download.fetch.sleep", lambda _: None)
    monkeypatch.setattr("pipeline.download.fetch.RETRY", Retry(5, status_forcelist=(503,)))  # without waiting
    with serving() as offered:
        yield offered


def make_zip(path: Path, members: dict[str, bytes]) -> bytes:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, data in members.items():
            opened.writestr(name, data)
    return path.read_bytes()


@pytest.fixture
def source(tmp_path: Path, site: Site) -> Source:
    """A publisher with an archive of two files."""
    data = make_zip(tmp_path / "made.zip", {"set/big.bin": BODY, "set/small.txt": SMALL, "set/README": b"x"})
    site.files["set.zip"] = data
    return Source(
        name="set",
        url=f"{site.url}/set.zip",
        archive="set.zip",
        checksum=f"md5:{hashlib.md5(data).hexdigest()}",
        inside="set/",
        licence="test",
        files=(File("big.bin", sha(BODY)), File("small.txt", sha(SMALL))),
    )


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_files_come_from_the_publishers_archive_and_the_manifest_describes_them(
    tmp_path: Path, source: Source
):
    obtain(source, tmp_path / "raw", cache=tmp_path / "cache")
    assert listing(tmp_path / "raw") == ["big.bin", "manifest.json", "small.txt"]
    assert (tmp_path / "raw/big.bin").read_bytes() == BODY
    described = json.loads((tmp_path / "raw/manifest.json").read_text())
    assert described["publisher"] == source.url
    assert described["licence"] == "test"
    assert described["matches_publisher"] is True
    assert described["files"]["small.txt"] == {
        "bytes": len(SMALL),
        "sha256": hashlib.sha256(SMALL).hexdigest(),
        "matches_publisher": True,
    }
    assert not list((tmp_path / "cache").glob("*.part"))


def test_a_file_in_the_cache_is_not_fetched_again_unless_it_was_changed(
    tmp_path: Path, source: Source, site: Site
):
    obtain(source, tmp_path / "raw", cache=tmp_path / "cache")
    asked = len(site.asked)
    obtain(source, tmp_path / "again", cache=tmp_path / "cache")
    assert len(site.asked) == asked
    (tmp_path / "cache/small.txt").unlink()
    (tmp_path / "cache/small.txt").write_bytes(b"changed")
    (tmp_path / "cache/set.zip").unlink()
    obtain(source, tmp_path / "third", cache=tmp_path / "cache")
    assert len(site.asked) == asked + 1
    assert (tmp_path / "third/small.txt").read_bytes() == SMALL


@pytest.mark.parametrize("kind", ["unpacked", "archive", "url", "url of the archive"])
def test_a_mirror_gives_the_same_folder_byte_for_byte(tmp_path: Path, source: Source, site: Site, kind: str):
    obtain(source, tmp_path / "raw", cache=tmp_path / "cache")
    site.asked.clear()
    mirror = tmp_path / "mirror"
    (mirror / "set").mkdir(parents=True)
    if kind == "unpacked":
        (mirror / "set/big.bin").write_bytes(BODY)
        (mirror / "set/small.txt").write_bytes(SMALL)
    elif kind == "archive":
        (mirror / "set/set.zip").write_bytes(site.files["set.zip"])
    elif kind == "url":
        site.files |= {"m/set/big.bin": BODY, "m/set/small.txt": SMALL}
    else:
        site.files["m/set/set.zip"] = site.files["set.zip"]
    where = f"{site.url}/m/" if kind.startswith("url") else str(mirror)
    obtain(source, tmp_path / "mirrored", cache=tmp_path / "other", mirror=where)
    assert "/set.zip" not in [path for path, _ in site.asked]
    assert listing(tmp_path / "mirrored") == listing(tmp_path / "raw")
    for name in listing(tmp_path / "raw"):
        assert (tmp_path / "mirrored" / name).read_bytes() == (tmp_path / "raw" / name).read_bytes()


def test_the_environment_overrides_the_mirror_of_the_params(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("CTR_MIRROR", raising=False)
    assert mirror_of(None) is None
    assert mirror_of("here") == "here"
    monkeypatch.setenv("CTR_MIRROR", "there")
    assert mirror_of("here") == "there"


def test_a_mirror_with_other_bytes_is_an_error_that_names_file_and_checksums(tmp_path: Path, source: Source):
    mirror = tmp_path / "mirror/set"
    mirror.mkdir(parents=True)
    (mirror / "big.bin").write_bytes(BODY[:-1])
    (mirror / "small.txt").write_bytes(SMALL)
    with pytest.raises(PipelineError) as caught:
        obtain(source, tmp_path / "raw", cache=tmp_path / "cache", mirror=str(mirror.parent))
    for part in ("big.bin", sha(BODY), sha(BODY[:-1]), str(mirror), "mirror"):
        assert part in str(caught.value)
    assert not listing(tmp_path / "raw")
    assert not list((tmp_path / "cache").glob("*big*"))


def test_a_rebuilt_file_of_a_mirror_is_taken_and_the_manifest_says_so(
    tmp_path: Path, source: Source, site: Site
):
    source = replace(source, files=(replace(source.files[0], rebuilt=True), source.files[1]))
    mirror = tmp_path / "mirror/set"
    mirror.mkdir(parents=True)
    (mirror / "big.bin").write_bytes(BODY[::-1])
    (mirror / "small.txt").write_bytes(SMALL)
    cache = tmp_path / "cache"
    obtain(source, tmp_path / "raw", cache=cache, mirror=str(mirror.parent))
    described = manifest(source, tmp_path / "raw")
    assert described["matches_publisher"] is False
    assert described["files"]["big.bin"]["matches_publisher"] is False
    assert described["files"]["small.txt"]["matches_publisher"] is True
    # without the mirror the publisher's own file is wanted
    obtain(source, tmp_path / "own", cache=cache)
    assert (tmp_path / "own/big.bin").read_bytes() == BODY
    assert manifest(source, tmp_path / "own")["matches_publisher"] is True


def test_an_optional_file_may_be_missing_in_a_mirror_and_a_needed_one_may_not(tmp_path: Path, source: Source):
    mirror = tmp_path / "mirror/set"
    mirror.mkdir(parents=True)
    (mirror / "small.txt").write_bytes(SMALL)
    with pytest.raises(
        PipelineError, match=r"lacks big\.bin of set: it must contain set/big\.bin, set/small\.txt"
    ):
        obtain(source, tmp_path / "raw", cache=tmp_path / "cache", mirror=str(mirror.parent))
    partial = replace(source, files=(replace(source.files[0], optional=True), source.files[1]))
    obtain(partial, tmp_path / "raw", cache=tmp_path / "cache", mirror=str(mirror.parent))
    described = manifest(partial, tmp_path / "raw")
    assert described["missing"] == ["big.bin"]
    assert described["matches_publisher"] is False


def test_without_network_and_mirror_the_error_says_what_to_set(tmp_path: Path, source: Source):
    nowhere = replace(source, url="http://127.0.0.1:9/set.zip")
    with pytest.raises(PipelineError) as caught:
        obtain(nowhere, tmp_path / "raw", cache=tmp_path / "cache")
    for part in ("CTR_MIRROR", "set/big.bin", "set/set.zip", "http://127.0.0.1:9/set.zip"):
        assert part in str(caught.value)
    assert not listing(tmp_path / "raw")


def test_a_publisher_that_no_longer_has_the_file_is_an_error_with_the_same_advice(
    tmp_path: Path, source: Source, site: Site
):
    site.files.clear()
    with pytest.raises(PipelineError, match=r"404.*CTR_MIRROR"):
        obtain(source, tmp_path / "raw", cache=tmp_path / "cache")


def test_an_altered_download_is_refused_deleted_and_fetched_anew_the_next_time(
    tmp_path: Path, source: Source, site: Site
):
    good = site.files["set.zip"]
    site.files["set.zip"] = good[:-100]
    with pytest.raises(PipelineError, match=r"set\.zip: .* truncated or altered: expected md5:.*found md5:"):
        obtain(source, tmp_path / "raw", cache=tmp_path / "cache")
    assert not listing(tmp_path / "raw")
    assert not list((tmp_path / "cache").glob("set.zip*.part"))
    site.files["set.zip"] = good
    obtain(source, tmp_path / "raw", cache=tmp_path / "cache")
    assert (tmp_path / "raw/big.bin").read_bytes() == BODY


def test_an_interrupted_connection_continues_where_it_was(tmp_path: Path, site: Site):
    site.files["f"] = BODY
    site.stop_after = 200_000
    fetch(f"{site.url}/f", tmp_path / "f", expected=sha(BODY))
    assert (tmp_path / "f").read_bytes() == BODY
    first, second = (asked for _, asked in site.asked)
    assert first is None
    assert second is not None and int(second[6:-1]) > 0


def test_a_part_is_continued_and_a_server_that_ignores_ranges_starts_it_anew(tmp_path: Path, site: Site):
    site.files["f"] = BODY
    for site.ranges in (True, False):
        (tmp_path / "f.part").write_bytes(BODY[:1000])
        fetch(f"{site.url}/f", tmp_path / "f", expected=sha(BODY))
        assert (tmp_path / "f").read_bytes() == BODY
    assert [asked for _, asked in site.asked] == ["bytes=1000-"] * 2


def test_a_complete_part_is_accepted_and_one_that_is_too_long_is_fetched_again(tmp_path: Path, site: Site):
    site.files["f"] = BODY
    (tmp_path / "f.part").write_bytes(BODY)
    fetch(f"{site.url}/f", tmp_path / "f", expected=sha(BODY))
    assert (tmp_path / "f").read_bytes() == BODY
    (tmp_path / "f.part").write_bytes(BODY + b"more")
    fetch(f"{site.url}/f", tmp_path / "f", expected=sha(BODY))
    assert (tmp_path / "f").read_bytes() == BODY


def test_a_part_without_network_is_given_up_after_some_attempts(tmp_path: Path, site: Site):
    """Whether or not it could be continued: without a checksum and a tag it could not."""
    (tmp_path / "f.part").write_bytes(BODY[:1000])
    for expected in (sha(BODY), None):
        with pytest.raises(Unreachable, match=r"cannot fetch http://127\.0\.0\.1:9/f: .*refused") as caught:
            fetch("http://127.0.0.1:9/f", tmp_path / "f", expected=expected)
        assert caught.value.status is None
    assert (tmp_path / "f.part").read_bytes() == BODY[:1000]


def test_a_part_of_other_bytes_is_fetched_once_more_from_the_start(tmp_path: Path, site: Site):
    site.files["f"] = BODY
    (tmp_path / "f.part").write_bytes(b"?" * 1000)
    fetch(f"{site.url}/f", tmp_path / "f", expected=sha(BODY))
    assert (tmp_path / "f").read_bytes() == BODY


def test_without_a_checksum_a_part_is_continued_only_if_the_servers_file_is_the_same(
    tmp_path: Path, site: Site
):
    site.files["f"] = BODY
    for tag, continued in (('"one"', True), ('"two"', False), (None, False)):
        (tmp_path / "f.part").write_bytes(b"?" * 1000)
        (tmp_path / "f.tag").unlink(missing_ok=True)
        (tmp_path / "f.part.tag").unlink(missing_ok=True)
        if tag:
            (tmp_path / "f.part.tag").write_text(tag)
        fetch(f"{site.url}/f", tmp_path / "f")
        assert ((tmp_path / "f").read_bytes() != BODY) == continued
    assert [asked for _, asked in site.asked] == ["bytes=1000-", "bytes=1000-", None]


KILLED = """
import sys
from pathlib import Path
from pipeline.download.manifest import File, Source
from pipeline.download.obtain import obtain
url, md5, big, small, out = sys.argv[1:]
files = (File("big.bin", big), File("small.txt", small))
source = Source("set", url, "test", files, archive="set.zip", checksum=md5, inside="set/")
obtain(source, Path(out, "raw"), cache=Path(out, "cache"))
"""


@pytest.mark.kill
def test_a_killed_download_continues_from_its_part_and_ends_with_the_same_bytes(
    tmp_path: Path, source: Source, site: Site
):
    site.stop_after, site.resume = 300_000, threading.Event()
    words = [
        sys.executable,
        "-c",
        KILLED,
        source.url,
        str(source.checksum),
        sha(BODY),
        sha(SMALL),
        str(tmp_path),
    ]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    process = subprocess.Popen(words, env=env)
    part = tmp_path / "cache/set.zip.part"
    while not (part.exists() and part.stat().st_size >= 4 * CHUNK_BYTES):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    site.resume.set()
    had = part.stat().st_size
    assert 0 < had < len(site.files["set.zip"])
    assert not listing(tmp_path / "raw")

    subprocess.run(words, env=env, check=True)
    assert site.asked[-1] == ("/set.zip", f"bytes={had}-")
    assert (tmp_path / "cache/set.zip").read_bytes() == site.files["set.zip"]
    assert (tmp_path / "raw/big.bin").read_bytes() == BODY
    obtain(source, tmp_path / "whole", cache=tmp_path / "fresh")
    assert (tmp_path / "raw/manifest.json").read_bytes() == (tmp_path / "whole/manifest.json").read_bytes()


def test_a_full_disk_is_a_clear_error_and_leaves_no_raw_file(
    tmp_path: Path, source: Source, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("pipeline.download.fetch.copy", full)
    with pytest.raises(SystemExit):
        exit_with_message(lambda: obtain(source, tmp_path / "raw", cache=tmp_path / "cache"))
    assert "No space left on device" in capsys.readouterr().err
    assert not listing(tmp_path / "raw")


def test_only_the_wanted_members_are_unpacked_and_none_outside_the_folder(tmp_path: Path):
    make_zip(tmp_path / "a.zip", {"../evil": b"x", "/evil": b"x", "set/../../evil": b"x", "set/f": b"good"})
    (tmp_path / "out").mkdir()
    unpack(tmp_path / "a.zip", {"set/f": tmp_path / "out/f"}, max_bytes=100)
    assert listing(tmp_path / "out") == ["f"]
    assert listing(tmp_path) == ["a.zip", "out"]


def test_bombs_links_missing_members_and_damaged_archives_are_refused(tmp_path: Path):
    make_zip(tmp_path / "bomb.zip", {"f": bytes(10_000_000)})
    make_zip(tmp_path / "large.zip", {"f": BODY, "g": BODY})
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as opened:
        info = zipfile.ZipInfo("f")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        opened.writestr(info, "/etc/passwd")
    damaged = bytearray(make_zip(tmp_path / "damaged.zip", {"f": BODY}))
    damaged[1000] ^= 255
    (tmp_path / "damaged.zip").write_bytes(damaged)
    (tmp_path / "rubbish.zip").write_bytes(b"<html>not found</html>")
    out = {"f": tmp_path / "f", "g": tmp_path / "g"}
    for name, wanted, message in (
        ("bomb", ["f"], "would unpack"),
        ("large", ["f", "g"], "would unpack"),
        ("link", ["f"], "not a regular file"),
        ("large", ["h"], "does not contain h"),
        ("damaged", ["f"], "cannot be unpacked"),
        ("rubbish", ["f"], "cannot be unpacked"),
    ):
        members = {member: out.get(member, tmp_path / "h") for member in wanted}
        with pytest.raises(PipelineError, match=message):
            unpack(tmp_path / f"{name}.zip", members, max_bytes=len(BODY) + 10)


def test_a_checksum_has_the_algorithm_of_the_given_one(tmp_path: Path):
    (tmp_path / "f").write_bytes(b"hello\n")
    assert checksum(tmp_path / "f", "md5:") == "md5:b1946ac92492d2347c6235b4d2611184"
    # as by `git hash-object`
    assert checksum(tmp_path / "f", "git-blob:") == "git-blob:ce013625030ba8dba906f756967f9e9ca394464a"


def test_a_file_with_fewer_lines_than_the_publisher_has_records_does_not_match(tmp_path: Path):
    (tmp_path / "f").write_bytes(b"head\n1\n2\n")
    for records, known in ((3, None), (4, False), (None, None)):
        part = Source("set", "http://127.0.0.1", "test", (File("f", records=records),))
        assert manifest(part, tmp_path)["files"]["f"]["matches_publisher"] is known
        assert manifest(part, tmp_path)["matches_publisher"] is known


def test_times_are_doubtful_in_a_copy_with_other_bytes_unless_it_is_known(tmp_path: Path):
    (tmp_path / "f").write_bytes(BODY)
    for file, doubtful in (
        (File("f", sha(SMALL), rebuilt=True, times=True), ["f"]),
        (File("f", sha(SMALL), rebuilt=True), []),
        (File("f", sha(SMALL), rebuilt=True, times=True, same_times=("md5:0", sha(BODY))), []),
        (File("f", sha(BODY), times=True), []),
        (File("f", times=True), []),  # unknown
        (File("f", times=True, records=10**9), ["f"]),  # incomplete
    ):
        described = manifest(Source("set", "http://127.0.0.1", "test", (file,)), tmp_path)
        assert described["doubtful_times"] == doubtful, file
        assert bool(origin(described)["doubtful_times"]) == bool(doubtful)


def test_an_incomplete_file_of_a_mirror_is_not_taken_for_the_publishers(tmp_path: Path, site: Site):
    site.files["f"] = b"1\n2\n3\n"
    source = Source("set", site.url, "test", (File("f", rebuilt=True, records=3),))
    (tmp_path / "mirror/set").mkdir(parents=True)
    (tmp_path / "mirror/set/f").write_bytes(b"1\n")
    cache = tmp_path / "cache"
    for name in ("first", "again"):
        obtain(source, tmp_path / name, cache=cache, mirror=str(tmp_path / "mirror"))
        assert (tmp_path / name / "f").read_bytes() == b"1\n"
    obtain(source, tmp_path / "own", cache=cache)
    assert (tmp_path / "own/f").read_bytes() == site.files["f"]


def test_credentials_go_to_the_publisher_and_not_to_the_host_it_redirects_to(tmp_path: Path, site: Site):
    who = HTTPBasicAuth("somebody", "hidden")
    with serving() as storage:
        storage.files["there/f"] = BODY
        storage.stop_after = 200_000
        site.moved["f"] = f"{storage.url}/there/f?key=signature"
        site.password = "Basic c29tZWJvZHk6aGlkZGVu"
        fetch(f"{site.url}/f", tmp_path / "f", auth=who)
    assert (tmp_path / "f").read_bytes() == BODY
    assert site.authorizations == [site.password] * 2  # the first answer broke off
    assert storage.authorizations == [None, None]
    assert [asked is None for _, asked in storage.asked] == [True, False]


def test_credentials_do_not_go_to_a_mirror(tmp_path: Path, site: Site):
    site.files["set/f"] = BODY
    source = Source("set", "http://127.0.0.1:9", "test", (File("f"),))
    who = HTTPBasicAuth("somebody", "hidden")
    obtain(source, tmp_path / "raw", cache=tmp_path / "cache", mirror=site.url, auth=who)
    assert site.authorizations == [None]


def test_a_refusal_has_its_status_unless_another_host_refused(tmp_path: Path, site: Site):
    source = Source("set", site.url, "test", (File("f"),))
    for site.refuse in (401, 403):
        with pytest.raises(Unreachable) as caught:
            obtain(source, tmp_path / "raw", cache=tmp_path / "cache")
        assert caught.value.status == site.refuse
    site.refuse = None
    with serving() as storage:
        storage.refuse = 403
        site.moved["f"] = f"{storage.url}/there/f?key=signature"
        with pytest.raises(Unreachable, match=r"403.*/there/f\?") as caught:
            obtain(source, tmp_path / "raw", cache=tmp_path / "cache")
    assert caught.value.status is None
    assert "signature" not in str(caught.value)


def test_a_file_that_a_mirror_lacks_is_an_error_that_callers_can_catch(tmp_path: Path):
    source = Source("set", "http://127.0.0.1:9", "test", (File("f"),))
    with pytest.raises(NotInMirror, match="lacks f of set"):
        obtain(source, tmp_path / "raw", cache=tmp_path / "cache", mirror=str(tmp_path))
