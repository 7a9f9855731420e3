"""A mechanism is the identity, and knows what takes its place."""

import pytest
import torch

from pipeline.layers.mechanism import Mechanism


def test_it_is_the_identity_without_parameters() -> None:
    mechanism, x = Mechanism("gate", 1.0), torch.randn(4, 3, requires_grad=True)
    assert mechanism(x) is x
    assert mechanism.state_dict() == {}


@pytest.mark.parametrize("neutral", [0.0, 1.0])
def test_without_it_a_gate_is_one_and_a_threshold_zero(neutral: float) -> None:
    assert (Mechanism("gate", neutral).removed(torch.randn(4, 3)) == neutral).all()


def test_without_it_attention_is_uniform_and_keeps_its_sum() -> None:
    mechanism, a = Mechanism("attention", "uniform", axis=2), torch.rand(4, 3, 5)
    b = mechanism.removed(a)
    torch.testing.assert_close(b.sum(2), a.sum(2))
    assert (b.amax(2) == b.amin(2)).all()


def test_without_it_an_unused_place_gets_nothing() -> None:
    a = torch.tensor([[0.5, 1.5, 9.0], [1.0, 9.0, 9.0], [9.0, 9.0, 9.0]])
    used = torch.tensor([[True, True, False], [True, False, False], [False, False, False]])
    expected = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    assert torch.equal(Mechanism("attention", "uniform").removed(a, used), expected)
