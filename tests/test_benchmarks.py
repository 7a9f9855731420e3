"""Benchmarks whose parts would otherwise be found broken on the day that they are needed."""

import pytest

from benchmarks import rare_clicks
from pipeline.train.device import reproducible


@pytest.mark.thorough
def test_rare_clicks_searches_where_trials_are_asked_for() -> None:
    reproducible(1)
    rows = rare_clicks.measure(rare_clicks.generate(600, 0.3, seed=1), ["lr"], trials=2)
    assert [row["name"] for row in rows] == ["truth", "scikit-learn", "lr", "lr best of 2", "lr tuned"]
    assert all(0 < row["auc"] < 1 and row["ne"] > 0 for row in rows)
