"""What a message tells to do about a damaged file really helps, under DVC and its cache of links."""

from pathlib import Path

import pytest

from benchmarks import chaos, damages

pytestmark = [pytest.mark.slow, pytest.mark.thorough]
CASES = [
    ("raw/synthetic", "clicks.csv", "one bit"),
    ("interim/synthetic", "table.parquet", "one bit"),
    ("interim/synthetic", "columns.json", "gone"),
    ("interim/synthetic", "table.parquet", "unreadable"),
]


def test_a_damaged_file_that_the_cache_shares_is_mended_as_told(tmp_path: Path) -> None:
    folder = chaos.make_project(tmp_path / "project")
    made = chaos.call(folder, "dvc", "repro", "split@synthetic")
    assert not made.returncode, made.stderr
    for inside, name, how in CASES:
        path, reader = folder / "data" / inside / name, damages.READERS[f"data/{inside}/*"]
        assert damages.damage_once(folder, path, reader, how, chaos.cold) == ""
        again = chaos.call(folder, "dvc", "repro", "split@synthetic")
        assert not again.returncode, again.stderr


def test_a_cure_that_does_not_help_is_noticed(tmp_path: Path) -> None:
    folder = chaos.make_project(tmp_path / "project")
    made = chaos.call(folder, "dvc", "repro", "download@synthetic")
    assert not made.returncode, made.stderr
    path, told = folder / "data/raw/synthetic/clicks.csv", "error: data/raw/synthetic/clicks.csv is odd"
    for said, found in (
        ("error: something is odd", "not named"),
        (told, "no cure is told"),
        (f"{told}; run `dvc repro download@synthetic`", "the cure did not help"),
        ("Traceback", "traceback"),
    ):
        assert found in damages.damage_once(folder, path, (), "one bit", lambda *_, **__: (1, said))  # noqa: B023
    assert "other bits" in damages.damage_once(folder, path, (), "one bit", lambda *_, **__: (0, ""))
