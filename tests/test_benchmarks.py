"""Benchmarks whose parts would otherwise be found broken on the day that they are needed."""

import numpy as np
import project
import pytest

from benchmarks import rare_clicks, shapes
from pipeline.common.errors import PipelineError
from pipeline.config.params import Params
from pipeline.statistics.significance import estimate
from pipeline.train.device import reproducible


@pytest.mark.thorough
def test_rare_clicks_searches_where_trials_are_asked_for() -> None:
    reproducible(1)
    rows = rare_clicks.measure(rare_clicks.generate(600, 0.3, seed=1), ["lr"], trials=2)
    assert [row["name"] for row in rows] == ["truth", "scikit-learn", "lr", "lr best of 2", "lr tuned"]
    assert all(0 < row["auc"] < 1 and row["ne"] > 0 for row in rows)


def test_every_model_has_the_same_number_of_shapes_and_its_default() -> None:
    settings, grid = Params(project.own_params()), shapes.Grid()
    for name in shapes.MODELS:
        config = settings.config("movielens-100k-s1", name)
        default, *others = (found := shapes.candidates(config, grid))
        option = shapes.axis(config)
        assert found[default].model == {option: config.model[option]}
        assert found[default].train == {key: config.train.fit[key] for key in ("network_l2", "network_decay")}
        assert len(others) == len(grid.heads(option)) - (default in grid.heads(option))
    with pytest.raises(PipelineError, match="fm has neither"):
        shapes.axis(settings.config("movielens-100k-s1", "fm"))


@pytest.mark.parametrize(
    ("signal", "noise", "told"),
    [
        (0.0, 0.0, "| stays |"),
        (0.12, 0.6, "| stays; [200] decay +0.0"),
        (1.0, 1.0, "| **[200] decay** +0."),
    ],
)
def test_a_shape_replaces_the_default_if_its_gain_is_larger_than_its_error(
    signal: float, noise: float, told: str
) -> None:
    """Two splits, on which all candidates but one predict the same."""
    splits, heads = [], shapes.Grid().heads("hidden")
    for seed in (1, 2):
        rng = np.random.default_rng(seed)
        label = rng.random(400) < 0.5
        scores = dict.fromkeys(heads, label + rng.standard_normal(400))
        scores["[200] decay"] = scores["[200] decay"] + signal * label + noise * rng.standard_normal(400)
        found = {name: estimate(label, [each]) for name, each in scores.items()}
        splits.append({name: shapes.Result(each.auc, each) for name, each in found.items()})
    assert told in shapes.line("fm", heads, splits, margin=1.0)
