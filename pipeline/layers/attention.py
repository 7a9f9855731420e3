"""Self-attention between the fields of a row."""

from math import sqrt

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.layers.accelerated import accelerated
from pipeline.layers.mechanism import Mechanism
from pipeline.layers.mlp import Dropout, dense


class Interacting(nn.Module):
    """One layer: every field attends to all fields, head by head, and adds a projection of itself.

    Source: Song et al., "AutoInt", CIKM 2019, https://arxiv.org/abs/1810.11921, eq. 5-8.
    Shapes: (B, F, W) -> (B, F, heads * K).

    Args:
        inputs: W.
        size: K.
        heads: how many.
        scaling: divide the inner products by the root of K.
        dropout: of the attention weights.
    """

    def __init__(self, inputs: int, size: int, heads: int, *, scaling: bool, dropout: float) -> None:
        super().__init__()
        self.query = dense(inputs, heads * size, bias=False)
        self.key = dense(inputs, heads * size, bias=False)
        self.value = dense(inputs, heads * size, bias=False)
        self.residual = dense(inputs, heads * size, bias=False)
        self.heads, self.scale = heads, sqrt(size) if scaling else 1.0
        self.attention = Mechanism("attention", "uniform", axis=3)
        self.dropout = Dropout(dropout)

    def split(self, x: Float[Tensor, "B F W"]) -> Float[Tensor, "B heads F K"]:
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def weights(self, e: Float[Tensor, "B F D"]) -> Float[Tensor, "B heads F F"]:
        scores = self.split(self.query(e)) @ self.split(self.key(e)).transpose(2, 3)
        return (scores / self.scale).softmax(3)

    def forward(self, e: Float[Tensor, "B F D"]) -> Float[Tensor, "B F W"]:
        attended = self.dropout(self.attention(self.weights(e))) @ self.split(self.value(e))
        return torch.relu(attended.transpose(1, 2).flatten(2) + self.residual(e))


class InteractingLayers(nn.Sequential):
    """Layers of attention, one after another."""

    @accelerated("attention")
    def forward(self, input: Float[Tensor, "B F D"]) -> Float[Tensor, "B F W"]:  # noqa: A002  the parent's name
        return super().forward(input)  # type: ignore[no-untyped-call]
