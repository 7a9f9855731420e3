"""What other people's logs look like: ids as floats, odd labels, official splits, odd files, wide tables."""

import gzip
import json
import lzma
import os
import pickle
import random
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import project
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML

from benchmarks import damaged_logs
from pipeline import __main__ as commands
from pipeline.common.errors import PipelineError
from pipeline.common.files import seal
from pipeline.config.params import Params
from pipeline.datasets import tabular
from pipeline.download import refresh
from pipeline.inspection import inspect, profiling
from pipeline.preprocess.rejects import RejectLog
from pipeline.schema import EMPTY, Column
from pipeline.split import assign as assigning
from pipeline.split.vocabulary import apply, fit_vocabulary, schema

USER = {"user": "user"}


@pytest.fixture(name="read")
def _read(tmp_path: Path) -> Callable[..., tuple[list[dict[str, Any]], RejectLog]]:
    """Read files, name -> text or bytes, as a dataset entry says."""

    def go(files: Any, **options: Any) -> tuple[list[dict[str, Any]], RejectLog]:
        raw = tmp_path / "raw"
        raw.mkdir(exist_ok=True)
        for name, content in (files if isinstance(files, dict) else {"log.csv": files}).items():
            (raw / name).write_bytes(content.encode() if isinstance(content, str) else content)
        rejects = RejectLog()
        log = tabular.read(raw, rejects, **{"label": "click", "fields": USER, **options})
        return [row for table in log.tables for row in table.to_pylist()], rejects

    return go


Read = Callable[..., tuple[list[dict[str, Any]], RejectLog]]


def entry_of(path: Path, **options: Any) -> tuple[dict[str, Any], str]:
    """The dataset entry that an inspection proposes, checked as params.yaml is, and the report."""
    found = inspect(path, "mine", **options)
    entry = YAML(typ="safe", pure=True).load(found.entry)["mine"]
    params = project.small_params(models=["lr"])
    params["data"]["mine"] = entry
    Params(params)
    return entry, found.report


def log(tmp_path: Path, header: str, row: Callable[[int, random.Random], str], rows: int = 400) -> Path:
    draw, path = random.Random(3), tmp_path / "log.csv"
    path.write_text(header + "\n" + "".join(row(i, draw) + "\n" for i in range(rows)))
    return path


# ---- whole ids with decimals ----


def test_whole_numbers_are_the_same_ids_with_and_without_decimals(read: Read):
    day = "user,tags,click\n{},{},1\n{},{},0\n"
    files = {
        "day1.csv": day.format("28", "1|2", "7", "3"),
        "day2.csv": day.format("28.0", "1.0 | 2.00", "-7.0", "[3.0]"),
        "day3.csv": day.format("7.00", "a|2.5", "7.5", ""),
    }
    fields = {"user": "user", "tags": {"domain": "item", "type": "bag"}}
    rows, _ = read(files, fields=fields, group="user", keep=["tags"])
    assert [row["user"] for row in rows] == ["28", "7", "28", "-7", "7", "7.5"]
    assert [row["group"] for row in rows] == [row["user"] for row in rows]
    assert [row["tags"] for row in rows] == ["1|2", "3", "1|2", "3", "a|2.5", None]


def test_whole_numbers_in_other_notations(read: Read):
    rows, _ = read("user;click\n31,0;1\n31;0,0\n31,5;1e0\n", separator=";", decimal=",")
    assert [row["user"] for row in rows] == ["31", "31", "31,5"]
    assert [row["label"] for row in rows] == [1, 0, 1]
    rows, _ = read("user,click\n-1.0,1.000000\n31.0,0.0\n", missing=["-1"])
    assert [(row["user"], row["label"]) for row in rows] == [(None, 1), ("31", 0)]
    rows, _ = read("user,click\na,2.0\nb,3\n", label={"column": "click", "equals": "2.0"})
    assert [row["label"] for row in rows] == [1, 0]


