"""From ids to vectors: one table for all fields."""

from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers.excitation import SENET, SEST
from pipeline.layers.lookup import lookup
from pipeline.layers.mlp import Dropout
from pipeline.layers.neighbours import NeighbourSchema
from pipeline.layers.tables import table
from pipeline.layers.vectors import projection, rows_of
from pipeline.schema import Schema

Transform = Literal["none", "senet", "sest", "senet-bare", "sest-bare"]


def _looked_up(layer: "FieldEmbedding | FieldLinear", ids: Int[Tensor, "B N"]) -> Float[Tensor, "B N D"]:
    """Return the row of every id: of a table here, or of one whose rows other processes hold."""
    rows = rows_of(layer.schema, ids)
    if isinstance(layer.table, Tensor):
        return lookup(layer.table, rows, sparse=layer.lazy)
    return layer.table(rows)


def _with_neighbours(
    layer: "FieldEmbedding | FieldLinear", ids: Int[Tensor, "B S"]
) -> Float[Tensor, "B N D"]:
    """Return the vector of every id and behind them, where the schema has them, the two neighbour fields."""
    schema = layer.schema
    rows = _looked_up(layer, ids)
    if layer.given is not None:
        rows = layer.given.added(rows, ids)
    if not isinstance(schema, NeighbourSchema):
        return rows
    return torch.cat([rows, schema.neighbours.pool(schema, ids, layer.table, sparse=layer.lazy)], 1)


def _vectors(layer: "FieldEmbedding | FieldLinear", ids: Int[Tensor, "B N"]) -> Float[Tensor, "B N D"]:
    """Return the vector of every id, of any columns."""
    rows = _looked_up(layer, ids)
    return rows if layer.given is None else rows + layer.given(ids)


class FieldEmbedding(nn.Module):
    """Embed every field as one vector: a value's row, or the sum of a bag's rows.

    A value with a given vector gets a projection of it: see `layers/vectors.py`.

    Shapes: ids (B, S) -> E (B, F, D). An empty slot adds nothing; an all-empty bag is the zero
    vector (FLSEST, section 3.2).

    Args:
        schema: the fields.
        dim: D.
        dropout: probability with which a component of a vector is dropped in training: of a field's, or
            of a slot's in `slots` and `slots_and_fields`.
        std: standard deviation of the initial rows.
        transform: a layer between the embedding and the model: `senet` reweights the fields (FiBiNET,
            eq. 2-4), `sest` reweights and thresholds them (FLSEST, section 3.3). Both add the result to E;
            `senet-bare` and `sest-bare` replace E by it, and since a model then sees its fields through gates
            that start near zero, it learns little in the beginning.
    """

    slot_field: Tensor
    lazy = False  # whether only the rows that a batch looks up get a gradient (see `pipeline.train.adam`)
    l2_factor = 1.0  # how many times `embedding_l2` of the training its table is penalised with
    table: Any  # a parameter; where its rows are sharded, a module (see `pipeline.train.sharded`)

    def __init__(
        self,
        schema: Schema,
        dim: int,
        *,
        dropout: float = 0.0,
        std: float = 0.01,
        transform: Transform = "none",
    ) -> None:
        super().__init__()
        self.table, self.given = table(schema, dim, std), projection(schema, dim, std)
        self.dropout = Dropout(dropout)
        self.schema, self.fields = schema, len(schema.fields)
        derived = [i for i, field in enumerate(schema.fields) if not field.slots]
        field_of_slot = [*schema.field_of_slot, *derived]
        self.bags = len(field_of_slot) > self.fields
        self.transform: nn.Module | None = None
        if transform != "none":
            kind = SENET if transform.startswith("senet") else SEST
            self.transform = kind(self.fields, residual=not transform.endswith("-bare"))
        self.register_buffer("slot_field", torch.tensor(field_of_slot), persistent=False)

    @property
    def width(self) -> int:
        """F * D, the size of all fields' vectors of a row."""
        return self.fields * int(self.table.shape[1])

    def slots(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, "B S D"]:
        """Embed ids, of any of the columns, separately, with dropout in training; no neighbour fields."""
        return self.dropout(_vectors(self, ids))

    def pool(self, vectors: Float[Tensor, "B N D"]) -> Float[Tensor, "B F D"]:
        """Sum the slots of each field; a neighbour field is pooled already."""
        if not self.bags:
            return vectors
        fields = vectors.new_zeros(vectors.shape[0], self.fields, vectors.shape[2])
        return fields.index_add(1, self.slot_field, vectors)

    def slots_and_fields(
        self, ids: Int[Tensor, "B S"]
    ) -> tuple[Float[Tensor, "B N D"], Float[Tensor, "B F D"]]:
        """Embed the slots, whose pairs a factorization machine sums, and the fields.

        Since the pairs are those of slots, two values of one bag are a pair too. A transform acts on
        fields: with one, the transformed fields stand in for the slots.
        """
        if self.transform is not None:
            fields = self(ids)
            return fields, fields
        slots = self.dropout(_with_neighbours(self, ids))
        return slots, self.pool(slots)

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, "B F D"]:
        fields = self.dropout(self.pool(_with_neighbours(self, ids)))
        return fields if self.transform is None else self.transform(fields)


class FieldLinear(nn.Module):
    """The linear term w0 + sum_i w_i x_i: one weight per id, one bias; w v_i of a given vector v_i.

    Shapes: ids (B, S) -> (B,).
    """

    lazy = False  # as in `FieldEmbedding`
    table: Any

    def __init__(self, schema: Schema) -> None:
        super().__init__()
        self.schema, self.table, self.given = schema, table(schema, 1, 0.0), projection(schema, 1, 0.0)
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        weights = _with_neighbours(self, ids)
        return self.bias + weights.sum((1, 2))

    def of(self, ids: Int[Tensor, "B N"]) -> Float[Tensor, " B"]:
        """Return the term of ids, of any of the columns, without neighbour fields."""
        weights = _vectors(self, ids)
        return self.bias + weights.sum((1, 2))
