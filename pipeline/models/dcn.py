"""DCN: a cross network beside a deep one.

Paper: Wang et al., "Deep & Cross Network for Ad Click Predictions", ADKDD 2017,
https://arxiv.org/abs/1708.05123.

Equation: x_{l+1} = x0 (x_l^T w_l) + b_l + x_l with vectors w_l and b_l, x0 the concatenated
embeddings; logit = w . [x_L, MLP(x0)] + bias.

Shapes: ids (B, S) -> x0 (B, F * D) -> cross (B, F * D), deep (B, H) -> logit (B,).

Differs from the paper: all fields have one embedding size (there it grows with the vocabulary), and numbers
are binned. Batch norm, which the paper uses, is off by default. With `hidden` [] the deep part is x0 itself.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers.cross import CrossNetwork, VectorCross
from pipeline.layers.mlp import dense
from pipeline.layers.options import Count, Embed, Net
from pipeline.schema import Schema


class DCN(nn.Module):
    """Cross network with vector weights, and MLP, side by side."""

    def __init__(
        self,
        schema: Schema,
        *,
        embedding: Embed = Embed(16),
        cross_layers: Count = 6,
        network: Net = Net((1024, 1024)),
    ) -> None:
        super().__init__()
        self.embedding = embedding(schema)
        width = self.embedding.width  # F * D
        self.cross = CrossNetwork(VectorCross(width) for _ in range(cross_layers))
        self.mlp = network(width)
        self.out = dense(width + self.mlp.outputs, 1)

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        x0 = self.embedding(ids).flatten(1)
        return self.out(torch.cat([self.cross(x0), self.mlp(x0)], 1)).squeeze(1)
