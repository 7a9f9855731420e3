"""LR against its equation."""

import torch
from loops import exact, linear
from rows import every_schema, random_ids

from pipeline.models import build
from pipeline.schema import Schema


@every_schema
def test_lr(schema: Schema) -> None:
    model, ids = exact(build("lr", schema, {}, seed=1)), random_ids(schema, 20)
    expected = [linear(model.linear, row) for row in ids.tolist()]
    torch.testing.assert_close(model(ids), torch.tensor(expected).double())
