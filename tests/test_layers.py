"""Each layer against loops written from the paper's equation, in float64."""

import math
from collections.abc import Callable
from itertools import combinations
from typing import Any

import pytest
import torch
from loops import embed, exact, excite, fwbi, linear, mean, mlp, relu, sest, sigmoid
from rows import SCHEMAS, every_schema, random_ids
from torch import nn

from pipeline.layers.embedding import FieldEmbedding, FieldLinear
from pipeline.layers.excitation import SENET, SEST, DomainSEST
from pipeline.layers.fwbi import FwBI
from pipeline.layers.mlp import MLP, Dropout
from pipeline.layers.pairs import bi_interaction
from pipeline.schema import EMPTY, Field, Schema

BAGS = SCHEMAS["three-domains"]


@every_schema
def test_linear_sums_the_weights_of_all_values(schema: Schema) -> None:
    layer, ids = exact(FieldLinear(schema)), random_ids(schema, 20)
    expected = [linear(layer, row) for row in ids.tolist()]
    torch.testing.assert_close(layer(ids), torch.tensor(expected).double())


@every_schema
def test_embedding_sums_the_values_of_a_field(schema: Schema) -> None:
    layer, ids = exact(FieldEmbedding(schema, 3)), random_ids(schema, 20)
    expected = [embed(layer.table, schema, row) for row in ids.tolist()]
    torch.testing.assert_close(layer(ids), torch.tensor(expected).double())
    assert torch.equal(layer(torch.zeros_like(ids)), torch.zeros(20, len(schema.fields), 3).double())


def test_empty_and_unseen_rows_start_at_zero_and_the_others_at_std() -> None:
    schema = Schema((Field("user", 4000, 1, "user"), Field("item", 3000, 2, "item")))
    table = FieldEmbedding(schema, 8, std=0.3).table
    assert not table[[EMPTY, *schema.offsets]].any()
    assert table.std().item() == pytest.approx(0.3, rel=0.02)
    assert table.mean().item() == pytest.approx(0, abs=0.01)


def test_the_empty_row_never_learns() -> None:
    layer = FieldEmbedding(BAGS, 3)
    layer(random_ids(BAGS, 50)).square().sum().backward()
    assert layer.table.grad is not None
    assert not layer.table.grad[EMPTY].any()
    assert layer.table.grad[1:].any()


def test_embedding_dropout_drops_components_and_keeps_the_mean() -> None:
    schema = SCHEMAS["no-bags"]
    layer = FieldEmbedding(schema, 500, dropout=0.25)
    nn.init.ones_(layer.table)
    seen = layer.train()(random_ids(schema, 50))
    assert seen.unique().tolist() == [0.0, pytest.approx(1 / 0.75)]
    assert (seen == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("n", [1, 2, 6])
def test_bi_interaction_is_the_double_sum(n: int) -> None:
    e = torch.randn(4, n, 3).double()
    expected = torch.zeros(4, 3).double()
    for i, j in combinations(range(n), 2):
        expected += e[:, i] * e[:, j]
    torch.testing.assert_close(bi_interaction(e), expected)


@pytest.mark.parametrize(("name", "function"), [("relu", relu), ("tanh", math.tanh), ("sigmoid", sigmoid)])
def test_mlp_is_its_loops(name: Any, function: Callable[[float], float]) -> None:
    network, x = exact(MLP(5, [4, 3], dropout=0.5, activation=name)), torch.randn(6, 5).double()
    expected = [mlp(network, row, function) for row in x.tolist()]
    torch.testing.assert_close(network(x), torch.tensor(expected).double())
    assert network.outputs == 3


def test_mlp_without_hidden_layers_is_the_identity() -> None:
    network, x = MLP(5, []), torch.randn(6, 5)
    assert torch.equal(network(x), x)
    assert network.outputs == 5
    assert not list(network.parameters())


def test_mlp_normalises_before_the_activation() -> None:
    network = MLP(5, [4], batch_norm=True, dropout=0.5)
    kinds = [nn.Linear, nn.BatchNorm1d, nn.ReLU, Dropout]
    assert all(isinstance(layer, kind) for layer, kind in zip(network, kinds, strict=True))


@pytest.mark.parametrize("p", [0.0, 0.25, 0.9, 1.0])
def test_dropout_drops_with_its_probability_and_keeps_the_mean(p: float) -> None:
    network = MLP(1, [20_000], dropout=p)
    nn.init.constant_(network[0].bias, 1.0)
    nn.init.zeros_(network[0].weight)
    seen = network.train()(torch.zeros(5, 1))
    assert (seen == 0).float().mean().item() == pytest.approx(p, abs=0.01)
    kept = seen[seen != 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - p) if p < 1 else 0.0), rtol=1e-4, atol=0)
    assert torch.equal(network.eval()(torch.zeros(5, 1)), torch.ones(5, 20_000))