def test_ids_that_a_missing_value_has_made_floats_are_categories(tmp_path: Path):
    path = log(
        tmp_path,
        "user_id,campaign_id,price,click",
        lambda i, r: (
            f"{r.randint(0, 49)}.0,{'' if i % 9 == 0 else r.randint(0, 9)}.0".replace(",.0", ",")
            + f",{r.random():.2f},{i % 2}"
        ),
    )
    entry, _ = entry_of(path)
    fields = entry["preprocess"]["fields"]
    assert fields == {"user_id": "user", "campaign_id": "item", "price": {"domain": "item", "type": "number"}}
    assert entry["preprocess"]["user"] == "user_id"


# ---- labels ----


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ("-1,-1,1", r"They go from -1 to 1: .*at_least: 1}"),
        ("2,2,2,0,1", r"They go from 0 to 2: .*at_least: 2}"),
        ("0.1,0.25,0.9", r"They go from 0.1 to 0.9"),
        ("no!,no!,yes!", r"which of its values \('no!', 'yes!'\) are clicks: .*equals: \[\.\.\.\]"),
    ],
)
def test_no_label_is_suggested_the_wrong_way_round(read: Read, values: str, words: str):
    lines = "".join(f"u,{value}\n" for value in values.split(",") * 60)
    with pytest.raises(PipelineError, match=words):
        read("user,click\n" + lines)


def test_yes_and_no_in_letters_and_labels_that_are_missing(read: Read):
    text = "user,click\na,Y\nb,n\nc,T\nd,F\ne,\nf,NA\n"
    rows, rejects = read(text, label={"column": "click", "drop": [None]})
    assert [row["label"] for row in rows] == [1, 0, 1, 0]
    assert (rejects.files["log.csv"].dropped, rejects.files["log.csv"].rejected) == (2, 0)
    rows, rejects = read(text)
    assert "drop: [null]" in rejects.first[0]
    assert (rejects.files["log.csv"].dropped, rejects.files["log.csv"].rejected) == (0, 2)


def test_a_label_of_three_values_is_not_passed_over_for_another_column(tmp_path: Path):
    path = log(tmp_path, "user_id,gender,click", lambda i, r: f"{r.randint(0, 9)},{i % 2},{r.randint(0, 2)}")
    entry, report = entry_of(path)
    assert entry["preprocess"]["label"]["column"] == "click"
    assert "or: gender" in report


# ---- guesses ----


def test_an_id_is_the_user_rather_than_a_word(tmp_path: Path):
    path = log(tmp_path, "customer,userid,clk", lambda i, r: f"{r.randint(0, 9)},{r.randint(0, 9)},{i % 2}")
    assert entry_of(path)[0]["preprocess"]["user"] == "userid"


def test_integers_that_count_are_numbers_and_ids_are_categories(tmp_path: Path):
    path = log(
        tmp_path,
        "i1,c14,clk",
        lambda i, r: f"{int(r.paretovariate(0.7))},{15000 + 37 * r.randint(0, 150)},{i % 2}",
        2000,
    )
    fields = entry_of(path)[0]["preprocess"]["fields"]
    assert fields == {"i1": {"domain": "context", "type": "number"}, "c14": "context"}


@pytest.mark.parametrize(("name", "separator", "shown"), [("hist", " ", "space"), ("seen", "^", "^")])
def test_lists_and_what_becomes_of_long_ones(tmp_path: Path, name: str, separator: str, shown: str):
    path = log(
        tmp_path,
        f"user_id,{name},clk",
        lambda i, r: (
            f"{i % 9},{separator.join(str(r.randint(0, 99)) for _ in range(r.randint(1, 12)))},{i % 2}"
        ),
    )
    entry, report = entry_of(path)
    assert entry["preprocess"]["fields"][name]["separator"] == separator
    assert f"bag, separator {shown}" in report
    assert "slots_from: end" in report


def test_an_embedding_is_no_bag(tmp_path: Path):
    draw = np.random.default_rng(1)
    columns = {"user_id": [str(i % 9) for i in range(100)], "vector": draw.random((100, 4)).tolist()}
    pq.write_table(pa.table({**columns, "clk": [i % 2 for i in range(100)]}), tmp_path / "a.parquet")
    entry, report = entry_of(tmp_path / "a.parquet")
    assert "vector" not in entry["preprocess"]["fields"]
    assert "vector: a list of numbers, each of which would be a category; left out" in report


