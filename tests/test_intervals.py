"""What the report promises, on logs whose truth is known: benchmarks/intervals.py in small."""

import numpy as np
import pytest

from benchmarks.intervals import coverage, null_tables

pytestmark = pytest.mark.slow


def test_where_nothing_differs_hardly_a_table_has_anything_bold() -> None:
    found = null_tables(np.random.default_rng(1), 40, models=11)
    assert found["report"] <= 0.15  # 5 % of 40 tables is two; more than six are less likely than 1 %
    assert found["no Holm"] > found["report"]
    assert found["no seeds in it"] > 0.25
    assert found["rows only, no Holm"] > 0.6


def test_intervals_by_user_cover_the_truth_and_intervals_by_row_do_not() -> None:
    found = coverage(np.random.default_rng(2), 150, users=150, rows=4500, true_rows=400_000)
    for name in ("AUC", "difference"):
        assert 0.9 <= found[f"{name}, by user"] <= 0.99
    assert found["AUC, by row"] < 0.88
