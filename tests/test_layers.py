"""Each layer and each model's logit against loops written from the paper's equation, in float64."""

import math
from collections.abc import Callable
from itertools import combinations
from typing import Any

import pytest
import torch
from rows import SCHEMAS, random_ids, wake
from torch import Tensor, nn

from pipeline.layers.embedding import FieldEmbedding, FieldLinear
from pipeline.layers.excitation import SEST, Excitation
from pipeline.layers.fwbi import FwBI
from pipeline.layers.mlp import MLP, Dropout
from pipeline.layers.pairs import bi_interaction
from pipeline.models.fiinet import Align, Crosses, FiiNet
from pipeline.schema import EMPTY, Field, Schema
from pipeline.zoo import build

Vector = list[float]
Matrix = list[Vector]
BAGS = SCHEMAS["three-domains"]
every_schema = pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)


def exact(module: Any) -> Any:
    """Off its starting point, in float64, without dropout."""
    wake(module.double())
    return module.eval()


# ---- the equations, one row at a time, on plain numbers ----


def relu(x: float) -> float:
    return x if x > 0 else 0.0


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def dot(a: Vector, b: Vector) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def times(weight: Tensor, x: Vector) -> Vector:
    return [dot(row, x) for row in weight.tolist()]


def softmax(x: Vector) -> Vector:
    total = sum(math.exp(v) for v in x)
    return [math.exp(v) / total for v in x]


def mean(x: Vector) -> float:
    return sum(x) / len(x)


def linear(layer: FieldLinear, ids: list[int]) -> float:
    """w0 plus the weight of every value that is there."""
    return layer.bias.item() + sum(layer.table[i, 0].item() for i in ids if i != EMPTY)


def embed(table: Tensor, schema: Schema, ids: list[int]) -> Matrix:
    """One vector a field: the sum over its values."""
    e = [[0.0] * table.shape[1] for _ in schema.fields]
    for slot, i in enumerate(ids):
        if i != EMPTY:
            for d, value in enumerate(table[i].tolist()):
                e[schema.slot_field[slot]][d] += value
    return e


def pairs(vectors: Matrix) -> float:
    return sum(dot(a, b) for a, b in combinations(vectors, 2))


def mlp(network: MLP, x: Vector, activation: Callable[[float], float] = relu) -> Vector:
    for layer in network:
        if isinstance(layer, nn.Linear):
            x = [v + b for v, b in zip(times(layer.weight, x), layer.bias.tolist(), strict=True)]
            x = [activation(v) for v in x]
    return x


def excite(layer: Excitation, z: Vector, final: Callable[[float], float]) -> Vector:
    hidden = [relu(v) for v in times(layer.w1.weight, z)]
    return [final(v) for v in times(layer.w2.weight, hidden)]


def sest(layer: SEST, e: Matrix, final: Callable[[float], float]) -> Matrix:
    """FLSEST eq. 1-8 on the fields of one domain."""
    a = excite(layer.reweight, [mean(row) for row in e], relu)
    z = [mean([abs(v) for v in row]) for row in e]
    sigma = excite(layer.threshold, z, final)
    rows = []
    for f, row in enumerate(e):
        lam = z[f] * sigma[f]
        m = [a[f] * v for v in row]
        eta = [math.copysign(max(abs(v) - lam, 0.0), v) for v in row]
        rows.append(m + eta if layer.merge == "concat" else [x + y for x, y in zip(m, eta, strict=True)])
    return rows


def fwbi(layer: FwBI, schema: Schema, e: Matrix) -> Vector:
    """FLSEST eq. 12-13: every pair of fields with the weight of its pair of domains.

    A pair inside a domain stands twice in S*S - sum e*e, hence the 2.
    """
    r_between = {}
    if layer.r_between is not None:
        both = combinations(range(len(schema.groups)), 2)
        r_between = dict(zip(both, layer.r_between.tolist(), strict=True))
    domain = {f: m for m, group in enumerate(schema.groups) for f in group}
    out = layer.bias.sum(0).tolist() if layer.bias is not None else [0.0] * len(e[0])
    for i, j in combinations(range(len(e)), 2):
        m, n = sorted((domain[i], domain[j]))
        r = 2 * layer.r_within[m].item() if m == n else r_between[m, n]
        out = [o + r * x * y for o, x, y in zip(out, e[i], e[j], strict=True)]
    return out


def product(vectors: Matrix) -> Vector:
    return [math.prod(column) for column in zip(*vectors, strict=True)]


def crosses(layer: Crosses, e: Matrix, order: int) -> Matrix:
    """FiiNet eq. 1-2: w_c times the product of the fields of each combination."""
    chosen = list(combinations(range(len(e)), order))
    return [
        [layer.weight[c, 0].item() * v for v in product([e[f] for f in fields])]
        for c, fields in enumerate(chosen)
    ]


