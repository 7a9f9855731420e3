"""Normalisation of each field's vector."""

import torch

from pipeline.layers.norm import vector_norm


def test_each_vector_has_mean_zero_and_variance_one() -> None:
    e = 5 + 3 * torch.randn(4, 3, 8, dtype=torch.float64)
    v = vector_norm(8).double()(e)
    torch.testing.assert_close(v.mean(2), torch.zeros(4, 3).double())
    torch.testing.assert_close(v.var(2, unbiased=False), torch.ones(4, 3).double(), rtol=1e-4, atol=0)


def test_a_single_component_is_not_wiped_out() -> None:
    e = torch.randn(4, 3, 1)
    assert torch.equal(vector_norm(1)(e), e)
