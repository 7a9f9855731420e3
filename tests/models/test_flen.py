"""FLEN against its equations."""

import pytest
import torch
from loops import embed, exact, flat, fwbi, linear, mlp, relu, times
from rows import SCHEMAS, every_schema, random_ids
from torch import nn

from pipeline.models import build
from pipeline.schema import Schema

SMALL = {"embedding_size": 3, "hidden": [4]}


@pytest.mark.parametrize("joint", ["relu", "linear"])
@every_schema
def test_flen(schema: Schema, joint: str) -> None:
    """h_FwBI, or FwBI's vector alone, stands before the network's, in the order of the equation."""
    model, ids = exact(build("flen", schema, {**SMALL, "joint": joint}, seed=1)), random_ids(schema, 20)
    expected = []
    for row in ids.tolist():
        e = embed(model.embedding.table, schema, row)
        h, first = fwbi(model.fwbi, schema, e), linear(model.linear, row)
        if joint == "relu":
            h, first = [relu(v) for v in times(model.join.weight, [first, *h])], 0.0
        expected.append(first + times(model.out.weight, h + mlp(model.mlp, flat(e)))[0])
    torch.testing.assert_close(model(ids), torch.tensor(expected).double())


@every_schema
def test_linear_flen_is_linear_flsest_without_sest(schema: Schema) -> None:
    options = {**SMALL, "joint": "linear"}
    flen = exact(build("flen", schema, options, seed=1))
    flsest = build("flsest", schema, {**options, "second_copy": "none"}, seed=2).double().eval()
    names = {name: name.replace("fwbi.", "fwbi.0.").replace("mlp.", "mlp.0.") for name in flen.state_dict()}
    flsest.load_state_dict({names[name]: value for name, value in flen.state_dict().items()})
    ids = random_ids(schema, 20)
    torch.testing.assert_close(flen(ids), flsest(ids))


def test_at_the_start_its_bilinear_part_is_fm() -> None:
    """r is 0.5 within the domains and 1 between them: every pair of fields counts once."""
    schema = SCHEMAS["no-bags"]
    model, ids = build("flen", schema, SMALL, seed=1), random_ids(schema, 20)
    nn.init.normal_(model.embedding.table)
    e = model.embedding(ids)
    torch.testing.assert_close(model.fwbi(e), 0.5 * (e.sum(1).square() - e.square().sum(1)))


@pytest.mark.parametrize("dice", ["components", "pairs"])
def test_dicefactor_acts_on_the_bilinear_paths_in_training_only(dice: str) -> None:
    schema = SCHEMAS["three-domains"]
    options = {**SMALL, "dropout": 0.0, "dicefactor": 0.5, "dice": dice}
    model = exact(build("flen", schema, options, seed=1))
    ids = random_ids(schema, 20)
    plain = model(ids)
    assert torch.equal(plain, model(ids))
    model.train()
    assert not torch.equal(plain, model(ids))
    model.out.weight.data[:, :4] = 0.0  # without the bilinear paths nothing is left to drop
    assert torch.equal(model(ids), model(ids))


@pytest.mark.parametrize("schema", [SCHEMAS["two-domains"], SCHEMAS["three-domains"]])
def test_the_domains_are_the_schemas(schema: Schema) -> None:
    """Two or three of them: no group is written into the model."""
    model, g = build("flen", schema, SMALL, seed=1), len(schema.domains)
    assert (len(model.fwbi.r_within), len(model.fwbi.r_between)) == (g, g * (g - 1) // 2)
