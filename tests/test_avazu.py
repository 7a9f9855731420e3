"""Avazu's reader on invented lines in the true format, and its ways to get the file."""

import gzip
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from web import Site, serving

from pipeline.common.errors import PipelineError
from pipeline.common.files import read_json
from pipeline.datasets import avazu
from pipeline.preprocess import clean_table
from pipeline.preprocess.rejects import RejectLog

MIRROR = Path(__file__).parents[2] / "shared/datasets"
HEADER = (
    "id,click,hour,C1,banner_pos,site_id,site_domain,site_category,app_id,app_domain,app_category,device_id,"
    "device_ip,device_model,device_type,device_conn_type,C14,C15,C16,C17,C18,C19,C20,C21\n"
)
REST = "1005,0,5e1fa001,5e1fd001,5e1fc001,a00000ff,a00d0001,a00c0001,de00id01,de00ip01,de00md01,1,0,"
TAIL = "15700,320,50,1720,0,35,-1,79\n"
GOOD = f"184467440737095516159,1,14102100,{REST}{TAIL}"
LINES = (
    GOOD,
    f"1,0,14102123,{REST.replace('5e1fa001', '')}{TAIL}",
    f"10000000000000000000000001,1,14103005,{REST}{TAIL}",
    f"2,1,14022900,{REST}{TAIL}",
    f"3,1,14102124,{REST}{TAIL}",
    f"4,1,1410210,{REST}{TAIL}",
    f"5,2,14102100,{REST}{TAIL}",
    f"6,0,14102100,{REST}15700,320\n",
    f"7,,14102100,{REST}{TAIL}",
    f"8,0,14102605,{REST}{TAIL}".rstrip("\n"),
)
FILE = HEADER + "".join(LINES)
KAGGLE = "api/v1/competitions/data/download/avazu-ctr-prediction"
SECRET = "KGAT_0123456789abcdef"


def read(folder: Path) -> tuple[list[dict[str, Any]], RejectLog]:
    rejects = RejectLog()
    return pa.concat_tables(avazu.read(folder, rejects).tables).to_pylist(), rejects


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    (tmp_path / "raw").mkdir()
    return tmp_path / "raw"


def given(raw: Path, name: str, data: bytes) -> Path:
    """Put a local file into the raw folder."""
    (raw.parent / name).write_bytes(data)
    avazu.download(raw, raw.parent / "cache", path=str(raw.parent / name))
    return raw


def test_rows_have_hour_weekday_time_and_the_strings_as_they_stand(raw: Path):
    rows, rejects = read(given(raw, "train.csv", FILE.encode()))
    assert rows[0] == {
        "hour": "0", "weekday": "tue", "C1": "1005", "banner_pos": "0",
        "site_id": "5e1fa001", "site_domain": "5e1fd001", "site_category": "5e1fc001",
        "app_id": "a00000ff", "app_domain": "a00d0001", "app_category": "a00c0001",
        "device_id": "de00id01", "device_ip": "de00ip01", "device_model": "de00md01",
        "device_type": "1", "device_conn_type": "0",
        "C14": "15700", "C15": "320", "C16": "50", "C17": "1720", "C18": "0",
        "C19": "35", "C20": "-1", "C21": "79",
        "label": 1, "time": 1413849600,  # 2014-10-21 00:00 UTC
    }  # fmt: skip
    assert [row["label"] for row in rows] == [1, 0, 1, 0]
    assert [(row["hour"], row["weekday"]) for row in rows] == [
        ("0", "tue"), ("23", "tue"), ("5", "thu"), ("5", "sun"),
    ]  # fmt: skip
    assert [row["time"] - 1413849600 for row in rows] == [
        0,
        23 * 3600,
        (9 * 24 + 5) * 3600,
        (5 * 24 + 5) * 3600,
    ]
    assert rows[1]["site_id"] is None
    assert rejects.check(len(rows), max_rejected=1, name="a")["rows_in"] == len(LINES)


def test_malformed_records_are_in_the_reject_log_with_line_and_reason(raw: Path):
    rows, rejects = read(given(raw, "train.csv", FILE.encode()))
    assert len(rows) == 4
    assert sorted(rejects.first) == [
        "train.csv:10: click '' is not 0 or 1",
        "train.csv:5: hour '14022900' is not a valid date",
        "train.csv:6: hour '14102124' is not a valid date",
        "train.csv:7: hour '1410210' is not YYMMDDHH",
        "train.csv:8: click '2' is not 0 or 1",
        f"train.csv:9: 18 fields where 24 belong: {LINES[7][:80]!r}",
    ]