@pytest.mark.parametrize("residual", [False, True])
def test_senet_is_its_loops(residual: bool) -> None:
    layer, e = exact(SENET(5, reduction=2, residual=residual)), torch.randn(30, 5, 4).double()
    expected = []
    for row in e.tolist():
        a = excite(layer.reweight, [mean(v) for v in row], relu)
        expected.append([[(residual + a[f]) * x for x in v] for f, v in enumerate(row)])
    torch.testing.assert_close(layer(e), torch.tensor(expected).double())


def test_the_gradients_of_senet() -> None:
    layer, e = exact(SENET(5, reduction=2)), torch.randn(6, 5, 4).double().requires_grad_()
    for weight in layer.parameters():
        weight.data.abs_()  # else relu might cut off everything
    weights = list(layer.parameters())
    assert torch.autograd.gradcheck(lambda e, *_: layer(e), (e, *weights))
    torch.testing.assert_close(layer(e), e * layer.reweight(e.mean(2)).unsqueeze(2))


@every_schema
def test_sest_of_the_domains_keeps_each_field_in_its_place(schema: Schema) -> None:
    layer, e = exact(DomainSEST(schema)), torch.randn(6, len(schema.fields), 3).double()
    expected = torch.empty_like(e)
    for sest_of_domain, group in zip(layer.domains, schema.domains, strict=True):
        for f, vector in zip(group, sest_of_domain(e[:, list(group)]).unbind(1), strict=True):
            expected[:, f] = vector
    assert torch.equal(layer(e), expected)


@pytest.mark.parametrize("final", ["relu", "sigmoid"])
@pytest.mark.parametrize("fields", [2, 8, 25])
def test_no_unit_of_an_excitation_is_dead_from_the_start(fields: int, final: Any) -> None:
    """Of 20 starts each gate is open in some row, and each threshold has a hidden unit that reads the row."""
    for seed in range(20):
        torch.manual_seed(seed)
        e = torch.randn(500, fields, 8)
        layer = SEST(fields, threshold=final)
        assert (layer.reweight(e.mean(2)) > 0).any(0).all()
        threshold = layer.threshold(e.abs().mean(2))
        assert (threshold > 0).all()
        assert (threshold.std(0) > 0).all()


def test_a_bare_transform_can_lose_a_row_and_a_residual_one_cannot() -> None:
    schema = SCHEMAS["no-bags"]
    ids = random_ids(schema, 20)
    for transform, lost in (("senet-bare", True), ("senet", False)):
        layer = FieldEmbedding(schema, 3, transform=transform)  # type: ignore[arg-type]
        nn.init.zeros_(layer.transform.reweight.w2.weight)  # type: ignore[union-attr, arg-type]
        assert (not layer(ids).any()) is lost


@pytest.mark.parametrize("transform", ["senet", "sest", "senet-bare", "sest-bare"])
@every_schema
def test_a_transform_lies_between_embedding_and_model(schema: Schema, transform: Any) -> None:
    layer, ids = exact(FieldEmbedding(schema, 3, transform=transform)), random_ids(schema, 20)
    terms, fields = layer.slots_and_fields(ids)
    assert torch.equal(terms, fields)
    assert torch.equal(layer(ids), fields)
    torch.testing.assert_close(fields, layer.transform(layer.pool(layer.slots(ids))))
    assert not torch.equal(fields, layer.pool(layer.slots(ids)))


@pytest.mark.parametrize(
    "more",
    [{}, {"merge": "concat"}, {"components": 4}, {"components": 4, "merge": "concat"}, {"residual": True}],
    ids=str,
)
@pytest.mark.parametrize(("threshold", "final"), [("relu", relu), ("sigmoid", sigmoid)])
@pytest.mark.parametrize("fields", [1, 2, 5])
def test_sest_is_its_loops(
    fields: int, threshold: Any, final: Callable[[float], float], more: dict[str, Any]
) -> None:
    layer = exact(SEST(fields, reduction=2, threshold=threshold, **more))
    e = torch.randn(30, fields, 4).double()
    expected = [sest(layer, row, final) for row in e.tolist()]
    torch.testing.assert_close(layer(e), torch.tensor(expected).double())


