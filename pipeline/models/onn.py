"""ONN, the operation-aware neural network: a field has one embedding per operation on it.

Paper: Yang et al., "Operation-aware Neural Networks for User Response Prediction", Neural Networks
121, 2020, https://arxiv.org/abs/1904.12579; also known as NFFM.

Equation: logit = w . MLP([e_1^c, ..., e_F^c, p_12, ..., p_(F-1)F]) + b, p_ij = <e_i^(ij), e_j^(ij)>,
where e_i^c is field i's embedding for the copy and e_i^(ij) the one for its product with field j.

Shapes: ids (B, S) -> E (B, F, F, D), E[:, i, j] for the pair (i, j), E[:, i, i] for the copy
-> (B, F * D + F (F - 1) / 2) -> logit (B,).

Differs from the paper: batch norm is off by default. `product=hadamard` keeps the vector e_i^(ij) * e_j^(ij)
of each pair instead of its sum, the inner product. `embedding_transform` acts on a field's F embeddings as
on one vector.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers.field_aware import FieldAwarePairs
from pipeline.layers.mlp import dense
from pipeline.layers.options import Embed, Net
from pipeline.schema import Schema


class ONN(nn.Module):
    """A network on copies and field-aware pairs; without a linear term, so the last layer has the bias."""

    def __init__(
        self,
        schema: Schema,
        *,
        embedding: Embed = Embed(10),
        product: Literal["inner", "hadamard"] = "inner",
        network: Net = Net(),
    ) -> None:
        super().__init__()
        f = len(schema.fields)
        self.embedding = embedding(schema, f * embedding.size)
        self.pairs = FieldAwarePairs(f)
        self.product = product
        width = f * embedding.size + self.pairs.count * (embedding.size if product == "hadamard" else 1)
        self.mlp = network(width)
        self.out = dense(self.mlp.outputs, 1)

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        e = self.embedding(ids)
        e = e.unflatten(2, (e.shape[1], -1))
        copies = e.diagonal(dim1=1, dim2=2).mT.flatten(1)
        p = self.pairs.inner(e) if self.product == "inner" else self.pairs.hadamard(e).flatten(1)
        return self.out(self.mlp(torch.cat([copies, p], 1))).squeeze(1)
