"""Layer normalisation of each field's vector."""

from torch import nn


def vector_norm(dim: int) -> nn.Module:
    """Return the layer that normalises each vector of size D to mean 0 and variance 1, then scales it.

    Source: Ba, Kiros and Hinton, "Layer Normalization", 2016, https://arxiv.org/abs/1607.06450, with one
    gain and bias for all fields. With D = 1, where nothing but the bias would be left, it is the identity.

    Shapes: (B, F, D) -> (B, F, D).
    """
    return nn.LayerNorm(dim) if dim > 1 else nn.Identity()
