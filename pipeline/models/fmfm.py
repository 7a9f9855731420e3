"""FmFM (FM^2): a field-matrixed factorization machine.

Paper: Sun et al., "FM^2: Field-matrixed Factorization Machines for Recommender Systems", WWW 2021,
https://arxiv.org/abs/2102.12994.

Equation: logit = w0 + sum_i w_i + sum_{i<j} <v_i M_{F(i)F(j)}, v_j>, one D x D matrix per pair of fields.
With M = I it is FM, with M = r I FwFM.

Shapes: ids (B, S) -> v (B, F, D); M (P, D, D) -> logit (B,).

Differs from the paper: all fields have vectors of one size. M is initialised at I. A multi-valued field is
one field: the sum of its values' vectors.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers.embedding import FieldLinear
from pipeline.layers.options import Embed
from pipeline.layers.pairs import Pairs
from pipeline.schema import Schema


class FmFM(nn.Module):
    """FM with a matrix for each pair of fields."""

    def __init__(self, schema: Schema, *, embedding: Embed = Embed(16)) -> None:
        super().__init__()
        self.fields, self.dim = len(schema.fields), embedding.size
        self.linear = FieldLinear(schema)
        self.embedding = embedding(schema)
        self.pairs = Pairs(self.fields)
        self.matrix = nn.Parameter(torch.eye(embedding.size).repeat(self.pairs.count, 1, 1))

    def blocks(self) -> Float[Tensor, "FD FD"]:
        """Return one matrix with all M as blocks above its diagonal: one product for all pairs, no copies."""
        f, d = self.fields, self.dim
        m = self.matrix.new_zeros(f * f, d, d).index_copy(0, self.pairs.upper, self.matrix)
        return m.view(f, f, d, d).transpose(1, 2).reshape(f * d, f * d)

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        v = self.embedding(ids).flatten(1)
        return self.linear(ids) + ((v @ self.blocks()) * v).sum(1)
