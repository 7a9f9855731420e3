"""Criteo's reader on invented lines in the true format, and its ways to get the file."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.common.errors import PipelineError
from pipeline.datasets import criteo
from pipeline.preprocess.rejects import RejectLog

HASHES = [f"{number:08x}" for number in range(26)]
LINES = (
    "\t".join(["1", *map(str, range(13)), *HASHES]),
    "\t".join(["0", "", "-3", *[""] * 11, "", *HASHES[1:]]),
    "\t".join(["2", *map(str, range(13)), *HASHES]),
    "\t".join(["0", "many", *map(str, range(12)), *HASHES]),
    "\t".join(["0", *map(str, range(13))]),
    "\t".join(["0", *map(str, range(13)), *HASHES]),
)


def given(folder: Path, data: bytes, name: str = "train.txt") -> Path:
    (folder / "raw").mkdir()
    (folder / name).write_bytes(data)
    criteo.download(folder / "raw", folder / "cache", path=str(folder / name))
    return folder / "raw"


def read(raw: Path) -> tuple[list[dict[str, Any]], RejectLog]:
    rejects = RejectLog()
    return pa.concat_tables(criteo.read(raw, rejects).tables).to_pylist(), rejects


def test_counts_are_numbers_the_rest_are_strings_and_bad_lines_are_told(tmp_path: Path) -> None:
    rows, rejects = read(given(tmp_path, "\n".join(LINES).encode()))
    assert [row["label"] for row in rows] == [1, 0, 0]
    assert [rows[0][f"I{n}"] for n in (1, 13)] == [0, 12]
    assert [rows[0][f"C{n}"] for n in (1, 26)] == [HASHES[0], HASHES[25]]
    assert np.isnan(rows[1]["I1"])
    assert rows[1]["I2"] == -3
    assert rows[1]["C1"] is None
    assert [line.partition(": ")[0] for line in rejects.first] == [f"train.txt:{n}" for n in (3, 4, 5)]
    assert set(rows[0]) == {*criteo.HEADER}


def test_a_compressed_copy_and_a_mirror_give_the_same_rows(tmp_path: Path) -> None:
    data = "\n".join(LINES).encode()
    (tmp_path / "one").mkdir()
    plain, _ = read(given(tmp_path / "one", data))
    (tmp_path / "two").mkdir()
    packed, _ = read(given(tmp_path / "two", gzip.compress(data), "train.txt.gz"))
    folder = tmp_path / "mirror/criteo"
    folder.mkdir(parents=True)
    (folder / "train.txt.gz").write_bytes(gzip.compress(data))
    (tmp_path / "raw").mkdir()
    criteo.download(tmp_path / "raw", tmp_path / "cache", mirror=str(tmp_path / "mirror"))
    mirrored, _ = read(tmp_path / "raw")
    assert repr(plain) == repr(packed) == repr(mirrored)


def test_without_a_copy_it_says_how_to_name_one(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for mirror in (None, str(tmp_path / "empty")):
        with pytest.raises(PipelineError, match=r"criteo: .*download\.path.*CTR_MIRROR"):
            criteo.download(tmp_path, tmp_path / "cache", mirror=mirror)