def fiinet(model: FiiNet, e: Matrix, orders: list[int]) -> tuple[Matrix, Matrix]:
    """FiiNet eq. 1-6: the attended crosses V, and the attention of each branch and channel."""
    f = len(e)
    branches = [crosses(split, e, order) for split, order in zip(model.split, orders, strict=True)]  # type: ignore[arg-type]
    if model.fusion == "concat":
        branches = [[channel for branch in branches for channel in branch]]
    elif model.fusion == "project":
        branches = [
            [[dot(row, list(column)) for column in zip(*branch, strict=True)] for row in weight.tolist()]
            for branch, weight in zip(branches, [b.weight for b in model.bring], strict=True)
        ]
    else:
        highest = [set(fields) for fields in combinations(range(f), orders[-1])]
        aligned = []
        for branch, order in zip(branches, orders, strict=True):
            lower = [set(fields) for fields in combinations(range(f), order)]
            inside = [[branch[c] for c, low in enumerate(lower) if low <= high] for high in highest]
            aligned.append([[mean(list(d)) for d in zip(*group, strict=True)] for group in inside])
        branches = aligned
    channels, dim = len(branches[0]), len(e[0])
    u = [[sum(branch[c][d] for branch in branches) for d in range(dim)] for c in range(channels)]
    if not model.attention:
        return u, []
    z = [mean(row) if model.squeeze == "mean" else max(row) for row in u]
    scores = times(model.w2.weight, [relu(s) for s in times(model.w1.weight, z)])
    if model.fusion == "concat":
        gates = (
            [g * channels for g in softmax(scores)] if model.gate == "softmax" else list(map(sigmoid, scores))
        )
        a = [gates]
    else:
        by_channel = [softmax(scores[c::channels]) for c in range(channels)]
        a = [list(branch) for branch in zip(*by_channel, strict=True)]
    v = [
        [sum(a[b][c] * branches[b][c][d] for b in range(len(branches))) for d in range(dim)]
        for c in range(channels)
    ]
    return v, a


def flat(matrix: Matrix) -> Vector:
    return [v for row in matrix for v in row]


# ---- layers ----


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
    assert not table[[EMPTY, *schema.first]].any()
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
    assert seen[seen != 0].tolist() == pytest.approx([1 / (1 - p)] * int((seen != 0).sum()) if p < 1 else [])
    assert torch.equal(network.eval()(torch.zeros(5, 1)), torch.ones(5, 20_000))


@pytest.mark.parametrize("merge", ["sum", "concat"])
@pytest.mark.parametrize(("threshold", "final"), [("relu", relu), ("sigmoid", sigmoid)])
@pytest.mark.parametrize("fields", [1, 2, 5])
def test_sest_is_its_loops(fields: int, threshold: Any, final: Callable[[float], float], merge: Any) -> None:
    layer = exact(SEST(fields, reduction=2, threshold=threshold, merge=merge))
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
    in_domain_order = [group[0] for group in schema.groups]
    expected = torch.zeros(10).double()
    for r, (i, j) in zip(layer.r_between, combinations(in_domain_order, 2), strict=True):
        expected += r * (e[:, i] * e[:, j]).sum(1)
    torch.testing.assert_close(layer(e).sum(1), expected)


def test_dicefactor_drops_in_training_only() -> None:
    layer = FwBI(BAGS, 50, dicefactor=0.5)
    e = torch.randn(10, 5, 50)
    assert torch.equal(layer.eval()(e), layer(e))
    assert not torch.equal(layer.train()(e), layer(e))


@pytest.mark.parametrize("order", [2, 3, 4])
def test_crosses_are_products_of_combinations(order: int) -> None:
    layer, e = exact(Crosses(5, order)), torch.randn(10, 5, 3).double()
    expected = [crosses(layer, row, order) for row in e.tolist()]
    torch.testing.assert_close(layer(e), torch.tensor(expected).double())


@pytest.mark.parametrize(("order", "to"), [(2, 3), (2, 4), (3, 4), (2, 5)])
def test_align_takes_the_crosses_inside(order: int, to: int) -> None:
    low, high = list(combinations(range(5), order)), list(combinations(range(5), to))
    x = torch.randn(10, len(low), 3).double()
    aligned = Align(5, order, to).double()(x)
    for k, fields in enumerate(high):
        inside = [c for c, cross in enumerate(low) if set(cross) <= set(fields)]
        assert len(inside) == math.comb(to, order)
        torch.testing.assert_close(aligned[:, k], sum(x[:, c] for c in inside) / len(inside))


# ---- models ----


