"""FLSEST against its equations."""

from typing import Any

import pytest
import torch
from loops import Matrix, Vector, embed, exact, flat, fwbi, linear, mlp, relu, sest, sigmoid, times
from model_options import READINGS
from rows import every_schema, random_ids

from pipeline.models import build
from pipeline.schema import Schema


@pytest.mark.parametrize("reading", [{}, *READINGS["flsest"]], ids=str)
@every_schema
def test_flsest(schema: Schema, reading: dict[str, Any]) -> None:
    model = exact(build("flsest", schema, {"embedding_size": 3, "hidden": [4], **reading}, seed=1))
    final = relu if reading.get("threshold") == "relu" else sigmoid
    ids, expected = random_ids(schema, 20), []
    for row in ids.tolist():
        e = embed(model.embedding.table, schema, row)
        copies = [e]
        if reading.get("second_copy") == "same":
            copies.append(e)
        elif reading.get("second_copy", "sest") == "sest":
            v: Matrix = [[] for _ in e]
            scopes = [(model.sest, range(len(e)))]
            if reading.get("scope") == "domain":
                scopes = list(zip(model.sest.domains, schema.domains, strict=True))
            for layer, group in scopes:
                for f, vector in zip(group, sest(layer, [e[f] for f in group], final), strict=True):
                    v[f] = vector
            copies.append(v)
        x: Vector = []
        if reading.get("use_fwbi", True):
            x += [
                value for part, c in zip(model.fwbi, copies, strict=True) for value in fwbi(part, schema, c)
            ]
        if reading.get("use_mlp", True):
            x += [value for part, c in zip(model.mlp, copies, strict=True) for value in mlp(part, flat(c))]
        if reading.get("joint", "relu") == "relu":
            x = [relu(value) for value in x]
        expected.append(linear(model.linear, row) + times(model.out.weight, x)[0])
    torch.testing.assert_close(model(ids), torch.tensor(expected).double())
