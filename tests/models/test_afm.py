"""AFM against its equation."""

from itertools import combinations

import pytest
import torch
from loops import dot, embed, exact, linear, product, relu, softmax, times
from rows import SCHEMAS, every_schema, random_ids
from torch import nn

from pipeline.layers.pairs import bi_interaction
from pipeline.models import build
from pipeline.schema import Schema


@every_schema
def test_afm(schema: Schema) -> None:
    chosen = {"embedding_size": 3, "attention_size": 4}
    model, ids = exact(build("afm", schema, chosen, seed=1)), random_ids(schema, 20)
    expected = []
    for row in ids.tolist():
        e = embed(model.embedding.table, schema, row)
        pairs = [product([a, b]) for a, b in combinations(e, 2)]
        scores = []
        for pair in pairs:
            hidden = [x + b for x, b in zip(times(model.w.weight, pair), model.w.bias.tolist(), strict=True)]
            scores.append(dot(model.h.weight[0].tolist(), [relu(x) for x in hidden]))
        a = softmax(scores)
        attended = [sum(w * x for w, x in zip(a, column, strict=True)) for column in zip(*pairs, strict=True)]
        expected.append(linear(model.linear, row) + dot(model.p.tolist(), attended))
    torch.testing.assert_close(model(ids), torch.tensor(expected).double())


@every_schema
def test_with_uniform_attention_and_p_the_number_of_pairs_it_is_fm_on_fields(schema: Schema) -> None:
    model, ids = exact(build("afm", schema, {"embedding_size": 3}, seed=1)), random_ids(schema, 20)
    nn.init.zeros_(model.h.weight)
    nn.init.constant_(model.p, model.pairs.count)
    fm = model.linear(ids) + bi_interaction(model.embedding(ids)).sum(1)
    torch.testing.assert_close(model(ids), fm)


def test_a_pair_that_gets_all_attention_is_the_result() -> None:
    """The softmax lies over the pairs of a row, and they are summed, not averaged."""
    schema = SCHEMAS["no-bags"]
    model, ids = exact(build("afm", schema, {"embedding_size": 3}, seed=1)), random_ids(schema, 20)
    e = torch.zeros(20, 4, 3).double()
    e[:, 1], e[:, 3] = 3.0, 4.0  # the products of all other pairs are zero
    model.embedding.forward = lambda _: e
    nn.init.ones_(model.w.weight)
    nn.init.zeros_(model.w.bias)
    nn.init.ones_(model.h.weight)
    torch.testing.assert_close(model(ids), model.linear(ids) + 12.0 * model.p.sum())


def test_dropout_leaves_the_linear_term_alone() -> None:
    schema = SCHEMAS["no-bags"]
    model = exact(build("afm", schema, {"embedding_size": 500, "dropout": 0.5}, seed=1)).train()
    ids = random_ids(schema, 20)
    with torch.no_grad():
        model.embedding.table[:] = 1.0
        model.p[:] = 1.0
        pairs = model(ids) - model.linear(ids)
    assert pairs.mean().item() == pytest.approx(500, rel=0.05)
    assert ((pairs / 2) - (pairs / 2).round()).abs().max() < 1e-9  # whole components of 1 / (1 - 0.5)
    assert pairs.unique().numel() > 1
