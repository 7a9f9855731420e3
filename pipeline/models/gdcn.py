"""GDCN: cross layers whose every component passes an information gate.

Paper: Wang et al., "Towards Deeper, Lighter and Interpretable Cross Network for CTR Prediction",
CIKM 2023, https://arxiv.org/abs/2311.04635.

Equation: x_{l+1} = x0 * (W_l x_l + b_l) * sigmoid(Wg_l x_l) + x_l;
`parallel` (GDCN-P): logit = w . [x_L, MLP(x0)] + bias; `stacked` (GDCN-S): logit = w . MLP(x_L) + bias.

Shapes: ids (B, S) -> x0 (B, F * D) -> cross (B, F * D), deep (B, H) -> logit (B,).

Differs from the paper: no search for a size of each field's embedding (its FDO part). b starts at
zero. Dropout, batch norm and a transform of the embeddings are options. With `hidden` [] the deep
part is what it would read.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers.cross import CrossNetwork
from pipeline.layers.embedding import FieldEmbedding, Transform
from pipeline.layers.mlp import MLP, Activation, dense
from pipeline.schema import Schema


class GatedCross(nn.Module):
    """One layer of the equation: (B, K), (B, K) -> (B, K)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.w = dense(width, width)
        self.gate = dense(width, width, bias=False)

    def forward(self, x0: Float[Tensor, "B K"], x: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
        return x0 * self.w(x) * self.gate(x).sigmoid() + x


class GDCN(nn.Module):
    """Gated cross network, beside or below an MLP."""

    def __init__(
        self,
        schema: Schema,
        *,
        embedding_size: int = 16,
        embedding_std: float = 0.01,
        embedding_dropout: float = 0.0,
        embedding_transform: Transform = "none",
        structure: Literal["parallel", "stacked"] = "parallel",
        cross_layers: int = 3,
        hidden: list[int] = [400, 400, 400],  # noqa: B006  never changed, only read
        dropout: float = 0.5,
        batch_norm: bool = False,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        self.embedding = FieldEmbedding(
            schema,
            embedding_size,
            dropout=embedding_dropout,
            std=embedding_std,
            transform=embedding_transform,
        )
        width = len(schema.fields) * embedding_size
        self.cross = CrossNetwork(GatedCross(width) for _ in range(cross_layers))
        self.mlp = MLP(width, hidden, dropout=dropout, batch_norm=batch_norm, activation=activation)
        self.parallel = structure == "parallel"
        self.out = dense(self.mlp.outputs + width * self.parallel, 1)

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        x0 = self.embedding(ids).flatten(1)
        x = self.cross(x0)
        h = torch.cat([x, self.mlp(x0)], 1) if self.parallel else self.mlp(x)
        return self.out(h).squeeze(1)