def test_long_bags_keep_their_newest_values_where_asked():
    bags = pa.table({"hist": ["a b c d", "b d b a", "c"]})
    columns = [Column("hist", "bag", "context", " ")]
    ids = {}
    for end in ("start", "end"):
        vocabulary = fit_vocabulary(
            lambda name: [bags[name].combine_chunks()], columns, max_slots=2, slots_from=end
        )
        names, first = [None, *vocabulary[0]["values"]], schema(vocabulary).offsets[0]
        rows = apply(vocabulary, bags).tolist()
        ids[end] = [[names[i - first] for i in row if i != EMPTY] for row in rows]
    assert ids == {"start": [["a", "b"], ["b", "d"], ["c"]], "end": [["c", "d"], ["b", "a"], ["c"]]}


def test_hours_are_those_of_the_clock_that_is_named(read: Read, tmp_path: Path):
    times = ["2020-07-05T23:30:00+08:00", "2020-07-05T15:30:00Z"]
    text = "user,ts,click\n" + "".join(f"u,{time},1\n" for time in times)
    ts = {"domain": "context", "type": "timestamp"}
    for offset, hour in ((None, "15"), ("+08:00", "23"), ("-03:30", "12")):
        field = {"ts": {**ts, **({"utc_offset": offset} if offset else {})}}
        rows, _ = read(text, fields=field, time="ts")
        assert [(row["ts_hour"], row["time"]) for row in rows] == [(hour, 1593963000)] * 2
    with pytest.raises(PipelineError, match=r"'8' is not written like \+08:00"):
        read(text, fields={"ts": {**ts, "utc_offset": "8"}})
    path = log(tmp_path, "user_id,ts,clk", lambda i, r: f"{i % 9},2020-01-01T10:{i % 60:02}:00+08:00,{i % 2}")
    entry, report = entry_of(path)
    assert entry["preprocess"]["fields"]["ts"]["utc_offset"] == "+08:00"
    assert "its own clock, +08:00" in report
    path = log(
        tmp_path, "user_id,ts,clk", lambda i, r: f"{i % 9},2020-01-01T10:{i % 60:02}:00+0{i % 3}:00,{i % 2}"
    )
    entry, report = entry_of(path)
    assert "utc_offset" not in entry["preprocess"]["fields"]["ts"]
    assert "are those of UTC (see utc_offset)" in report


def test_an_encoding_that_is_guessed_is_said(tmp_path: Path):
    cities = ["北京", "上海", "广州", "深圳"]
    path = log(tmp_path, "user_id,city,clk", lambda i, r: f"{i % 9},{r.choice(cities)},{i % 2}")
    path.write_bytes(path.read_text().encode("gbk"))
    entry, report = entry_of(path)
    assert entry["preprocess"]["encoding"] == "gbk"
    assert any(city in report for city in cities)
    assert "its text is not UTF-8 and was read as gbk, a guess" in report
    path.write_bytes(("user_id,city,clk\n" + "1,Köln,1\n2,Zürich,0\n" * 9).encode("latin-1"))
    assert "was read as latin-1" in entry_of(path)[1]


# ---- official splits ----


def table_of(values: list[str], labels: list[int] | None = None) -> pa.Table:
    return pa.table(
        {"label": pa.array(labels or [i % 2 for i in range(len(values))], pa.uint8()), "part": values}
    )


def test_a_column_of_train_and_test_gets_its_validation_rows_from_train():
    table = table_of(["train"] * 90 + ["test"] * 10)
    found = assigning.assign(table, method="column", column="part", valid=0.2)
    assert np.bincount(found).tolist() == [72, 18, 10]
    assert (found[90:] == 2).all()
    other = assigning.assign(table, method="column", column="part", valid=0.2, seed=5)
    assert (found != other).any()
    given = table_of(["train"] * 80 + ["valid"] * 10 + ["test"] * 10)
    assert np.bincount(assigning.assign(given, method="column", column="part")).tolist() == [80, 10, 10]