def test_the_domains_are_device_advertisement_and_the_rest():
    domains = {column.name: column.domain for column in avazu.COLUMNS}
    assert {name for name, domain in domains.items() if domain == "user"} == {
        "device_id", "device_ip", "device_model", "device_type", "device_conn_type",
    }  # fmt: skip
    assert {name for name, domain in domains.items() if domain == "item"} == {f"C{n}" for n in range(14, 22)}
    assert len(domains) == 23
    assert "id" not in domains


@pytest.mark.parametrize("name", ["train.gz", "train.csv", "part.txt", "rows.csv.gz"])
def test_a_local_file_is_read_whatever_its_name(raw: Path, name: str):
    data = (HEADER + GOOD).encode()
    rows, _ = read(given(raw, name, gzip.compress(data) if name.endswith("gz") else data))
    assert len(rows) == 1
    described = read_json(raw / "manifest.json")
    assert list(described["files"]) == [name]
    assert "Kaggle" in described["licence"]


def test_a_folder_is_searched_for_the_names_that_kaggle_gives(raw: Path, tmp_path: Path):
    with pytest.raises(PipelineError, match=r"contains no train\.gz or train\.csv"):
        avazu.download(raw, tmp_path / "cache", path=str(tmp_path))
    (tmp_path / "test.gz").write_bytes(b"no")
    (tmp_path / "train.csv").write_text(HEADER + GOOD)
    avazu.download(raw, tmp_path / "cache", path=str(tmp_path))
    assert len(read(raw)[0]) == 1


def test_an_archive_or_a_missing_file_is_an_error_that_says_what_to_do(raw: Path, tmp_path: Path):
    (tmp_path / "avazu-ctr-prediction.zip").write_bytes(b"PK")
    for path, message in (
        ("avazu-ctr-prediction.zip", r"is an archive: unpack it and set download\.path to its train\.gz"),
        ("nothing.gz", r"nothing\.gz does not exist \(download\.path"),
    ):
        with pytest.raises(PipelineError, match=message):
            avazu.download(raw, tmp_path / "cache", path=str(tmp_path / path))


