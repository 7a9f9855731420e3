"""docs/departures.md is what the docstrings say."""

from pathlib import Path

from pipeline.commands import departures
from pipeline.models import CLASSES

FILE = Path(__file__).parents[1] / "docs/departures.md"


def test_the_table_of_departures_is_current() -> None:
    table = departures.table()
    assert all(f"[`{name}`]" in table for name in CLASSES)
    assert FILE.read_text(encoding="utf-8") == table, "run python -m pipeline departures"