@every_schema
def test_lr(schema: Schema) -> None:
    model, ids = exact(build("lr", schema, {}, seed=1)), random_ids(schema, 20)
    expected = [linear(model.linear, row) for row in ids.tolist()]
    torch.testing.assert_close(model(ids), torch.tensor(expected).double())


def values(table: Tensor, ids: list[int]) -> Matrix:
    """The vectors of all values of a row, those of one bag apart."""
    return [table[i].tolist() for i in ids if i != EMPTY]


@every_schema
def test_fm_pairs_all_values_those_inside_a_bag_too(schema: Schema) -> None:
    model, ids = exact(build("fm", schema, {"embedding_size": 3}, seed=1)), random_ids(schema, 20)
    expected = [linear(model.linear, row) + pairs(values(model.embedding.table, row)) for row in ids.tolist()]
    torch.testing.assert_close(model(ids), torch.tensor(expected).double())


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


FIINETS: list[dict[str, Any]] = [
    {},
    {"gate": "sigmoid"},
    {"squeeze": "max"},
    {"orders": [2]},
    {"orders": [3]},
    {"orders": [2, 3, 4]},
    {"attention": False},
    {"fusion": "project", "channels": 5},
    {"fusion": "project", "channels": 5, "orders": [2, 3, 4], "squeeze": "max"},
    {"fusion": "project", "channels": 5, "attention": False},
    {"fusion": "align"},
    {"fusion": "align", "orders": [2, 3, 4]},
    {"fusion": "align", "attention": False},
]


@pytest.mark.parametrize("reading", FIINETS, ids=str)
@pytest.mark.parametrize("schema", [SCHEMAS["two-domains"], BAGS], ids=["four-fields", "five-fields"])
def test_fiinet(schema: Schema, reading: dict[str, Any]) -> None:
    chosen = {"embedding_size": 3, "hidden": [4], **reading}
    model, ids = exact(build("fiinet", schema, chosen, seed=1)), random_ids(schema, 20)
    expected = []
    for row in ids.tolist():
        e = embed(model.embedding.table, schema, row)
        v, _ = fiinet(model, e, reading.get("orders", [2, 3]))
        expected.append(linear(model.linear, row) + times(model.out.weight, mlp(model.mlp, flat(v)))[0])
    torch.testing.assert_close(model(ids), torch.tensor(expected).double())


@pytest.mark.parametrize("fusion", ["project", "align"])
@pytest.mark.parametrize("orders", [[2, 3], [2, 3, 4]], ids=str)
def test_fiinet_attention_sums_to_one_over_the_branches(orders: list[int], fusion: str) -> None:
    model = exact(build("fiinet", BAGS, {"orders": orders, "fusion": fusion}, seed=1))
    c = model.w2.out_features // len(orders)
    a = model.weights(torch.randn(10, c, 3).double())
    assert a.shape == (10, len(orders), c)
    torch.testing.assert_close(a.sum(1), torch.ones(10, c).double())
    assert (a > 0).all()
    assert a.std() > 0


def test_fiinet_softmax_gates_have_mean_one_and_sigmoid_gates_stay_below() -> None:
    u = torch.randn(10, 20, 3).double()
    softmax_gates = exact(build("fiinet", BAGS, {}, seed=1)).weights(u)
    torch.testing.assert_close(softmax_gates.mean(2), torch.ones(10, 1).double())
    sigmoid_gates = exact(build("fiinet", BAGS, {"gate": "sigmoid"}, seed=1)).weights(u)
    assert ((sigmoid_gates > 0) & (sigmoid_gates < 1)).all()


FLSESTS: list[dict[str, Any]] = [
    {},
    {"merge": "concat"},
    {"threshold": "relu"},
    {"merge": "concat", "threshold": "relu", "reduction": 1},
    {"use_sest": False},
    {"use_fwbi": False},
    {"use_mlp": False},
    {"use_mlp": False, "use_sest": False},
    {"use_fwbi": False, "use_sest": False},
]


@pytest.mark.parametrize("reading", FLSESTS, ids=str)
@every_schema
def test_flsest(schema: Schema, reading: dict[str, Any]) -> None:
    model = exact(build("flsest", schema, {"embedding_size": 3, "hidden": [4], **reading}, seed=1))
    final = relu if reading.get("threshold") == "relu" else sigmoid
    ids, expected = random_ids(schema, 20), []
    for row in ids.tolist():
        e = embed(model.embedding.table, schema, row)
        copies = [e]
        if reading.get("use_sest", True):
            v: Matrix = [[] for _ in e]
            for layer, group in zip(model.sest, schema.groups, strict=True):
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
        expected.append(linear(model.linear, row) + times(model.out.weight, x)[0])
    torch.testing.assert_close(model(ids), torch.tensor(expected).double())
