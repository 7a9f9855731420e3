"""ONN against its equations."""

import math

import pytest
import torch
from loops import Vector, dot, embed, exact, flat, mlp, product, times
from rows import SCHEMAS, every_schema, random_ids

from pipeline.models import build
from pipeline.schema import Field, Schema

TWO = Schema((Field("user", 8, 1, "user"), Field("item", 7, 1, "item")))


@every_schema
@pytest.mark.parametrize("kind", ["inner", "hadamard"])
@pytest.mark.parametrize("hidden", [[4, 3], []], ids=str)
def test_onn(schema: Schema, kind: str, hidden: list[int]) -> None:
    chosen = {"embedding_size": 3, "hidden": hidden, "activation": "tanh", "product": kind}
    model, ids = exact(build("onn", schema, chosen, seed=1)), random_ids(schema, 20)
    count = len(schema.fields)
    expected = []
    for row in ids.tolist():
        wide = embed(model.embedding.table, schema, row)
        e = [[field[3 * j : 3 * j + 3] for j in range(count)] for field in wide]
        x: Vector = flat([e[i][i] for i in range(count)])
        for i in range(count):
            for j in range(i + 1, count):
                x += [dot(e[i][j], e[j][i])] if kind == "inner" else product([e[i][j], e[j][i]])
        deep = mlp(model.mlp, x, math.tanh)
        expected.append(times(model.out.weight, deep)[0] + model.out.bias.item())
    torch.testing.assert_close(model(ids), torch.tensor(expected).double())


@pytest.mark.parametrize("schema", [TWO, SCHEMAS["no-bags"]], ids=["two-fields", "four-fields"])
def test_its_products_alone_are_ffm(schema: Schema) -> None:
    model = exact(build("onn", schema, {"embedding_size": 3, "hidden": []}, seed=1))
    ffm = exact(build("ffm", schema, {"embedding_size": 3}, seed=2))
    ffm.embedding.load_state_dict(model.embedding.state_dict())
    copies = 3 * len(schema.fields)
    model.out.weight.data[:, :copies], model.out.weight.data[:, copies:] = 0.0, 1.0
    ids = random_ids(schema, 20)
    torch.testing.assert_close(model(ids) - model.out.bias, ffm(ids) - ffm.linear(ids))


def test_copies_and_products_share_no_weight() -> None:
    """That is what operation-aware means: a PNN's products change with its copies."""
    schema = SCHEMAS["no-bags"]
    model = exact(build("onn", schema, {"embedding_size": 3, "hidden": []}, seed=1))
    ids, count = random_ids(schema, 20), len(schema.fields)
    seen: list[torch.Tensor] = []
    model.mlp.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(ids)
    for i, first in enumerate(schema.offsets):
        rows = slice(first, first + schema.fields[i].size)
        model.embedding.table.data[rows, 3 * i : 3 * i + 3] += 1
    model(ids)
    before, after = seen
    torch.testing.assert_close(after[:, : 3 * count], before[:, : 3 * count] + 1)
    torch.testing.assert_close(after[:, 3 * count :], before[:, 3 * count :])
