"""DeepFM against its equations."""

import math

import torch
from loops import embed, exact, flat, linear, mlp, pairs, times, values
from rows import every_schema, random_ids

from pipeline.models import build
from pipeline.schema import Schema


@every_schema
def test_deepfm(schema: Schema) -> None:
    chosen = {"embedding_size": 3, "hidden": [4, 3], "activation": "tanh"}
    model, ids = exact(build("deepfm", schema, chosen, seed=1)), random_ids(schema, 20)
    expected = []
    for row in ids.tolist():
        y_fm = linear(model.linear, row) + pairs(values(model.embedding.table, row))
        hidden = mlp(model.mlp, flat(embed(model.embedding.table, schema, row)), math.tanh)
        expected.append(y_fm + times(model.out.weight, hidden)[0])
    torch.testing.assert_close(model(ids), torch.tensor(expected).double())
