"""DCN-V2: cross layers with a matrix of weights, full, of low rank, or mixed from experts.

Paper: Wang et al., "DCN V2: Improved Deep & Cross Network and Practical Lessons for Web-scale
Learning to Rank Systems", WWW 2021, https://arxiv.org/abs/2008.13535.

Equation: x_{l+1} = x0 * (W_l x_l + b_l) + x_l, or with `low_rank`
x_{l+1} = sum_i G_i(x_l) E_i(x_l) + x_l, E_i(x) = x0 * (U_i g(C_i g(V_i^T x)) + b_l);
`parallel`: logit = w . [x_L, MLP(x0)] + bias; `stacked`: logit = w . MLP(x_L) + bias.

Shapes: ids (B, S) -> x0 (B, F * D) -> cross (B, F * D), deep (B, H) -> logit (B,).

Differs from the paper: all fields have one embedding size. With one expert there is no gate, and with
`cross_activation` identity W = U V^T is the plain low-rank matrix. The paper leaves G open: `gate` is a
softmax over the experts or a sigmoid per expert. With `hidden` [] the MLP is the identity.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers.cross import CrossActivation, CrossNetwork, MatrixCross, MixtureCross
from pipeline.layers.mlp import dense
from pipeline.layers.options import Count, CountOrZero, Embed, Net
from pipeline.schema import Schema


class DCNv2(nn.Module):
    """Cross network with matrix weights, beside or below an MLP."""

    def __init__(
        self,
        schema: Schema,
        *,
        embedding: Embed = Embed(16),
        structure: Literal["parallel", "stacked"] = "parallel",
        cross_layers: Count = 2,
        low_rank: CountOrZero = 0,
        experts: Count = 1,
        gate: Literal["softmax", "sigmoid"] = "softmax",
        cross_activation: CrossActivation = "tanh",
        network: Net = Net((768, 768)),
    ) -> None:
        if experts > 1 and not low_rank:
            raise ValueError(f"{experts} experts need a low_rank above 0: set it, or take one expert")
        super().__init__()
        self.embedding = embedding(schema)
        width = self.embedding.width
        self.cross = CrossNetwork(
            MixtureCross(width, low_rank, experts=experts, gate=gate, activation=cross_activation)
            if low_rank
            else MatrixCross(width)
            for _ in range(cross_layers)
        )
        self.mlp = network(width)
        self.parallel = structure == "parallel"
        self.out = dense(self.mlp.outputs + width * self.parallel, 1)

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        x0 = self.embedding(ids).flatten(1)
        x = self.cross(x0)
        h = torch.cat([x, self.mlp(x0)], 1) if self.parallel else self.mlp(x)
        return self.out(h).squeeze(1)
