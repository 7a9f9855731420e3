"""GDCN: cross layers with an information gate on every component.

Paper: Wang et al., "Towards Deeper, Lighter and Interpretable Cross Network for CTR Prediction",
CIKM 2023, https://arxiv.org/abs/2311.04635.

Equation: x_{l+1} = x0 * (W_l x_l + b_l) * sigmoid(Wg_l x_l) + x_l;
`parallel` (GDCN-P): logit = w . [x_L, MLP(x0)] + bias; `stacked` (GDCN-S): logit = w . MLP(x_L) + bias.

Shapes: ids (B, S) -> x0 (B, F * D) -> cross (B, F * D), deep (B, H) -> logit (B,).

Differs from the paper: the search for each field's embedding size (FDO) is omitted. b is initialised at zero.
With `hidden` [] the MLP is the identity.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers.cross import CrossNetwork
from pipeline.layers.mechanism import Mechanism
from pipeline.layers.mlp import dense
from pipeline.layers.options import Count, Embed, Net
from pipeline.schema import Schema


class GatedCross(nn.Module):
    """One layer of the equation: (B, K), (B, K) -> (B, K)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.w = dense(width, width)
        self.gate = dense(width, width, bias=False)
        self.information = Mechanism("gate", 1.0)

    def forward(self, x0: Float[Tensor, "B K"], x: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
        return x0 * self.w(x) * self.information(self.gate(x).sigmoid()) + x


class GDCN(nn.Module):
    """Gated cross network, beside or below an MLP."""

    def __init__(
        self,
        schema: Schema,
        *,
        embedding: Embed = Embed(16),
        structure: Literal["parallel", "stacked"] = "parallel",
        cross_layers: Count = 3,
        network: Net = Net(dropout=0.5),
    ) -> None:
        super().__init__()
        self.embedding = embedding(schema)
        width = self.embedding.width
        self.cross = CrossNetwork(GatedCross(width) for _ in range(cross_layers))
        self.mlp = network(width)
        self.parallel = structure == "parallel"
        self.out = dense(self.mlp.outputs + width * self.parallel, 1)

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        x0 = self.embedding(ids).flatten(1)
        x = self.cross(x0)
        h = torch.cat([x, self.mlp(x0)], 1) if self.parallel else self.mlp(x)
        return self.out(h).squeeze(1)
