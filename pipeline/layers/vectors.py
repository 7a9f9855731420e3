"""Given vectors: pre-trained embeddings of a field's values, such as of texts or pictures, in every table.

A table of D columns has for a value i with the given vector v_i

    frozen    x_i = W v_i, with one learnt map W (width, D) for all values of the field
    trained   x_i = W v_i + e_i: training goes on from there, by a row e_i of the table that starts at zero

so that values which training never saw differ by what their vectors say. A value without a vector, and the
unseen id, have v = 0, which is the mean of the vectors (see `pipeline/split/vectors.py`). The linear terms of
a model are a table of one column: w v_i, not a weight per value. W starts as rows do: v has a mean square
norm of 1, so that W ~ N(0, std^2) gives x_i the deviation of any other row.
"""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers.mlp import dense
from pipeline.schema import EMPTY, Field, Schema

GIVEN = "given_vectors"  # the attribute of a model that has given vectors


class GivenVectors(nn.Module):
    """The given vectors of all fields, once for all tables of a model; no part of its saved weights.

    Args:
        schema: whose `vectors` they are.
    """

    def __init__(self, schema: Schema) -> None:
        super().__init__()
        fields = given_fields(schema)
        self.names = [field.name for field in fields]
        for number, field in enumerate(fields):
            values = torch.from_numpy(np.require(schema.vectors[field.name], np.float32, ["C", "W"]))
            assert values.shape == (field.size, field.width), (field, values.shape)
            self.register_buffer(f"of_field_{number}", values, persistent=False)

    def __getitem__(self, name: str) -> Float[Tensor, "N K"]:
        """Return those of a field."""
        found: Tensor = getattr(self, f"of_field_{self.names.index(name)}")
        return found


def given_fields(schema: Schema) -> list[Field]:
    """Return the fields whose values have given vectors."""
    return [field for field in schema.fields if field.given is not None]


def with_vectors(schema: Schema) -> Schema:
    """Return the schema of one model, which holds its given vectors, if there are any."""
    return replace(schema, vectors=GivenVectors(schema)) if given_fields(schema) else schema


def blank(schema: Schema) -> Schema:
    """Return a schema with vectors that are zero, for a model of which only the weights are wanted."""
    fields = given_fields(schema)
    return replace(schema, vectors={f.name: np.zeros((f.size, f.width or 0), np.float32) for f in fields})


def rows_of(schema: Schema, ids: Int[Tensor, "B N"]) -> Int[Tensor, "B N"]:
    """Return the row of the table of every id; EMPTY for a frozen one."""
    rows = ids
    for first, size in schema.frozen:
        later = torch.where(ids < first + size, EMPTY, rows - size)
        rows = torch.where(ids < first, rows, later)
    return rows


class Projection(nn.Module):
    """W v of the values that have a given vector, and zero of all others: ids (B, N) -> (B, N, D).

    Args:
        schema: of `with_vectors`.
        dim: D.
        std: standard deviation of the initial W.
    """

    def __init__(self, schema: Schema, dim: int, std: float) -> None:
        super().__init__()
        self.vectors, fields = schema.vectors, given_fields(schema)
        self.names = [field.name for field in fields]
        places = dict(zip((field.name for field in schema.fields), schema.offsets, strict=True))
        self.blocks = [(places[field.name], field.size) for field in fields]
        self.columns = [
            [
                s
                for s, i in enumerate(schema.field_of_slot)
                if name in (schema.fields[i].name, schema.fields[i].table)
            ]
            for name in self.names
        ]
        maps = [dense(field.width or 0, dim, bias=False) for field in fields]
        for layer in maps:
            nn.init.normal_(layer.weight, std=std)
        self.maps = nn.ModuleList(maps)

    def projected(self, field: int, ids: Int[Tensor, "B N"]) -> Float[Tensor, "B N D"]:
        """Return W v of the values of one field, by its number among those with vectors."""
        first, size = self.blocks[field]
        place = torch.where((ids >= first) & (ids < first + size), ids - first, 0)
        found: Tensor = self.maps[field](nn.functional.embedding(place, self.vectors[self.names[field]]))
        return found

    def added(self, rows: Float[Tensor, "B S D"], ids: Int[Tensor, "B S"]) -> Float[Tensor, "B S D"]:
        """Add them to what the slots of whole rows have from the table."""
        for field, columns in enumerate(self.columns):
            if columns:
                there = torch.tensor(columns, device=ids.device)
                rows = rows.index_add(1, there, self.projected(field, ids.index_select(1, there)))
        return rows

    def forward(self, ids: Int[Tensor, "B N"]) -> Float[Tensor, "B N D"]:
        return torch.stack([self.projected(field, ids) for field in range(len(self.names))]).sum(0)


def projection(schema: Schema, dim: int, std: float) -> Projection | None:
    """Return what makes given vectors into those of a layer; None for a schema without any."""
    return Projection(schema, dim, std) if given_fields(schema) else None