def test_other_words_for_the_splits_are_translated():
    table = table_of(["training"] * 50 + ["dev"] * 20 + ["held"] * 20 + ["unused"] * 10)
    means: dict[str | int, Any] = {"training": "train", "dev": "valid", "held": "test", "unused": None}
    found = assigning.assign(table, method="column", column="part", values=means)
    assert np.bincount(found).tolist() == [50, 20, 20, 10]
    with pytest.raises(
        PipelineError, match=r"contains 'training' in row 0; expected.*values: {training: train"
    ):
        assigning.assign(table, method="column", column="part")
    with pytest.raises(PipelineError, match="contains 'unused' in row 90; `values` has training, dev, held"):
        assigning.assign(table, method="column", column="part", values={k: v for k, v in means.items() if v})
    numbers = table_of(["0"] * 50 + ["9"] * 50)
    assert np.bincount(
        assigning.assign(numbers, method="column", column="part", values={0: "train", 9: "test"}, valid=0.1)
    ).tolist() == [45, 5, 50]


def test_a_split_by_the_files_of_a_folder(tmp_path: Path):
    logs, raw = tmp_path / "logs", tmp_path / "data/raw/mine"
    logs.mkdir()
    raw.mkdir(parents=True)
    for name, rows in (("u1.base", 80), ("u1.test", 20), ("u2.base", 50), ("README", 1)):
        (logs / name).write_text("".join(f"{i % 7}\t{i % 2}\n" for i in range(rows)))
    with pytest.raises(PipelineError, match=r"no file that ends in .*`files: \['README', 'u1.base', "):
        tabular.download(raw, tmp_path, path=str(logs))
    with pytest.raises(PipelineError, match=r"u1\.bse does not exist"):
        tabular.download(raw, tmp_path, path=str(logs), files=["u1.bse"])
    tabular.download(raw, tmp_path, path=str(logs), files=["u1.base", "u1.test"])
    seal(raw)  # whose file is no log
    text = {"separator": "\t", "names": ["user", "click"], "file": "part"}
    (table,) = [
        pa.concat_tables(
            table.select(["label", "part"])
            for table in tabular.read(raw, RejectLog(), label="click", fields=USER, **text).tables
        ).unify_dictionaries()
    ]
    means: dict[str | int, Any] = {"u1.base": "train", "u1.test": "test"}
    found = assigning.assign(table, method="column", column="part", values=means, valid=0.1)
    assert np.bincount(found).tolist() == [72, 8, 20]
    entry = {"datasets": ["mine"], "data": {"mine": {"download": {"path": "logs"}}}}
    YAML(typ="safe", pure=True).dump(entry, tmp_path / "params.yaml")
    assert refresh.stale(tmp_path) == []
    (logs / "u1.test").write_text("changed\n")
    assert refresh.stale(tmp_path) == ["mine"]
    with pytest.raises(
        PipelineError, match=r"preprocess\.file: the name 'user' is taken by the field 'user'"
    ):
        tabular.read(raw, RejectLog(), label="click", fields=USER, **{**text, "file": "user"})


@pytest.mark.parametrize(
    ("words", "split"),
    [
        (["train", "test"], {"method": "column", "column": "split", "seed": 1024, "valid": 0.1}),
        (["train", "valid", "test"], {"method": "column", "column": "split"}),
        (["0", "1", "2"], {"method": "column", "column": "split"}),
        (
            ["Train", "dev", "TEST"],
            {
                "method": "column",
                "column": "split",
                "values": {"Train": "train", "dev": "valid", "TEST": "test"},
            },
        ),
    ],
)
def test_a_column_of_splits_is_proposed_as_the_split(tmp_path: Path, words: list[str], split: dict[str, Any]):
    path = log(
        tmp_path, "user_id,click,split", lambda i, r: f"{i % 9},{r.randint(0, 1)},{words[i % len(words)]}"
    )
    entry, report = entry_of(path)
    assert entry["split"] == split
    assert entry["preprocess"]["keep"] == ["split"]
    assert entry["preprocess"]["fields"] == {"user_id": "user"}
    assert re.search("^  split +split ", report, re.MULTILINE)


# ---- files that are no text ----


def packed_by_tar() -> bytes:
    out = BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        info = tarfile.TarInfo("clicks.csv")
        info.size = 8
        archive.addfile(info, BytesIO(b"a,click\n"))
    return out.getvalue()


def array_of_numpy() -> bytes:
    out = BytesIO()
    np.save(out, np.arange(3))
    return out.getvalue()


