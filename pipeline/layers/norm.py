"""Layer normalisation of every field's vector on its own."""

from torch import nn


def vector_norm(dim: int) -> nn.Module:
    """Return the layer that brings each vector of D components to mean 0 and variance 1, then scales it.

    Source: Ba, Kiros and Hinton, "Layer Normalization", 2016, https://arxiv.org/abs/1607.06450, with one
    gain and bias for all fields. Of a single component (D = 1) nothing would be left: it stays as it is.

    Shapes: (B, F, D) -> (B, F, D).
    """
    return nn.LayerNorm(dim) if dim > 1 else nn.Identity()
