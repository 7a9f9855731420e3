"""FNN against its equation, and its start from a trained FM."""

import math
from typing import Any

import pytest
import torch
from loops import embed, exact, flat, mlp, times
from rows import SCHEMAS, every_schema, random_ids, random_split, wake
from torch import nn

from pipeline.data.batches import Batch
from pipeline.models import build
from pipeline.models.fnn import FNN
from pipeline.schema import Schema
from pipeline.train.loop import fit
from pipeline.train.start import prepare

SCHEMA = SCHEMAS["three-domains"]
ROWS = Batch(random_ids(SCHEMA, 50), torch.ones(50))


@every_schema
def test_fnn(schema: Schema) -> None:
    """A field's z_i is the sum of (w, v) over its values; w0 stands before them."""
    model = exact(build("fnn", schema, {"embedding_size": 3, "hidden": [4, 3]}, seed=1))
    ids = random_ids(schema, 20)
    expected = []
    for row in ids.tolist():
        w, v = (embed(part.table, schema, row) for part in (model.w, model.v))
        z = [model.w0.item(), *flat([a + b for a, b in zip(w, v, strict=True)])]
        hidden = mlp(model.mlp, z, math.tanh)
        expected.append(times(model.out.weight, hidden)[0] + model.out.bias.item())
    torch.testing.assert_close(model(ids), torch.tensor(expected).double())


def prepared(train: Any, **options: Any) -> Any:
    model = build("fnn", SCHEMA, {"embedding_size": 3, "hidden": [4], **options}, seed=1)
    assert isinstance(model, FNN)
    model.prepare(ROWS, train)
    return model


@pytest.mark.parametrize("transform", ["none", "senet", "sest"])
def test_what_is_trained_first_is_the_fm_of_the_zoo(transform: str) -> None:
    options = {"embedding_size": 3, "embedding_transform": transform}
    fm: Any
    fm, ids = build("fm", SCHEMA, options, seed=2).eval(), random_ids(SCHEMA, 20)
    wake(fm)

    def train(first: nn.Module) -> None:
        weights = dict(fm.state_dict())
        del weights["base_logit"]  # which `fit` gives it
        first.load_state_dict(weights)
        torch.testing.assert_close(first.eval()(ids), fm(ids), rtol=0, atol=0)

    model = prepared(train, embedding_transform=transform)
    tables, start = fm.state_dict(), model.state_dict()
    assert torch.equal(start["w0"], tables["linear.bias"])
    assert torch.equal(start["w.table"], tables["linear.table"])
    for key, value in fm.embedding.state_dict().items():
        assert torch.equal(start[f"v.{key}"], value)


def test_the_fm_has_the_networks_embedding_options() -> None:
    seen: list[Any] = []
    prepared(seen.append, embedding_std=7.0, embedding_dropout=0.25)
    assert seen[0].embedding.dropout.p == 0.25
    assert 5 < seen[0].embedding.table[SCHEMA.offsets[-1] + 1 :].std() < 9


def test_the_fm_is_trained_by_the_same_loop_before_the_network() -> None:
    train, valid = random_split(SCHEMA, 400), random_split(SCHEMA, 100, seed=5)
    settings: dict[str, Any] = {"seed": 3, "epochs": 3, "lr": 0.05, "batch_size": 64}
    model: Any = build("fnn", SCHEMA, {"embedding_size": 3, "hidden": [4]}, seed=1)
    torch.manual_seed(3)
    start: list[Any] = []
    model.prepare(ROWS, start.append)
    fit(start[0], train, valid, **settings)  # the same FM from the same seed, trained by hand
    torch.manual_seed(3)
    prepare(model, train, valid, fit, **settings)
    assert torch.equal(model.w.table, start[0].linear.table)
    assert torch.equal(model.v.table, start[0].embedding.table)


def test_without_pretraining_nothing_is_trained_first() -> None:
    def train(_fm: nn.Module) -> None:
        pytest.fail("an FM was trained")

    model = prepared(train, pretrain=False)
    fresh: Any = build("fnn", SCHEMA, {"embedding_size": 3, "hidden": [4], "pretrain": False}, seed=1)
    assert torch.equal(model.v.table, fresh.v.table)
    assert not model.w.table.any()


def test_it_says_how_often_it_trains() -> None:
    assert [build("fnn", SCHEMA, {"pretrain": pretrain}, seed=1).trainings for pretrain in (True, False)] == [
        2,
        1,
    ]