OTHER_KINDS = [
    ("a.csv.xz", lzma.compress(b"user,click\na,1\n"), "xz: unpack it"),
    ("a.csv", b"7z\xbc\xaf\x27\x1c\0\4", "7-Zip archive: unpack it"),
    ("a.h5", b"\x89HDF\r\n\x1a\n", "HDF5 file: save its table as Parquet"),
    ("a.pkl", pickle.dumps({"user": [1, 2]}), "pickle of Python: save its table as Parquet"),
    ("a.pkl.gz", gzip.compress(pickle.dumps({"user": [1, 2]})), "pickle of Python"),
    ("a.npy", array_of_numpy(), "NumPy: save it as Parquet"),
    ("a.tar.gz", packed_by_tar(), "tar archive: unpack it"),
    (
        "a.jsonl",
        b'{"user": 1, "click": 0}\n{"user": 2, "click": 1}\n',
        "JSON lines: convert it, by python -c",
    ),
    ("a.json.gz", gzip.compress(b'[\n {"user": 1, "click": 0}]'), "JSON: convert it, by python -c"),
    ("a.svm", b"1 3:1 7:0.5\n0 2:1\n", "LibSVM or libFM"),
    ("a.ffm", b"0 0:3:1 1:7:1\n1 0:2:1\n", "LibSVM or libFM"),
]


@pytest.mark.parametrize(("name", "content", "message"), OTHER_KINDS, ids=[kind[0] for kind in OTHER_KINDS])
def test_other_kinds_of_files_are_named_with_the_cure(
    read: Read, tmp_path: Path, name: str, content: bytes, message: str
):
    with pytest.raises(PipelineError, match=message):
        read({name: content})
    with pytest.raises(PipelineError, match=message):
        inspect(tmp_path / "raw" / name, "mine")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.jsonl", "a.json.gz"])
def test_the_cure_for_json_works(read: Read, tmp_path: Path, name: str):
    with pytest.raises(PipelineError) as error:
        read({name: next(content for other, content, _ in OTHER_KINDS if other == name)})
    code = str(error.value).partition('python -c "')[2].rpartition('"')[0]
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "raw", check=True)
    (tmp_path / "raw" / name).unlink()
    rows, _ = read({})
    assert [row["label"] for row in rows] in ([0, 1], [0])


@pytest.mark.parametrize("rows", [3, 9000])
def test_carriage_returns_alone_end_lines(read: Read, tmp_path: Path, rows: int):
    text = "user,click\r" + "".join(f"user {i},{i % 2}\r" for i in range(rows)) + "broken\r"
    found, rejects = read(text)
    assert [row["user"] for row in found] == [f"user {i}" for i in range(rows)]
    assert rejects.first == [f"log.csv:{rows + 2}: 1 fields where 2 belong: 'broken'"]
    report = inspect(tmp_path / "raw/log.csv", "mine").report
    assert f"{rows:,} records" in report


@pytest.mark.parametrize("name", ["a\x1b[31m", "a\nb: {path: /etc}", "a\x00", "a\u2028b"])
def test_control_characters_in_a_name_reach_neither_terminal_nor_params(tmp_path: Path, name: str):
    pq.write_table(pa.table({name: [1, 2], "click": [0, 1]}), tmp_path / "a.parquet")
    with pytest.raises(PipelineError, match="the name of column 1 has a control character") as error:
        inspect(tmp_path / "a.parquet", "mine")
    assert all(character.isprintable() for character in str(error.value))


@pytest.mark.parametrize("name", [b"caf\xe9.csv", b"a\x1b[31m.csv", b"a\n.csv"])
def test_names_of_files_that_no_manifest_can_hold_are_refused(tmp_path: Path, name: bytes):
    path = Path(os.fsdecode(os.fsencode(tmp_path / "logs") + b"/" + name))
    path.parent.mkdir()
    try:
        path.write_text("user,click\na,1\n")
    except OSError:
        pytest.skip("this file system has no such names")
    raw = tmp_path / "raw"
    raw.mkdir()
    for asked in (path, path.parent):
        with pytest.raises(PipelineError, match="in its name that are no text in UTF-8, or control") as error:
            tabular.download(raw, tmp_path, path=str(asked))
        assert all(character.isprintable() for character in str(error.value))


# ---- wide tables ----


