"""AFM: a factorization machine that weighs its pairs by attention.

Paper: Xiao et al., "Attentional Factorization Machines: Learning the Weight of Feature Interactions via
Attention Networks", IJCAI 2017, https://arxiv.org/abs/1708.04617.

Equation: logit = w0 + sum_i w_i + p . sum_{i<j} a_ij (v_i * v_j), with
a = softmax over all pairs of h . relu(W (v_i * v_j) + b).

Shapes: ids (B, S) -> v (B, F, D) -> pairs (B, P, D) -> a (B, P, 1) -> attended (B, D) -> logit (B,).

Differs from the paper: dropout acts on the attended sum. p is initialised at 1, where uniform attention
gives FM's pairs divided by their number. A multi-valued field is one field: the sum of its values'
vectors. The model is not pre-trained as an FM.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers.embedding import FieldLinear
from pipeline.layers.mechanism import Mechanism
from pipeline.layers.mlp import Dropout, dense
from pipeline.layers.options import Count, Embed, Probability
from pipeline.layers.pairs import Pairs
from pipeline.schema import Schema


class AFM(nn.Module):
    """FM with an attention over its pairs."""

    def __init__(
        self,
        schema: Schema,
        *,
        embedding: Embed = Embed(256),
        attention_size: Count = 256,
        dropout: Probability = 0.5,
    ) -> None:
        super().__init__()
        self.linear = FieldLinear(schema)
        self.embedding = embedding(schema)
        self.pairs = Pairs(len(schema.fields))
        self.w = dense(embedding.size, attention_size)
        self.h = dense(attention_size, 1, bias=False)
        self.attention = Mechanism("attention", "uniform")
        self.dropout = Dropout(dropout)
        self.p = nn.Parameter(torch.ones(embedding.size))

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        pairs = self.pairs.hadamard(self.embedding(ids))
        a = self.attention(self.h(torch.relu(self.w(pairs))).softmax(1))
        attended = (a * pairs).sum(1)
        return self.linear(ids) + self.dropout(attended) @ self.p