def test_sest_with_dead_excitations_gives_the_embedding_back() -> None:
    """M = e * relu(0) = 0 and, with relu, lambda = z * relu(0) = 0, so eta = e: V = 0 + E."""
    layer, e = SEST(5, threshold="relu"), torch.randn(8, 5, 4)
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    assert torch.equal(layer(e), e)


@pytest.mark.parametrize("threshold", ["relu", "sigmoid"])
def test_a_soft_threshold_shrinks_and_never_flips_a_sign(threshold: Any) -> None:
    layer = exact(SEST(5, threshold=threshold, merge="concat"))
    e = torch.randn(200, 5, 4).double()
    eta = layer(e)[..., 4:]
    assert (eta * e >= 0).all()
    assert (eta.abs() <= e.abs()).all()
    assert (eta == 0).any()


def test_with_a_sigmoid_the_threshold_stays_below_the_mean() -> None:
    """lambda < mean |e|, so the largest component of every field survives."""
    layer = exact(SEST(5, threshold="sigmoid", merge="concat"))
    e = torch.randn(200, 5, 4).double()
    z = e.abs().mean(2)
    assert (z * layer.threshold(z) < z).all()
    assert (layer(e)[..., 4:].abs().amax(2) > 0).all()


@pytest.mark.parametrize("bias", [True, False])
@every_schema
def test_fwbi_is_its_loops(schema: Schema, bias: bool) -> None:
    layer = exact(FwBI(schema, 3, bias=bias))
    e = torch.randn(10, len(schema.fields), 3).double()
    expected = [fwbi(layer, schema, row) for row in e.tolist()]
    torch.testing.assert_close(layer(e), torch.tensor(expected).double())


@every_schema
def test_dropped_pairs_are_all_there_in_the_mean(schema: Schema) -> None:
    """DiceFactor on pairs of fields: what is left is scaled up, what is dropped is so in all components."""
    e = torch.randn(1, len(schema.fields), 3).double()
    plain = exact(FwBI(schema, 3, dicefactor=0.3, dice="pairs"))
    diced = plain.train()(e.expand(4000, -1, -1))
    expected = plain.eval()(e)[0]
    error = diced.std(0) / 4000**0.5
    assert ((diced.mean(0) - expected).abs() < 5 * error).all()
    both = list(combinations(range(len(schema.fields)), 2))
    torch.manual_seed(1)
    kept = torch.nn.functional.dropout(e.new_ones(1, len(both)), 0.3)[0]
    torch.manual_seed(1)
    result = plain.train()(e)[0] - plain.bias.sum(0)
    for (i, j), factor in zip(both, kept.tolist(), strict=True):
        alone = torch.zeros_like(e)
        alone[:, [i, j]] = e[:, [i, j]]
        result = result - factor * (plain.eval()(alone)[0] - plain.bias.sum(0))
    torch.testing.assert_close(result, torch.zeros(3).double())


def test_fwbi_with_one_domain_is_fm() -> None:
    """r_within starts at 0.5, the bias at 0."""
    schema = Schema(tuple(Field(f"f{i}", 3, 1, "item") for i in range(6)))
    e = torch.randn(10, 6, 3)
    torch.testing.assert_close(FwBI(schema, 3)(e), bi_interaction(e))


def test_fwbi_with_a_domain_a_field_is_fwfm() -> None:
    """FwFM: sum_{i<j} r_ij <v_i, v_j>, one weight a pair of fields."""
    schema = SCHEMAS["field-per-domain"]
    layer, e = exact(FwBI(schema, 3, bias=False)), torch.randn(10, 3, 3).double()
    assert layer.r_between is not None
    in_domain_order = [group[0] for group in schema.domains]
    expected = torch.zeros(10).double()
    for r, (i, j) in zip(layer.r_between, combinations(in_domain_order, 2), strict=True):
        expected += r * (e[:, i] * e[:, j]).sum(1)
    torch.testing.assert_close(layer(e).sum(1), expected)


def test_dicefactor_drops_in_training_only() -> None:
    layer = FwBI(BAGS, 50, dicefactor=0.5)
    e = torch.randn(10, 5, 50)
    assert torch.equal(layer.eval()(e), layer(e))
    assert not torch.equal(layer.train()(e), layer(e))
