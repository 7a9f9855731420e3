"""xDeepFM: a compressed interaction network beside a linear term and a deep network.

Paper: Lian et al., "xDeepFM: Combining Explicit and Implicit Feature Interactions for Recommender
Systems", KDD 2018, https://arxiv.org/abs/1803.05170.

Equation: X^k_h = sum_{i,j} W^k_hij (X^{k-1}_i * X^0_j) with X^0 the field embeddings,
p^k_h = sum_d X^k_hd; logit = linear + w_cin . [p^1, ..., p^T] + w_dnn . MLP(X^0).

Shapes: ids (B, S) -> X^0 (B, F, D) -> X^k (B, H_k, D) -> p (B, sum of H_k) -> logit (B,).

Differs from the paper: there is one bias, that of the linear term. As in the paper's equations, every
channel is pooled and the CIN has no activation; public code offers `split_half` (half of a layer's channels
are pooled, the other half feeds the next layer; the last layer is pooled whole) and `cin_activation` relu.
"""

from collections.abc import Sequence
from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers.cin import CIN
from pipeline.layers.embedding import FieldLinear
from pipeline.layers.mlp import dense
from pipeline.layers.options import Count, Embed, Net
from pipeline.schema import Schema


class XDeepFM(nn.Module):
    """Linear term, CIN and MLP on one embedding."""

    def __init__(
        self,
        schema: Schema,
        *,
        embedding: Embed = Embed(10),
        cin: Sequence[Count] = (100, 100),
        split_half: bool = False,
        cin_activation: Literal["identity", "relu"] = "identity",
        network: Net = Net((400, 400), dropout=0.5),
    ) -> None:
        super().__init__()
        self.linear = FieldLinear(schema)
        self.embedding = embedding(schema)
        self.cin = CIN(len(schema.fields), cin, split_half=split_half, relu=cin_activation == "relu")
        self.mlp = network(self.embedding.width)
        self.w_cin = dense(self.cin.outputs, 1, bias=False)
        self.w_dnn = dense(self.mlp.outputs, 1, bias=False)

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        e = self.embedding(ids)
        y_cin = self.w_cin(self.cin(e)).squeeze(1)
        y_dnn = self.w_dnn(self.mlp(e.flatten(1))).squeeze(1)
        return self.linear(ids) + y_cin + y_dnn
