"""A factorization machine: a linear term and the inner products of all pairs."""

from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers.embedding import FieldLinear
from pipeline.layers.options import Embed
from pipeline.layers.pairs import bi_interaction
from pipeline.schema import Schema


class FactorizationMachine(nn.Module):
    """w0 + sum_i w_i x_i + sum_{i<j} <v_i, v_j> x_i x_j over slots; with a transform over fields.

    Source: Rendle, "Factorization Machines", ICDM 2010, eq. 1 and lemma 3.1. It is the model FM, and FNN is
    initialised from one.

    Shapes: ids (B, S) -> logit (B,).
    """

    def __init__(self, schema: Schema, embedding: Embed) -> None:
        super().__init__()
        self.linear = FieldLinear(schema)
        self.embedding = embedding(schema)

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        v, _ = self.embedding.slots_and_fields(ids)
        return self.linear(ids) + bi_interaction(v).sum(1)
