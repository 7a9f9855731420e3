"""From ids to vectors: one table for all fields."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers.excitation import SENET, SEST
from pipeline.layers.lookup import lookup
from pipeline.layers.mlp import Dropout
from pipeline.layers.neighbours import NeighbourSchema
from pipeline.layers.vectors import Projection, given_fields, rows_of
from pipeline.schema import EMPTY, Schema

Transform = Literal["none", "senet", "sest", "senet-bare", "sest-bare"]


# What holds a table in place of a parameter of this process: a layer of the given shape (V, D) that looks up
# rows. It reads the blocks of rows to their end, since what follows is drawn after them.
Held = Callable[[tuple[int, int], Iterator[Tensor]], nn.Module]
_held: ContextVar[Held | None] = ContextVar("held", default=None)
_BLOCK = 2**20  # numbers of a table that are drawn at a time
_DRAWN = 16  # of which torch draws normal numbers so many at a time


@contextmanager
def held(by: Held) -> Iterator[None]:
    """Let the tables of models that are built inside the block be held elsewhere: see `train/sharded.py`."""
    token = _held.set(by)
    try:
        yield
    finally:
        _held.reset(token)


def blocks(schema: Schema, dim: int, std: float) -> Iterator[Float[Tensor, "R D"]]:
    """Yield the initial rows of a table, some at a time, with the bits of `torch.randn(V, dim) * std`.

    Rows ~ N(0, std^2); the empty row and each field's unseen row are initialised at zero.

    With min_count 1 no train row has an unseen value, so that its row would keep its random initial
    value: zero means "nothing known" instead. The rows beside given vectors start at zero, too.
    """
    step = max(1, _BLOCK // (dim * _DRAWN)) * _DRAWN  # a whole number of draws
    starts = [first for first in range(0, schema.rows, step) if (schema.rows - first) * dim >= _DRAWN] or [0]
    zero = [(row, row + 1) for row in (EMPTY, *schema.row_offsets)]
    for field, first in zip(schema.fields, schema.row_offsets, strict=True):
        if field.given == "trained":
            zero.append((first, first + field.size))
    for first, end in zip(starts, [*starts[1:], schema.rows], strict=True):
        rows = torch.randn(end - first, dim) * std
        for start, stop in zero:
            rows[max(start - first, 0) : max(stop - first, 0)] = 0.0
        yield rows


def _table(schema: Schema, dim: int, std: float) -> nn.Parameter | nn.Module:
    """Return the table of a layer, or what holds it: see `blocks`."""
    by = _held.get()
    if by is not None:
        return by((schema.rows, dim), blocks(schema, dim, std))
    table, first = torch.empty(schema.rows, dim), 0
    for rows in blocks(schema, dim, std):
        table[first : first + len(rows)] = rows
        first += len(rows)
    return nn.Parameter(table)


def _projection(schema: Schema, dim: int, std: float) -> Projection | None:
    return Projection(schema, dim, std) if given_fields(schema) else None


def _looked_up(layer: "FieldEmbedding | FieldLinear", ids: Int[Tensor, "B N"]) -> Float[Tensor, "B N D"]:
    """Return the row of every id: of a table here, or of one whose rows other processes hold."""
    table, rows = layer.table, rows_of(layer.schema, ids)
    return lookup(table, rows, sparse=layer.lazy) if isinstance(table, Tensor) else table(rows)


def _whole(layer: "FieldEmbedding | FieldLinear", ids: Int[Tensor, "B S"]) -> Float[Tensor, "B N D"]:
    """Return the vector of every id and behind them, where the schema has them, the two neighbour fields."""
    schema = layer.schema
    rows = _looked_up(layer, ids)
    if layer.given is not None:
        rows = layer.given.added(rows, ids)
    if not isinstance(schema, NeighbourSchema):
        return rows
    return torch.cat([rows, schema.neighbours.pool(schema, ids, layer.table, sparse=layer.lazy)], 1)


def _each(layer: "FieldEmbedding | FieldLinear", ids: Int[Tensor, "B N"]) -> Float[Tensor, "B N D"]:
    """Return the vector of every id, of any columns."""
    rows = _looked_up(layer, ids)
    return rows if layer.given is None else rows + layer.given(ids)


class FieldEmbedding(nn.Module):
    """Embed every field as one vector: a value's row, or the sum of a bag's rows.

    A value with a given vector has what `layers/vectors.py` makes of it.

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
    l2_factor = 1.0  # of the training's `embedding_l2`
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
        self.table, self.given = _table(schema, dim, std), _projection(schema, dim, std)
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
        """Embed ids of any columns separately, with dropout in training; no neighbour fields."""
        return self.dropout(_each(self, ids))

    def _rows(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, "B N D"]:
        """Embed every slot, and the neighbour fields."""
        return _whole(self, ids)

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
        slots = self.dropout(self._rows(ids))
        return slots, self.pool(slots)

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, "B F D"]:
        fields = self.dropout(self.pool(self._rows(ids)))
        return fields if self.transform is None else self.transform(fields)


class FieldLinear(nn.Module):
    """The linear term w0 + sum_i w_i x_i: one weight per id, one bias; w v_i of a given vector v_i.

    Shapes: ids (B, S) -> (B,).
    """

    lazy = False  # as in `FieldEmbedding`
    table: Any

    def __init__(self, schema: Schema) -> None:
        super().__init__()
        self.schema, self.table, self.given = schema, _table(schema, 1, 0.0), _projection(schema, 1, 0.0)
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        weights = _whole(self, ids)
        return self.bias + weights.sum((1, 2))

    def of(self, ids: Int[Tensor, "B N"]) -> Float[Tensor, " B"]:
        """Return the term of ids of any columns, without neighbour fields."""
        weights = _each(self, ids)
        return self.bias + weights.sum((1, 2))