def test_of_a_wide_table_the_first_rows_are_read_and_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("pipeline.inspection.findings.WIDE", 5)
    monkeypatch.setattr("pipeline.inspection.findings.SAMPLE_VALUES", 600)
    path = log(tmp_path, "a,b,c,d,e,click", lambda i, r: f"{i},2,3,4,5,{i % 2}")
    assert "the first 100 records" in inspect(path, "mine").report
    assert "6 columns: the first 100 records are read (more by --rows)" in capsys.readouterr().err
    assert "the first 300 records" in inspect(path, "mine", rows=300).report


def test_few_time_formats_are_tried_in_full(monkeypatch: pytest.MonkeyPatch):
    tried = []
    whole = profiling.seconds
    monkeypatch.setattr(profiling, "seconds", lambda texts, form: tried.append(form) or whole(texts, form))
    profile = profiling.Profile("at", pa.string())
    profile.add(pa.array([f"{i % 28 + 1:02}.01.2020 10:00" for i in range(200)]).dictionary_encode(), 10**9)
    assert list(profile.times or {}) == ["%d.%m.%Y %H:%M"]
    assert set(tried) == {"%d.%m.%Y %H:%M"}


# ---- the campaign of benchmarks/damaged_logs.py, its quick part ----


@pytest.mark.slow
@pytest.mark.parametrize(("what", "files"), [(damaged_logs.read, 250), (damaged_logs.look, 25)])
def test_no_damage_crashes_or_loses_a_record(what: Callable[[Path, dict[str, Any]], int], files: int):
    found = damaged_logs.run(what, range(10**6, 10**6 + files))
    assert found.faults == []
    assert found.became["read"] > files / 3
    assert found.became["refused in a message"] > files / 5


def test_the_campaign_notices_a_lost_record_and_a_crash(monkeypatch: pytest.MonkeyPatch):
    def lossy(_: Path, rejects: RejectLog, **__: Any) -> Any:
        rejects.count("log.csv", 3)
        return type("Log", (), {"tables": iter([pa.table({"a": [1, 2]})])})

    monkeypatch.setattr(tabular, "read", lossy)
    assert "1 of 3 records vanished" in damaged_logs.run(damaged_logs.read, range(1)).faults[0]

    def crashing(*_: Any, **__: Any) -> Any:
        raise ValueError("boom")

    monkeypatch.setattr(tabular, "read", crashing)
    assert "boom" in damaged_logs.run(damaged_logs.read, range(1)).faults[0]


# ---- before DVC starts ----


