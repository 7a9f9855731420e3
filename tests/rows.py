"""Small schemas and rows that several tests share."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.common.files import write_json
from pipeline.data.batches import Split
from pipeline.schema import EMPTY, Field, Schema

SCHEMAS = {
    "two-domains": Schema(
        (
            Field("user", 8, 1, "user", "user"),
            Field("genres", 6, 3, "item"),
            Field("age", 4, 1, "user"),
            Field("item", 7, 1, "item", "item"),
        )
    ),
    "three-domains": Schema(
        (
            Field("hour", 5, 1, "context"),
            Field("item", 7, 1, "item", "item"),
            Field("tags", 5, 2, "item"),
            Field("user", 8, 1, "user", "user"),
            Field("liked", 6, 4, "user"),
        )
    ),
    "field-per-domain": Schema(
        (
            Field("item", 7, 1, "item", "item"),
            Field("user", 8, 1, "user", "user"),
            Field("hours", 5, 2, "context"),
        )
    ),
    "no-bags": Schema(
        (
            Field("user", 8, 1, "user", "user"),
            Field("item", 7, 1, "item", "item"),
            Field("city", 5, 1, "user"),
            Field("hour", 4, 1, "context"),
        )
    ),
}
every_schema = pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)


def random_ids(schema: Schema, n: int, seed: int = 0) -> Tensor:
    """Draw (n, S) int32 ids; slots of bags are empty one time in three, wherever they lie."""
    generator = torch.Generator().manual_seed(seed)
    columns = []
    for field in schema.field_of_slot:
        size, first = schema.fields[field].size, schema.offsets[field]
        ids = first + torch.randint(size, (n,), generator=generator)
        if schema.fields[field].slots > 1:
            ids[torch.rand(n, generator=generator) < 1 / 3] = EMPTY
        columns.append(ids)
    return torch.stack(columns, 1).int()


def times(ids: Tensor) -> Tensor:
    """Give each row (n,) seconds that depend on its values alone."""
    return ids.long().sum(1) * 7919 % 10_007


def random_split(schema: Schema, n: int, seed: int = 0, noise: float = 1.0) -> Split:
    """Draw n rows whose label depends on two ids and their pair, and on chance."""
    ids = random_ids(schema, n, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    a, b = ids[:, 0] % 2 * 2 - 1, ids[:, -1] % 2 * 2 - 1
    score = a + a * b + noise * torch.randn(n, generator=generator)
    grade = (score > 0).to(torch.uint8) + (score > 1).to(torch.uint8)
    return Split(schema, ids, (score > 0).float(), times(ids), grade)


def wake(model: torch.nn.Module, seed: int = 0) -> None:
    """Move every parameter away from its start, so that no term hides behind a zero.

    The empty id keeps its zero row: that is what makes it empty.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.4 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        for module in model.modules():
            if isinstance(getattr(module, "table", None), torch.nn.Parameter):
                module.table[EMPTY] = 0


def write_splits(folder: Path, schema: Schema, **rows: int) -> None:
    """Write the schema, and random ids and labels of each split, as split does, without a seal."""
    write_json(folder / "schema.json", schema.to_json())
    for part, size in rows.items():
        split = random_split(schema, size, seed=size)
        np.save(folder / f"{part}.ids.npy", split.ids.numpy())
        np.save(folder / f"{part}.label.npy", split.label.numpy().astype(np.uint8))
