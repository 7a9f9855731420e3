"""Pairs of fields where each field has one vector towards each other field."""

from jaxtyping import Float
from torch import Tensor, nn

from pipeline.layers.pairs import Pairs


class FieldAwarePairs(nn.Module):
    """The pairs i < j: field i's vector towards j times field j's vector towards i.

    Source: Juan et al., "Field-aware Factorization Machines for CTR Prediction", RecSys 2016,
    https://doi.org/10.1145/2959100.2959134: <v_{i,F(j)}, v_{j,F(i)}>.

    Shapes: v (B, F, F, D), where v[:, i, j] is field i's vector towards field j (the diagonal is not
    used) -> (B, P) or (B, P, D). Pairs in the order of `Pairs`. A `FieldEmbedding(schema, F * D)`
    gives v by `.unflatten(2, (F, D))`.

    Args:
        fields: F.
    """

    towards: Tensor
    back: Tensor

    def __init__(self, fields: int) -> None:
        super().__init__()
        pairs = Pairs(fields)
        self.count = pairs.count
        self.register_buffer("towards", pairs.upper, persistent=False)
        self.register_buffer("back", pairs.second * fields + pairs.first, persistent=False)

    def hadamard(self, v: Float[Tensor, "B F F D"]) -> Float[Tensor, "B P D"]:
        """v_ij * v_ji of every pair."""
        flat = v.flatten(1, 2)
        return flat.index_select(1, self.towards) * flat.index_select(1, self.back)

    def inner(self, v: Float[Tensor, "B F F D"]) -> Float[Tensor, "B P"]:
        """<v_ij, v_ji> of every pair."""
        return self.hadamard(v).sum(2)
