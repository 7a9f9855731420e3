"""DNN against its equation."""

import math

import pytest
import torch
from loops import dot, embed, exact, flat, mlp, times
from rows import every_schema, random_ids

from pipeline.models import build
from pipeline.schema import Schema


@every_schema
def test_dnn(schema: Schema) -> None:
    chosen = {"embedding_size": 3, "hidden": [4, 3], "activation": "tanh"}
    model, ids = exact(build("dnn", schema, chosen, seed=1)), random_ids(schema, 20)
    expected = []
    for row in ids.tolist():
        hidden = mlp(model.mlp, flat(embed(model.embedding.table, schema, row)), math.tanh)
        expected.append(times(model.out.weight, hidden)[0] + model.out.bias.item())
    torch.testing.assert_close(model(ids), torch.tensor(expected).double())


@every_schema
def test_without_hidden_layers_it_is_a_linear_model_of_the_values(schema: Schema) -> None:
    """Each value adds w_F(i) . v_i, whatever stands beside it."""
    model, ids = (
        exact(build("dnn", schema, {"embedding_size": 3, "hidden": []}, seed=1)),
        random_ids(schema, 20),
    )
    w = model.out.weight.view(-1, 3).tolist()
    table = model.embedding.table.tolist()
    expected = [
        model.out.bias.item()
        + sum(dot(w[f], table[i]) for f, i in zip(schema.field_of_slot, row, strict=True))
        for row in ids.tolist()
    ]
    torch.testing.assert_close(model(ids), torch.tensor(expected).double())


@pytest.mark.parametrize("hidden", [[4], []], ids=str)
@every_schema
def test_an_empty_row_still_has_a_bias(schema: Schema, hidden: list[int]) -> None:
    model = exact(build("dnn", schema, {"embedding_size": 3, "hidden": hidden}, seed=1))
    empty = torch.zeros_like(random_ids(schema, 1))
    before = model(empty)
    model.out.bias.data += 1
    torch.testing.assert_close(model(empty), before + 1)
