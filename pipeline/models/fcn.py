"""FCN (first called DCNv3): an exponential and a linear cross network, and no MLP.

Paper: Li et al., "FCN: Fusing Exponential and Linear Cross Network for Click-Through Rate
Prediction", 2024, https://arxiv.org/abs/2407.13349.

Equation: c = W_l x, Mask(c) = c * max(0, LayerNorm(c)), of half the width;
ECN: x <- x * [c, Mask(c)] + b_l + x, where the order doubles with each layer;
LCN: x <- x1 * [c, Mask(c)] + b_l + x, where it grows by one;
logit = (w_e . x_ECN + b_e + w_s . x_LCN + b_s) / 2, the mean of the networks' own logits.
It is trained by Tri-BCE (`layers/loss.py`): each network is also taught by the labels as far as its own
logloss is above that of the mean.

Shapes: ids (B, S) -> E (B, F, D) -> x1 (B, F * D), the first halves of all fields, then the second
-> logit (B,).

Differs from the paper: `tri_bce` off trains on the mean's logloss alone. The mean is that of the logits, as
in the authors' code. `mask` norm uses LayerNorm(c) as Mask(c), as later versions do. b_l is outside the
product; the authors' code has it inside. One head; for an odd embedding size c has the larger half.
`networks` selects one of the two (the ablation). `dropout` follows each layer.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers import loss
from pipeline.layers.masked import Mask, MaskedNetwork
from pipeline.layers.options import Count, Embed, Probability
from pipeline.schema import Schema


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
        tri_bce: bool = True,
    ) -> None:
        super().__init__()
        self.loss = loss.tri_bce if tri_bce else loss.of_mean
        self.embedding = embedding(schema)
        width, half = self.embedding.width, len(schema.fields) * ((embedding.size + 1) // 2)
        self.networks = nn.ModuleList(
            MaskedNetwork(width, half, cross_layers, mask, exponential=name == "exponential", dropout=dropout)
            for name in ("exponential", "linear")
            if networks in (name, "both")
        )

    def heads(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, "H B"]:
        """Return the logit of each network."""
        x1 = torch.cat([half.flatten(1) for half in self.embedding(ids).tensor_split(2, 2)], 1)
        return torch.stack([network(x1) for network in self.networks])

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        return self.heads(ids).mean(0)
