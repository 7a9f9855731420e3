"""Matrix factorization with biases.

Paper: Koren, Bell and Volinsky, "Matrix Factorization Techniques for Recommender Systems", IEEE Computer
42(8), 2009, https://doi.org/10.1109/MC.2009.263.

Equation (eq. 4): logit = mu + b_u + b_i + <p_u, q_i>, from the user's and the item's field alone.

Shapes: ids (B, S) -> rows of the two fields (B, 2) -> p, q (B, D) -> logit (B,).

Differs from the paper: a logit with log loss for a rating with squared error. Dropout on the embeddings
and a transform of them are options. The fields must hold one value a row; without names they are the
first such field of the domain user and of the domain item.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers.columns import column_of
from pipeline.layers.embedding import FieldEmbedding, FieldLinear, Transform
from pipeline.schema import EMPTY, Schema


class MF(nn.Module):
    """User times item, and their biases."""

    columns: Tensor
    skipped: Tensor

    def __init__(
        self,
        schema: Schema,
        *,
        embedding_size: int = 16,
        embedding_std: float = 0.01,
        embedding_dropout: float = 0.0,
        embedding_transform: Transform = "none",
        user: str | None = None,
        item: str | None = None,
    ) -> None:
        columns = sorted([column_of(schema, user, "user"), column_of(schema, item, "item")])
        fields = [schema.field_of_slot[column] for column in columns]
        if fields[0] == fields[1]:
            raise ValueError(f"user and item are both {schema.fields[fields[0]].name!r}: name two fields")
        super().__init__()
        # the tables hold these two fields alone, so an id skips the rows of the others before it
        both = Schema(tuple(schema.fields[i] for i in fields))
        skipped = [schema.offsets[i] - row for i, row in zip(fields, both.offsets, strict=True)]
        self.register_buffer("columns", torch.tensor(columns), persistent=False)
        self.register_buffer("skipped", torch.tensor(skipped), persistent=False)
        self.linear = FieldLinear(both)
        self.embedding = FieldEmbedding(
            both,
            embedding_size,
            dropout=embedding_dropout,
            std=embedding_std,
            transform=embedding_transform,
        )

    def rows(self, ids: Int[Tensor, "B S"]) -> Int[Tensor, "B 2"]:
        """The ids of the two fields as rows of the tables; an empty slot stays empty."""
        return (ids.index_select(1, self.columns) - self.skipped).clamp(min=EMPTY)

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        rows = self.rows(ids)
        p, q = self.embedding(rows).unbind(1)
        return self.linear(rows) + (p * q).sum(1)
