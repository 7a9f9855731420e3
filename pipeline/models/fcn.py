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
in the authors' code. `mask` norm uses LayerNorm(c) as Mask(c), as later versions do. `bias: inside` is that
code's x * ([c, Mask(c)] + b_l) + x, with b_l from U(0, 1). `batch_norm` of c is that code's too, off by
default in both. ECN and LCN have a depth and a dropout each, by default the same (there 1 to 4 layers, .1
and .3). One head, always with LayerNorm; for an odd embedding size c has the larger half. `networks`
selects one of the two (the ablation).
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers import loss
from pipeline.layers.masked import Bias, Mask, MaskedCross, MaskedNetwork
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
        linear_layers: Count | None = None,
        mask: Mask = "self",
        bias: Bias = "outside",
        networks: Literal["both", "exponential", "linear"] = "both",
        dropout: Probability = 0.0,
        linear_dropout: Probability | None = None,
        batch_norm: bool = False,
        tri_bce: bool = True,
    ) -> None:
        super().__init__()
        self.loss = loss.tri_bce if tri_bce else loss.of_mean
        self.embedding = embedding(schema)
        width, half = self.embedding.width, len(schema.fields) * ((embedding.size + 1) // 2)
        depth = cross_layers if linear_layers is None else linear_layers
        rate = dropout if linear_dropout is None else linear_dropout
        self.networks = nn.ModuleList(
            MaskedNetwork(
                [MaskedCross(width, half, mask, bias=bias, batch_norm=batch_norm) for _ in range(layers)],
                width,
                exponential=name == "exponential",
                dropout=p,
            )
            for name, layers, p in (("exponential", cross_layers, dropout), ("linear", depth, rate))
            if networks in (name, "both")
        )

    def heads(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, "H B"]:
        """Return the logit of each network."""
        x1 = torch.cat([half.flatten(1) for half in self.embedding(ids).tensor_split(2, 2)], 1)
        return torch.stack([network(x1) for network in self.networks])

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        return self.heads(ids).mean(0)
