"""What a message tells to do about a damaged file really helps, under DVC and its cache of links."""

from pathlib import Path

import pytest

from benchmarks import chaos

pytestmark = pytest.mark.slow


def test_a_damaged_file_that_the_cache_shares_is_mended_as_told(tmp_path: Path) -> None:
    folder = chaos.make_project(tmp_path / "project")
    made = chaos.call(folder, "dvc", "repro", "split@synthetic")
    assert not made.returncode, made.stderr
    before = chaos.results(folder)
    for inside, name, how in (
        ("raw/synthetic", "clicks.csv", "one bit"),
        ("interim/synthetic", "table.parquet", "one bit"),
        ("interim/synthetic", "columns.json", "gone"),
    ):
        path, (stage, *_) = folder / "data" / inside / name, chaos.READERS[inside]
        path.chmod(0o644)
        chaos.DAMAGES[how](path)
        refused = chaos.python(folder, f"stages.{stage}", "--dataset", "synthetic")
        assert refused.returncode == 1
        assert f"data/{inside}/{name}" in refused.stderr
        assert "Traceback" not in refused.stderr
        chaos.follow_cure(folder, refused.stderr)
        again = chaos.call(folder, "dvc", "repro", "split@synthetic")
        assert not again.returncode, again.stderr
        assert chaos.results(folder) == before
