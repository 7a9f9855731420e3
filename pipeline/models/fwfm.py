"""FwFM: a field-weighted factorization machine.

Paper: Pan et al., "Field-weighted Factorization Machines for Click-Through Rate Prediction in Display
Advertising", WWW 2018, https://arxiv.org/abs/1806.03514.

Equation: logit = linear + sum_{i<j} r_{F(i)F(j)} <v_i, v_j>, one weight r per pair of fields; `linear` is
`lw`    w0 + sum_i w_i, one weight per value, as in FM;
`felv`  w0 + sum_i <w_i, v_i>, one vector per value;
`filv`  w0 + sum_i <w_{F(i)}, v_i>, one vector per field (the paper's best).

Shapes: ids (B, S) -> v (B, F, D) -> pairs (B, P) -> logit (B,).

Differs from the paper: a multi-valued field is one field: the sum of its values' vectors. r is initialised at
1, where the pairs are FM's.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers.embedding import FieldEmbedding, FieldLinear
from pipeline.layers.mlp import dense
from pipeline.layers.options import Embed
from pipeline.layers.pairs import Pairs
from pipeline.schema import Schema


class FwFM(nn.Module):
    """FM with a weight for each pair of fields."""

    def __init__(
        self,
        schema: Schema,
        *,
        embedding: Embed = Embed(10),
        linear: Literal["lw", "felv", "filv"] = "filv",
    ) -> None:
        super().__init__()
        f = len(schema.fields)
        self.embedding = embedding(schema)
        self.linear: nn.Module
        if linear == "lw":
            self.linear = FieldLinear(schema)
        elif linear == "felv":
            self.linear = FieldEmbedding(schema, embedding.size, std=embedding.std)
            self.w0 = nn.Parameter(torch.zeros(()))
        else:
            self.linear = dense(self.embedding.width, 1)  # all w_F, concatenated, and w0
        self.pairs = Pairs(f)
        self.r = nn.Parameter(torch.ones(self.pairs.count))

    def first_order(
        self, ids: Int[Tensor, "B S"], slots: Float[Tensor, "B N D"], v: Float[Tensor, "B F D"]
    ) -> Float[Tensor, " B"]:
        """Return the linear term; `slots` and `v` are those of `slots_and_fields`."""
        logit: Tensor
        if isinstance(self.linear, FieldLinear):
            logit = self.linear(ids)
        elif isinstance(self.linear, FieldEmbedding):
            each, pooled = self.linear.slots_and_fields(ids)
            w = each if self.embedding.transform is None else pooled
            logit = self.w0 + (w * slots).sum((1, 2))
        else:
            logit = self.linear(v.flatten(1)).squeeze(1)
        return logit

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        slots, v = self.embedding.slots_and_fields(ids)
        return self.first_order(ids, slots, v) + self.pairs.inner(v) @ self.r
