"""MF: matrix factorization with biases.

Paper: Koren, Bell and Volinsky, "Matrix Factorization Techniques for Recommender Systems", IEEE Computer
42(8), 2009, https://doi.org/10.1109/MC.2009.263.

Equation (eq. 4): logit = mu + b_u + b_i + <p_u, q_i>, from the user and the item field alone.

Shapes: ids (B, S) -> rows of the two fields (B, 2) -> p, q (B, D) -> logit (B,).

Differs from the paper: a logit with logloss instead of a rating with squared error.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers.columns import column_of
from pipeline.layers.embedding import FieldLinear
from pipeline.layers.neighbours import narrowed
from pipeline.layers.options import Embed
from pipeline.schema import EMPTY, Schema


class MF(nn.Module):
    """User times item, and their biases."""

    columns: Tensor
    skipped: Tensor

    def __init__(self, schema: Schema, *, embedding: Embed = Embed(16)) -> None:
        columns = sorted([column_of(schema, "user"), column_of(schema, "item")])
        fields = [schema.field_of_slot[column] for column in columns]
        super().__init__()
        # the tables contain these two fields only, so an id skips the rows of the fields before it
        both = narrowed(schema, fields)
        skipped = [schema.offsets[i] - row for i, row in zip(fields, both.offsets[:2], strict=True)]
        self.item_first = schema.fields[fields[0]].role == "item"
        self.register_buffer("columns", torch.tensor(columns), persistent=False)
        self.register_buffer("skipped", torch.tensor(skipped), persistent=False)
        self.linear = FieldLinear(both)
        self.embedding = embedding(both)

    def rows(self, ids: Int[Tensor, "B S"]) -> Int[Tensor, "B 2"]:
        """Return the table rows of the two fields' ids; an empty slot stays empty."""
        return (ids.index_select(1, self.columns) - self.skipped).clamp(min=EMPTY)

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        rows = self.rows(ids)
        e = self.embedding(rows)
        e, x = e[:, :2], e[:, 2:]
        if x.shape[1]:  # the neighbour fields, those of the user first
            e = e + (x.flip(1) if self.item_first else x)
        p, q = e.unbind(1)
        return self.linear(rows) + (p * q).sum(1)
