"""FCN's cross layers: half of a layer's width masks itself.

Source: Li et al., "FCN", 2024, https://arxiv.org/abs/2407.13349.
"""

from collections.abc import Iterable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.layers.mechanism import Mechanism
from pipeline.layers.mlp import Dropout, dense

Mask = Literal["self", "norm"]
Bias = Literal["outside", "inside"]


class MaskedCross(nn.Module):
    """anchor * [c, Mask(c)] + b + x with c = W x: (B, K), (B, K) -> (B, K).

    Args:
        width: K.
        half: the width of c; Mask(c) is truncated to the rest.
        mask: `self` or `norm`.
        bias: `outside` the product, from 0; or `inside`, anchor * ([c, Mask(c)] + b) + x, from U(0, 1).
        batch_norm: whether c is first normalised over the batch and its components, by one mean and variance.
    """

    def __init__(
        self, width: int, half: int, mask: Mask, *, bias: Bias = "outside", batch_norm: bool = False
    ) -> None:
        super().__init__()
        self.rest, self.bias = width - half, bias
        self.w = dense(width, half, bias=False)
        self.batch_norm = nn.BatchNorm1d(1) if batch_norm else nn.Identity()
        self.norm = nn.LayerNorm(half)
        self.opened = Mechanism("mask", 1.0) if mask == "self" else None
        self.b = nn.Parameter(torch.zeros(width) if bias == "outside" else torch.rand(width))

    def forward(self, anchor: Float[Tensor, "B K"], x: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
        c = self.batch_norm(self.w(x).unsqueeze(1)).squeeze(1)
        masked = self.norm(c) if self.opened is None else c * self.opened(torch.relu(self.norm(c)))
        both = torch.cat([c, masked[:, : self.rest]], 1)
        return anchor * (both + self.b) + x if self.bias == "inside" else anchor * both + self.b + x


class MaskedNetwork(nn.Module):
    """Cross layers, each followed by dropout, and their logit: (B, K) -> (B,).

    The anchor is x if `exponential` (ECN), x1 if not (LCN).
    """

    def __init__(
        self, crosses: Iterable[MaskedCross], width: int, *, exponential: bool, dropout: float
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(crosses)
        self.exponential = exponential
        self.dropout = Dropout(dropout)
        self.out = dense(width, 1)

    def forward(self, x1: Float[Tensor, "B K"]) -> Float[Tensor, " B"]:
        x = x1
        for cross in self.layers:
            x = self.dropout(cross(x if self.exponential else x1, x))
        return self.out(x).squeeze(1)
