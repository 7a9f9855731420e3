"""The forest as tensors against LightGBM's own answers."""

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.layers.forest import Forest, boost


def rows(n: int, seed: int) -> Tensor:
    """Numbers with ties, as rates and counts have them, and others without."""
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randn(n, 5, generator=generator, dtype=torch.float64)
    numbers[:, 0] = (numbers[:, 0] * 2).round() / 3
    numbers[:, 1] = numbers[:, 1].clamp(min=0)
    return numbers


def labels(numbers: Tensor) -> Tensor:
    return (numbers[:, 0] * numbers[:, 2] + numbers[:, 1] > 0.2).float()


@pytest.mark.parametrize(("trees", "leaves"), [(1, 2), (30, 7), (8, 64)])
def test_the_leaf_is_lightgbms_own(trees: int, leaves: int) -> None:
    train = rows(3000, seed=1)
    booster = boost(train, labels(train), trees=trees, leaves=leaves, lr=0.3)
    forest = Forest(trees, leaves)
    forest.load_booster(booster)
    cuts = rows(200, seed=3)  # exactly on the thresholds, and one step beside them
    for feature in range(5):
        found = forest.threshold[forest.feature == feature]
        if len(found):
            cuts[:, feature] = found[torch.arange(200) % len(found)]
    cuts[cuts.abs() < 1e-34] = 0  # where LightGBM cuts off zero; as an input it takes such a number for zero
    above, below = (torch.from_numpy(np.nextafter(cuts.numpy(), side)) for side in (np.inf, -np.inf))
    for numbers in (train, rows(1000, seed=2), cuts, above, below, torch.zeros(1, 5).double()):
        expected = torch.from_numpy(booster.predict(numbers.numpy(), pred_leaf=True)).view(-1, trees)
        ends = forest(numbers)
        assert torch.equal(ends.int().argmax(1).T.int(), expected)
        assert (ends.sum(1) == 1).all(), "a row ends in one leaf of each tree"


def test_the_leaves_add_up_to_lightgbms_prediction() -> None:
    train = rows(3000, seed=1)
    booster = boost(train, labels(train), trees=20, leaves=8, lr=0.3)
    forest = Forest(20, 8)
    forest.load_booster(booster)
    values = torch.zeros(20, 8).double()
    for tree in range(20):
        for leaf in range(8):
            values[tree, leaf] = booster.get_leaf_output(tree, leaf)
    total = (forest(train) * values.unsqueeze(2)).sum((0, 1))
    expected = torch.from_numpy(booster.predict(train.numpy(), raw_score=True))
    torch.testing.assert_close(total, expected)


def test_rows_that_cannot_be_split_share_the_one_leaf() -> None:
    few = rows(5, seed=1)
    for label in (torch.tensor([0.0, 1, 0, 1, 1]), torch.ones(5)):
        forest = Forest(3, 4)
        forest.load_booster(boost(few, label, trees=3, leaves=4, lr=0.1))
        ends = forest(rows(50, seed=2))
        assert ends[0, 0].all()
        assert not ends[:, 1:].any()


def test_before_it_is_grown_a_forest_has_no_leaves() -> None:
    assert not Forest(3, 4)(rows(9, seed=1)).any()


def test_a_forest_forgets_the_trees_it_had() -> None:
    train = rows(500, seed=1)
    forest, fresh = Forest(4, 6), Forest(4, 6)
    forest.load_booster(boost(train, labels(train), trees=4, leaves=6, lr=0.3))
    other = boost(train[:60], labels(train)[:60], trees=2, leaves=3, lr=0.3)
    forest.load_booster(other)
    fresh.load_booster(other)
    assert all(torch.equal(value, fresh.state_dict()[key]) for key, value in forest.state_dict().items())


def test_the_same_rows_give_the_same_trees() -> None:
    train = rows(3000, seed=1)
    first, second = (boost(train, labels(train), trees=5, leaves=9, lr=0.1) for _ in range(2))
    assert first.dump_model()["tree_info"] == second.dump_model()["tree_info"]