@pytest.mark.parametrize("name", ["train.gz", "train.csv"])
def test_a_mirror_may_contain_either_file(raw: Path, tmp_path: Path, name: str):
    data = (HEADER + GOOD).encode()
    (tmp_path / "mirror/avazu-1m").mkdir(parents=True)
    (tmp_path / "mirror/avazu-1m" / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    avazu.download(raw, tmp_path / "cache", mirror=str(tmp_path / "mirror"))
    assert len(read(raw)[0]) == 1
    described = read_json(raw / "manifest.json")
    assert (list(described["files"]), described["missing"], described["matches_publisher"]) == (
        [name],
        [],
        None,
    )


def test_a_mirror_without_either_is_an_error_that_lists_the_ways(raw: Path, tmp_path: Path):
    with pytest.raises(PipelineError) as caught:
        avazu.download(raw, tmp_path / "cache", mirror=str(tmp_path))
    for part in (
        str(tmp_path),
        "download.path",
        "avazu-1m/train.gz",
        "avazu-1m/train.csv",
        "KAGGLE_API_TOKEN",
    ):
        assert part in str(caught.value)


@pytest.mark.slow
def test_nothing_is_unpacked_beyond_the_wanted_rows(raw: Path, tmp_path: Path):
    random = np.random.default_rng(0)
    names = [f"{number:08x}" for number in random.integers(1 << 32, size=20_000)]
    part = "".join(GOOD.replace("de00ip01", name) for name in names).encode()
    data = gzip.compress(HEADER.encode() + 20 * part, 1)
    damaged = data[: len(data) * 9 // 10] + bytes(len(data) // 10)
    given(raw, "train.gz", damaged)
    rejects = RejectLog()
    report = clean_table.write(tmp_path, avazu.read(raw, rejects), rejects, "a", rows=10_000)
    assert (report["rows_out"], report["rejected"]) == (10_000, 0)
    assert report["rows_in"] == 10_000 + report["dropped"] < 20 * len(names) // 2
    with pytest.raises(PipelineError, match="cannot be read to its end"):
        read(raw)


@pytest.fixture
def kaggle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[tuple[Site, Site]]:
    """Kaggle, and the storage to which it redirects; there is no token yet."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("pipeline.download.fetch.sleep", lambda _: None)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("API_TOKEN", "USERNAME", "KEY", "CONFIG_DIR"):
        monkeypatch.delenv(f"KAGGLE_{name}", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    with serving() as site, serving() as storage:
        storage.files["bucket/train.gz"] = gzip.compress((HEADER + GOOD).encode())
        site.moved[f"{KAGGLE}/train.gz"] = f"{storage.url}/bucket/train.gz?Signature=for-one-hour"
        monkeypatch.setattr(avazu, "SOURCE", replace(avazu.SOURCE, url=f"{site.url}/{KAGGLE}"))
        yield site, storage


def in_environment(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setenv("KAGGLE_USERNAME", "somebody")
    monkeypatch.setenv("KAGGLE_KEY", "0123hidden")


def in_home(_: pytest.MonkeyPatch, home: Path) -> None:
    (home / ".kaggle").mkdir(parents=True)
    (home / ".kaggle/kaggle.json").write_text(json.dumps({"username": "somebody", "key": "0123hidden"}))


def in_config(_: pytest.MonkeyPatch, home: Path) -> None:
    (home / ".config/kaggle").mkdir(parents=True)
    (home / ".config/kaggle/kaggle.json").write_text('{"username": "somebody", "key": "0123hidden"}\n')


def elsewhere(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    in_home(monkeypatch, home / "other")
    (home / ".kaggle").mkdir(parents=True)
    (home / ".kaggle/kaggle.json").write_text('{"username": "nobody", "key": "wrong"}')
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(home / "other/.kaggle"))


def as_token(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setenv("KAGGLE_API_TOKEN", f" {SECRET}\n")


def as_token_in_home(_: pytest.MonkeyPatch, home: Path) -> None:
    (home / ".kaggle").mkdir(parents=True)
    (home / ".kaggle/access_token").write_text(f"{SECRET}\n")


BASIC = "Basic c29tZWJvZHk6MDEyM2hpZGRlbg=="  # somebody:0123hidden


@pytest.mark.parametrize(
    ("put", "header"),
    [
        (in_environment, BASIC),
        (in_home, BASIC),
        (in_config, BASIC),
        (elsewhere, BASIC),
        (as_token, f"Bearer {SECRET}"),
        (as_token_in_home, f"Bearer {SECRET}"),
    ],
)
def test_the_credentials_go_to_kaggle_and_not_to_its_storage(
    kaggle: tuple[Site, Site],
    raw: Path,
    monkeypatch: pytest.MonkeyPatch,
    put: Callable[[pytest.MonkeyPatch, Path], None],
    header: str,
):
    site, storage = kaggle
    put(monkeypatch, raw.parent / "home")
    site.password = header
    avazu.download(raw, raw.parent / "cache")
    assert len(read(raw)[0]) == 1
    assert site.authorizations == [header]
    assert storage.authorizations == [None]
    assert read_json(raw / "manifest.json")["publisher"] == avazu.SOURCE.url


def test_an_interrupted_download_from_kaggle_continues(
    kaggle: tuple[Site, Site], raw: Path, monkeypatch: pytest.MonkeyPatch
):
    site, storage = kaggle
    monkeypatch.setenv("KAGGLE_API_TOKEN", SECRET)
    site.password = f"Bearer {SECRET}"
    body = np.random.default_rng(0).bytes(300_000)
    storage.files["bucket/train.gz"] = avazu.GZIP + body
    storage.stop_after = 200_000
    avazu.download(raw, raw.parent / "cache")
    assert (raw / "train.gz").read_bytes() == avazu.GZIP + body
    first, second = (asked for _, asked in storage.asked)
    assert first is None
    assert second is not None and int(second[6:-1]) > 0
    assert storage.authorizations == [None, None]
    # what is whole needs no token and no network
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    asked = len(site.asked)
    (raw.parent / "again").mkdir()
    avazu.download(raw.parent / "again", raw.parent / "cache")
    assert len(site.asked) == asked


def test_without_a_token_the_error_lists_the_three_ways_and_no_request_is_sent(
    kaggle: tuple[Site, Site], raw: Path, tmp_path: Path
):
    with pytest.raises(PipelineError) as caught:
        avazu.download(raw, tmp_path / "cache")
    for part in (
        "download.path",
        "CTR_MIRROR",
        "KAGGLE_API_TOKEN",
        "KAGGLE_USERNAME",
        "kaggle.json",
        "/rules",
    ):
        assert part in str(caught.value)
    assert kaggle[0].asked == []


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, r"rejects the token \(HTTP 401\)"),
        (403, r"accept the competition's rules on https://.*/rules"),
    ],
)
def test_a_refusal_says_what_to_do_and_a_token_is_neither_printed_nor_kept(
    kaggle: tuple[Site, Site],
    raw: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    status: int,
    message: str,
):
    kaggle[0].refuse = status
    monkeypatch.setenv("KAGGLE_API_TOKEN", SECRET)
    with pytest.raises(PipelineError, match=message) as caught:
        avazu.download(raw, raw.parent / "cache")
    assert SECRET not in str(caught.value) + "".join(capfd.readouterr())
    kaggle[0].refuse = None
    avazu.download(raw, raw.parent / "cache")
    written = [file for file in raw.parent.rglob("*") if file.is_file()]
    assert len(written) > 2
    assert not [file for file in written if SECRET.encode() in file.read_bytes()]


def test_a_refusal_by_the_storage_is_not_attributed_to_kaggle(
    kaggle: tuple[Site, Site], raw: Path, monkeypatch: pytest.MonkeyPatch
):
    kaggle[1].refuse = 403
    monkeypatch.setenv("KAGGLE_API_TOKEN", SECRET)
    with pytest.raises(PipelineError, match="cannot fetch") as caught:
        avazu.download(raw, raw.parent / "cache")
    assert "accept the competition's rules" not in str(caught.value)
    assert "for-one-hour" not in str(caught.value)


def test_a_page_instead_of_the_file_is_refused_and_not_kept(
    kaggle: tuple[Site, Site], raw: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("KAGGLE_API_TOKEN", SECRET)
    good = kaggle[1].files["bucket/train.gz"]
    kaggle[1].files["bucket/train.gz"] = b"<html>log in</html>"
    with pytest.raises(PipelineError, match=r"is not a \.gz file"):
        avazu.download(raw, raw.parent / "cache")
    kaggle[1].files["bucket/train.gz"] = good
    (raw.parent / "second").mkdir()
    avazu.download(raw.parent / "second", raw.parent / "cache")
    assert (raw.parent / "second/train.gz").read_bytes() == good


@pytest.mark.parametrize("text", ["{", "[]", '{"username": "somebody"}', '{"username": "a", "key": 1}'])
def test_a_file_without_a_token_is_an_error_that_names_it(
    kaggle: tuple[Site, Site], raw: Path, monkeypatch: pytest.MonkeyPatch, text: str
):
    in_home(monkeypatch, raw.parent / "home")
    file = raw.parent / "home/.kaggle/kaggle.json"
    file.write_text(text)
    with pytest.raises(PipelineError, match=f"{file} contains no username and key"):
        avazu.download(raw, raw.parent / "cache")


def test_a_token_with_a_line_end_in_it_is_refused_and_not_printed(
    kaggle: tuple[Site, Site], raw: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("KAGGLE_API_TOKEN", f"{SECRET}\nX-Header: 1")
    with pytest.raises(PipelineError, match="KAGGLE_API_TOKEN is empty or has characters") as caught:
        avazu.download(raw, raw.parent / "cache")
    assert SECRET not in str(caught.value)


@pytest.mark.skipif(
    not (MIRROR / "avazu-1m/avazu_sample.txt").exists(), reason="no mirror of the data beside the project"
)
def test_the_public_sample_is_read_whole(raw: Path, tmp_path: Path):
    avazu.download(raw, tmp_path / "cache", path=str(MIRROR / "avazu-1m/avazu_sample.txt"))
    rows, rejects = read(raw)
    assert (len(rows), sum(row["label"] for row in rows)) == (100, 20)
    assert rejects.first == []
    assert {(row["hour"], row["weekday"], row["time"]) for row in rows} == {("0", "tue", 1413849600)}
