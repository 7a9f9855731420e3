"""FCN (first called DCNv3): an exponential and a linear cross network, and no MLP.

Paper: Li et al., "FCN: Fusing Exponential and Linear Cross Network for Click-Through Rate
Prediction", 2024, https://arxiv.org/abs/2407.13349.

Equation: c = W_l x, Mask(c) = c * max(0, LayerNorm(c)), of half the width;
ECN: x <- x * [c, Mask(c)] + b_l + x, where the order doubles with each layer;
LCN: x <- x1 * [c, Mask(c)] + b_l + x, where it grows by one;
logit = (w_e . x_ECN + b_e + w_s . x_LCN + b_s) / 2.

Shapes: ids (B, S) -> E (B, F, D) -> x1 (B, F * D), the first halves of all fields, then the second
-> logit (B,).

Differs from the paper: Tri-BCE, its loss on each network's own prediction, belongs to training and is
omitted. The mean is that of the logits, as in the authors' code. `mask` norm uses LayerNorm(c) as Mask(c), as
later versions do. b_l is outside the product; the authors' code has it inside. One head; for an odd embedding
size c has the larger half. `networks` selects one of the two (the ablation). `dropout` follows each layer.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers.mlp import Dropout, dense
from pipeline.layers.options import Count, Embed, Probability
from pipeline.schema import Schema

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
        self.rest, self.mask = width - half, mask
        self.w = dense(width, half, bias=False)
        self.norm = nn.LayerNorm(half)
        self.b = nn.Parameter(torch.zeros(width))

    def forward(self, anchor: Float[Tensor, "B K"], x: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
        c = self.w(x)
        masked = self.norm(c) if self.mask == "norm" else c * torch.relu(self.norm(c))
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


class FCN(nn.Module):
    """The mean of an exponential and a linear cross network."""

    def __init__(
        self,
        schema: Schema,
        *,
        embedding: Embed = Embed(16),
        cross_layers: Count = 2,
        mask: Mask = "self",
        networks: Literal["both", "exponential", "linear"] = "both",
        dropout: Probability = 0.0,
    ) -> None:
        super().__init__()
        self.embedding = embedding(schema)
        width, half = self.embedding.width, len(schema.fields) * ((embedding.size + 1) // 2)
        self.networks = nn.ModuleList(
            MaskedNetwork(width, half, cross_layers, mask, exponential=name == "exponential", dropout=dropout)
            for name in ("exponential", "linear")
            if networks in (name, "both")
        )

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        x1 = torch.cat([half.flatten(1) for half in self.embedding(ids).tensor_split(2, 2)], 1)
        return torch.stack([network(x1) for network in self.networks]).mean(0)
