"""FFM: a field-aware factorization machine.

Paper: Juan et al., "Field-aware Factorization Machines for CTR Prediction", RecSys 2016,
https://doi.org/10.1145/2959100.2959134.

Equation: logit = linear + sum_{i<j} <v_{i,F(j)}, v_{j,F(i)}> x_i x_j: each value has F vectors, one
towards each field, and a pair uses the two towards each other.

Shapes: ids (B, S) -> v (B, F, F, D) -> pairs (B, P) -> logit (B,).

Differs from the paper: there is a linear term, which its formulas omit. The sum runs over all values, so
that two values of one field are a pair too, by their vectors towards their own field; with
`embedding_transform` the pairs are those of fields. Rows are not normalised to unit length, and the
optimizer is Adam, not AdaGrad.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers.embedding import FieldLinear
from pipeline.layers.field_aware import FieldAwarePairs
from pipeline.layers.options import Embed
from pipeline.schema import Schema


class FFM(nn.Module):
    """Linear term plus the inner products of all pairs, with a vector towards each field."""

    own: Tensor
    bags: Tensor

    def __init__(self, schema: Schema, *, embedding: Embed = Embed(4)) -> None:
        super().__init__()
        f = len(schema.fields)
        self.shape = (f, embedding.size)
        self.linear = FieldLinear(schema)
        self.embedding = embedding(schema, f * embedding.size)
        self.pairs = FieldAwarePairs(f)
        # positions of the vectors towards their own field: of each value of a bag, and of each bag
        own = [s * f + i for s, i in enumerate(schema.field_of_slot) if schema.fields[i].slots > 1]
        bags = [i * f + i for i, field in enumerate(schema.fields) if field.slots > 1]
        self.inside = bool(bags) and embedding.transform == "none"
        self.register_buffer("own", torch.tensor(own, dtype=torch.long), persistent=False)
        self.register_buffer("bags", torch.tensor(bags, dtype=torch.long), persistent=False)

    def within(
        self, values: Float[Tensor, "B S FD"], v: Float[Tensor, "B F F D"]
    ) -> Float[Tensor, " B"] | float:
        """Pairs of values of one field, as in FM: 0.5 [|sum of its values|^2 - sum of |value|^2]."""
        if not self.inside:
            return 0.0
        each = values.unflatten(2, self.shape).flatten(1, 2).index_select(1, self.own)
        total = v.flatten(1, 2).index_select(1, self.bags)
        return 0.5 * (total.square().sum((1, 2)) - each.square().sum((1, 2)))

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        values, fields = self.embedding.slots_and_fields(ids)
        v = fields.unflatten(2, self.shape)
        return self.linear(ids) + self.pairs.inner(v).sum(1) + self.within(values, v)