def test_check_compares_the_values_of_a_split_by_files_with_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that has lost its test file, or got one more, is told before anything runs."""
    (logs := tmp_path / "logs").mkdir()
    for name in ("train.csv", "test.csv"):
        (logs / name).write_text("user,click\na,1\nb,0\n")
    entry: dict[str, Any] = {
        "source": "tabular",
        "download": {"path": "logs"},
        "preprocess": {"label": "click", "fields": {"user": "user"}, "file": "part"},
        "split": {"method": "column", "column": "part", "values": {"train.csv": "train", "test.csv": "test"}},
        "encode": {},
        "settings": {},
    }
    project.make_project(tmp_path, datasets=["mine"], data={"mine": entry})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["ctr", "check"])
    commands.main()
    (logs / "test.csv").rename(logs / "old.csv")
    with pytest.raises(PipelineError) as caught:
        commands.main()
    message = str(caught.value)
    assert "data.mine: split.values: does not say what 'old.csv' stands for (`values` has " in message
    assert "split.values: 'test.csv' is no file of the log, which are 'old.csv', 'train.csv'" in message
    (logs / "old.csv").unlink()
    with pytest.raises(PipelineError, match=r"data\.mine: split\.values: 'test\.csv' is no file of the log"):
        commands.main()
    del entry["split"]["values"]
    project.make_project(tmp_path, datasets=["mine"], data={"mine": entry})
    with pytest.raises(PipelineError, match=r"what 'train\.csv' stands for \(expected train, valid, test or"):
        commands.main()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, None),
        ({"download": {"path": "gone.csv"}}, r"data.mine: gone.csv does not exist \(download.path"),
        (
            {"preprocess": {"fields": {"usr": "user"}}},
            "preprocess.fields.usr: unknown column 'usr'",
        ),
        ({"preprocess": {"label": "clik"}}, "preprocess.label: unknown column 'clik'"),
        ({"preprocess": {"separator": ";"}}, "clicks.csv:1: the first line has no ';'"),
        ({"source": "synthetic"}, None),
        (
            {"split": {"method": "time"}},
            "mine: split method 'time' needs the column 'time', .* data.mine.preprocess.time: <its column>",
        ),
        ({"split": {"method": "days"}}, "mine: split method 'days' needs the column 'time'"),
        ({"split": {"method": "user"}}, "mine: split method 'user' needs the column 'group'"),
        ({"split": {"method": "column", "column": "part"}}, r"mine: .* data.mine.preprocess.keep: \[part\]"),
        ({"split": {"method": "column", "column": "user"}}, None),
        ({"split": {"method": "user"}, "preprocess": {"user": "user"}}, None),
    ],
)
def test_check_looks_at_own_logs_before_dvc_starts(
    change: dict[str, Any],
    says: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Otherwise a typo in a column's name is told after the download, or after hours of other datasets."""
    (tmp_path / "clicks.csv").write_text("user,click\na,1\nb,0\n")
    entry: dict[str, Any] = {
        "source": "tabular",
        "download": {"path": "clicks.csv"},
        "preprocess": {"label": "click", "fields": {"user": "user"}},
        "split": {"method": "random", "seed": 1},
        "encode": {},
        "settings": {},
    }
    for key, value in change.items():
        entry[key] = {**entry[key], **value} if isinstance(value, dict) else value
    if entry["source"] == "synthetic":
        entry = project.own_params()["data"]["synthetic"]
    project.make_project(tmp_path, datasets=["mine"], data={"mine": entry})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["ctr", "check"])
    if says is None:
        commands.main()
        assert capsys.readouterr().out == "params.yaml: 1 dataset, 2 models: nothing to object to\n"
        monkeypatch.setattr("sys.argv", ["ctr", "check", "--quiet"])  # as `ctr run` asks
        commands.main()
        assert capsys.readouterr().out == ""
        return
    with pytest.raises(PipelineError, match=says):
        commands.main()
    (raw := tmp_path / "data/raw/mine").mkdir(parents=True)
    (raw / "manifest.json").write_text("{}")
    with pytest.raises(PipelineError, match=says):  # a copy, but of what?
        commands.main()
    made = {
        "download@mine": {
            "cmd": "download",
            "params": {"params.yaml": {"data.mine.download": entry["download"]}},
        }
    }
    (tmp_path / "dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": made}))
    if "gone" in says:  # the copy is used
        commands.main()


@pytest.mark.parametrize(
    ("field", "says"),
    [
        ({}, None),
        ({"file": "itemz.parquet"}, "preprocess.fields.emb.file: unknown file 'itemz.parquet'; did you mean"),
        ({"column": "embed"}, "items.parquet: preprocess.fields.emb.column: unknown column 'embed'"),
        ({"file_key": "id"}, "items.parquet: preprocess.fields.emb.file_key: unknown column 'id'"),
    ],
)
def test_check_looks_at_files_of_vectors_before_dvc_starts(
    field: dict[str, str], says: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "clicks.csv").write_text("user,item,click\na,x,1\nb,y,0\n")
    pq.write_table(
        pa.table({"item": ["x", "y"], "emb": [[0.5, 1.0], [2.0, 0.0]]}), tmp_path / "items.parquet"
    )
    emb = {"domain": "item", "type": "vector", "key": "item", "file": "items.parquet", **field}
    entry = {
        "source": "tabular",
        "download": {"path": "clicks.csv", "vectors": ["items.parquet"]},
        "preprocess": {"label": "click", "fields": {"user": "user", "item": "item", "emb": emb}},
        "split": {"method": "random", "seed": 1},
        "encode": {},
        "settings": {},
    }
    project.make_project(tmp_path, datasets=["mine"], data={"mine": entry})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["ctr", "check"])
    if says is None:
        commands.main()
        (tmp_path / "items.parquet").unlink()
        says = "items.parquet is no file"
    with pytest.raises(PipelineError, match=says):
        commands.main()
