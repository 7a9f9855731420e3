"""All pairs, one by one, against the double loop."""

from itertools import combinations

import pytest
import torch

from pipeline.layers.field_aware import FieldAwarePairs
from pipeline.layers.pairs import Pairs, bi_interaction

sizes = pytest.mark.parametrize("n", [1, 2, 3, 6])


@sizes
def test_pairs_are_in_the_order_of_combinations(n: int) -> None:
    layer = Pairs(n)
    order = list(combinations(range(n), 2))
    assert list(zip(layer.first.tolist(), layer.second.tolist(), strict=True)) == order
    assert layer.count == len(order)


@sizes
def test_inner_and_hadamard_are_the_double_loop(n: int) -> None:
    layer, e = Pairs(n), torch.randn(5, n, 4).double()
    products = layer.hadamard(e)
    assert products.shape == (5, layer.count, 4)
    for k, (i, j) in enumerate(combinations(range(n), 2)):
        torch.testing.assert_close(products[:, k], e[:, i] * e[:, j])
        torch.testing.assert_close(layer.inner(e)[:, k], (e[:, i] * e[:, j]).sum(1))


@sizes
def test_their_sums_are_the_bi_interaction(n: int) -> None:
    layer, e = Pairs(n), torch.randn(5, n, 4).double()
    torch.testing.assert_close(layer.hadamard(e).sum(1), bi_interaction(e))
    torch.testing.assert_close(layer.inner(e).sum(1), bi_interaction(e).sum(1))


@sizes
def test_field_aware_pairs_take_each_field_towards_the_other(n: int) -> None:
    layer, v = FieldAwarePairs(n), torch.randn(5, n, n, 4).double()
    for k, (i, j) in enumerate(combinations(range(n), 2)):
        torch.testing.assert_close(layer.hadamard(v)[:, k], v[:, i, j] * v[:, j, i])
        torch.testing.assert_close(layer.inner(v)[:, k], (v[:, i, j] * v[:, j, i]).sum(1))
    assert layer.inner(v).shape == (5, layer.count)


def test_the_own_field_vector_is_in_no_pair() -> None:
    """A vector towards one's own field is for values of the same field."""
    layer, v = FieldAwarePairs(4), torch.randn(5, 4, 4, 3)
    before = layer.inner(v)
    v[:, range(4), range(4)] = 7.0
    assert torch.equal(layer.inner(v), before)


def test_with_one_vector_for_all_fields_field_aware_pairs_are_pairs() -> None:
    e = torch.randn(5, 4, 3).double()
    v = e.unsqueeze(2).expand(5, 4, 4, 3)
    torch.testing.assert_close(FieldAwarePairs(4).inner(v), Pairs(4).inner(e))
