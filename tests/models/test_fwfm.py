"""FwFM against its sum over pairs of fields."""

from itertools import combinations
from typing import Any

import pytest
import torch
from loops import Matrix, dot, embed, exact, linear
from rows import SCHEMAS, every_schema, random_ids

from pipeline.layers.fwbi import FwBI
from pipeline.layers.pairs import bi_interaction
from pipeline.models import build
from pipeline.schema import EMPTY, Schema


def weighted(r: list[float], e: Matrix) -> float:
    return sum(weight * dot(a, b) for weight, (a, b) in zip(r, combinations(e, 2), strict=True))


def first_order(model: Any, reading: str, schema: Schema, row: list[int]) -> float:
    """w0 plus, of every value that is there: w_i, <w_i, v_i>, or <w_F(i), v_i>."""
    if reading == "lw":
        return linear(model.linear, row)
    v = model.embedding.table.tolist()
    if reading == "felv":
        w = model.linear.table.tolist()
        return model.w0.item() + sum(dot(w[i], v[i]) for i in row if i != EMPTY)
    w = model.linear.weight.view(len(schema.fields), -1).tolist()
    there = [(schema.field_of_slot[slot], i) for slot, i in enumerate(row) if i != EMPTY]
    return model.linear.bias.item() + sum(dot(w[field], v[i]) for field, i in there)


@pytest.mark.parametrize("reading", ["lw", "felv", "filv"])
@every_schema
def test_fwfm(schema: Schema, reading: str) -> None:
    model = exact(build("fwfm", schema, {"embedding_size": 3, "linear": reading}, seed=1))
    ids, expected = random_ids(schema, 20), []
    for row in ids.tolist():
        e = embed(model.embedding.table, schema, row)
        expected.append(first_order(model, reading, schema, row) + weighted(model.r.tolist(), e))
    torch.testing.assert_close(model(ids), torch.tensor(expected).double())


@every_schema
def test_with_a_transform_felv_weighs_the_transformed_fields(schema: Schema) -> None:
    chosen = {"embedding_size": 3, "linear": "felv", "embedding_transform": "senet"}
    model, ids = exact(build("fwfm", schema, chosen, seed=1)), random_ids(schema, 20)
    e = model.embedding(ids)
    expected = []
    for row, v in zip(ids.tolist(), e.tolist(), strict=True):
        w = embed(model.linear.table, schema, row)
        first = model.w0.item() + sum(dot(a, b) for a, b in zip(w, v, strict=True))
        expected.append(first + weighted(model.r.tolist(), v))
    torch.testing.assert_close(model(ids), torch.tensor(expected).double())


@every_schema
def test_it_starts_as_an_fm_on_fields(schema: Schema) -> None:
    """All r = 1 and one weight a value: FM, the values of a bag as one vector."""
    model, ids = build("fwfm", schema, {"linear": "lw"}, seed=1).double(), random_ids(schema, 20)
    fm = model.linear(ids) + bi_interaction(model.embedding(ids)).sum(1)
    torch.testing.assert_close(model(ids), fm)


def test_with_a_domain_a_field_it_is_fwbi() -> None:
    schema = SCHEMAS["field-per-domain"]
    model = exact(build("fwfm", schema, {"embedding_size": 3, "linear": "lw"}, seed=1))
    ids, fwbi = random_ids(schema, 20), FwBI(schema, 3, bias=False).double()
    r = dict(zip(combinations(range(3), 2), model.r.tolist(), strict=True))
    in_domain_order = [group[0] for group in schema.domains]
    both = combinations(in_domain_order, 2)
    fwbi.r_between.data = torch.tensor([r[min(pair), max(pair)] for pair in both]).double()
    torch.testing.assert_close(model(ids), model.linear(ids) + fwbi(model.embedding(ids)).sum(1))


def test_the_weights_of_the_pairs_are_learnt_and_saved() -> None:
    """A weight that is a plain tensor would be neither."""
    model = build("fwfm", SCHEMAS["no-bags"], {}, seed=1)
    assert model.state_dict()["r"].shape == (6,)
    assert any(parameter is model.r for parameter in model.parameters())
