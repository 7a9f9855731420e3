"""Field-weighted factorization machine.

Paper: Pan et al., "Field-weighted Factorization Machines for Click-Through Rate Prediction in Display
Advertising", WWW 2018, https://arxiv.org/abs/1806.03514.

Equation: logit = linear + sum_{i<j} r_{F(i)F(j)} <v_i, v_j>, one weight r a pair of fields; `linear` is
`lw`    w0 + sum_i w_i, a weight per value, as in FM;
`felv`  w0 + sum_i <w_i, v_i>, a vector per value;
`filv`  w0 + sum_i <w_{F(i)}, v_i>, a vector per field (the paper's best).

Shapes: ids (B, S) -> v (B, F, D) -> pairs (B, P) -> logit (B,).

Differs from the paper: a field of several values is one field, its vector their sum. r starts at 1,
where the pairs are FM's. Dropout on the embeddings and a transform of them are options.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers.embedding import FieldEmbedding, FieldLinear, Transform
from pipeline.layers.mlp import dense
from pipeline.layers.pairs import Pairs
from pipeline.schema import Schema


class FwFM(nn.Module):
    """FM with a weight for each pair of fields."""

    def __init__(
        self,
        schema: Schema,
        *,
        embedding_size: int = 10,
        embedding_std: float = 0.01,
        embedding_dropout: float = 0.0,
        embedding_transform: Transform = "none",
        linear: Literal["lw", "felv", "filv"] = "filv",
    ) -> None:
        super().__init__()
        f = len(schema.fields)
        self.embedding = FieldEmbedding(
            schema,
            embedding_size,
            dropout=embedding_dropout,
            std=embedding_std,
            transform=embedding_transform,
        )
        self.linear: nn.Module
        if linear == "lw":
            self.linear = FieldLinear(schema)
        elif linear == "felv":
            self.linear = FieldEmbedding(schema, embedding_size, std=embedding_std)
            self.w0 = nn.Parameter(torch.zeros(()))
        else:
            self.linear = dense(f * embedding_size, 1)  # all w_F end to end, and w0
        self.pairs = Pairs(f)
        self.r = nn.Parameter(torch.ones(self.pairs.count))

    def first_order(
        self, ids: Int[Tensor, "B S"], terms: Float[Tensor, "B N D"], v: Float[Tensor, "B F D"]
    ) -> Float[Tensor, " B"]:
        """The linear term; `terms` are the vectors of all values, or the transformed fields."""
        logit: Tensor
        if isinstance(self.linear, FieldLinear):
            logit = self.linear(ids)
        elif isinstance(self.linear, FieldEmbedding):
            each, pooled = self.linear.slots_and_fields(ids)
            w = each if self.embedding.transform is None else pooled
            logit = self.w0 + (w * terms).sum((1, 2))
        else:
            logit = self.linear(v.flatten(1)).squeeze(1)
        return logit

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        terms, v = self.embedding.slots_and_fields(ids)
        return self.first_order(ids, terms, v) + self.pairs.inner(v) @ self.r
