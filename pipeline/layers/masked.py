"""FCN's cross layers: half of a layer's width masks itself.

Source: Li et al., "FCN", 2024, https://arxiv.org/abs/2407.13349.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.layers.mechanism import Mechanism
from pipeline.layers.mlp import Dropout, dense

Mask = Literal["self", "norm"]


class MaskedCross(nn.Module):
    """anchor * [c, Mask(c)] + b + x with c = W x: (B, K), (B, K) -> (B, K).

    Args:
        width: K.
        half: the width of c; Mask(c) is truncated to the rest.
        mask: `self` or `norm`.
    """

    def __init__(self, width: int, half: int, mask: Mask) -> None:
        super().__init__()
        self.rest = width - half
        self.w = dense(width, half, bias=False)
        self.norm = nn.LayerNorm(half)
        self.opened = Mechanism("mask", 1.0) if mask == "self" else None
        self.b = nn.Parameter(torch.zeros(width))

    def forward(self, anchor: Float[Tensor, "B K"], x: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
        c = self.w(x)
        masked = self.norm(c) if self.opened is None else c * self.opened(torch.relu(self.norm(c)))
        return anchor * torch.cat([c, masked[:, : self.rest]], 1) + self.b + x


class MaskedNetwork(nn.Module):
    """Cross layers and their logit: (B, K) -> (B,). The anchor is x (ECN) or x1 (LCN)."""

    def __init__(
        self, width: int, half: int, layers: int, mask: Mask, *, exponential: bool, dropout: float
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(MaskedCross(width, half, mask) for _ in range(layers))
        self.exponential = exponential
        self.dropout = Dropout(dropout)
        self.out = dense(width, 1)

    def forward(self, x1: Float[Tensor, "B K"]) -> Float[Tensor, " B"]:
        x = x1
        for cross in self.layers:
            x = self.dropout(cross(x if self.exponential else x1, x))
        return self.out(x).squeeze(1)
