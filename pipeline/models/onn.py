"""Operation-aware neural network: a field has an embedding of its own for each operation on it.

Paper: Yang et al., "Operation-aware Neural Networks for User Response Prediction", Neural Networks
121, 2020, https://arxiv.org/abs/1904.12579; also known as NFFM.

Equation: logit = w . MLP([e_1^c, ..., e_F^c, p_12, ..., p_(F-1)F]) + b, p_ij = <e_i^(ij), e_j^(ij)>,
where e_i^c is field i's embedding for the copy and e_i^(ij) the one for its product with field j.

Shapes: ids (B, S) -> E (B, F, F, D), E[:, i, j] for the pair (i, j), E[:, i, i] for the copy
-> (B, F * D + F (F - 1) / 2) -> logit (B,).

Differs from the paper: `product=hadamard` keeps the vector e_i^(ij) * e_j^(ij) of each pair, whose
sum the inner product is. Batch norm is off by default; dropout, on the embeddings too, and a transform
of them, all operations' together, are options.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers.embedding import FieldEmbedding, Transform
from pipeline.layers.field_aware import FieldAwarePairs
from pipeline.layers.mlp import MLP, Activation, dense
from pipeline.schema import Schema


class ONN(nn.Module):
    """A network on copies and field-aware pairs; no linear term, so the last layer has the bias."""

    def __init__(
        self,
        schema: Schema,
        *,
        embedding_size: int = 10,
        embedding_std: float = 0.01,
        embedding_dropout: float = 0.0,
        embedding_transform: Transform = "none",
        product: Literal["inner", "hadamard"] = "inner",
        hidden: list[int] = [400, 400, 400],  # noqa: B006  never changed, only read
        dropout: float = 0.0,
        batch_norm: bool = False,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        f = len(schema.fields)
        self.embedding = FieldEmbedding(
            schema,
            f * embedding_size,
            dropout=embedding_dropout,
            std=embedding_std,
            transform=embedding_transform,
        )
        self.pairs = FieldAwarePairs(f)
        self.product = product
        width = f * embedding_size + self.pairs.count * (embedding_size if product == "hadamard" else 1)
        self.mlp = MLP(width, hidden, dropout=dropout, batch_norm=batch_norm, activation=activation)
        self.out = dense(self.mlp.outputs, 1)

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        e = self.embedding(ids)
        e = e.unflatten(2, (e.shape[1], -1))
        copies = e.diagonal(dim1=1, dim2=2).mT.flatten(1)
        p = self.pairs.inner(e) if self.product == "inner" else self.pairs.hadamard(e).flatten(1)
        return self.out(self.mlp(torch.cat([copies, p], 1))).squeeze(1)
