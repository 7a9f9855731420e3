"""SimCEN against its equations."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from loops import Matrix, Vector, dot, embed, exact, flat, logloss, mean, relu, sigmoid, times
from rows import SCHEMAS, every_schema, random_ids
from torch import nn

from pipeline.layers.options import Net
from pipeline.layers.views import GatedViews, contrast
from pipeline.models import build
from pipeline.schema import Schema


def mish(x: float) -> float:
    return x * math.tanh(math.log1p(math.exp(x)))


def gelu(x: float) -> float:
    return x * (1 + math.erf(x / math.sqrt(2))) / 2


def leaky(x: float) -> float:
    return max(x, 0.01 * x)


def affine(layer: nn.Linear, x: Vector) -> Vector:
    return [v + b for v, b in zip(times(layer.weight, x), layer.bias.tolist(), strict=True)]


def normed(norm: nn.Module, x: Vector) -> Vector:
    """With the mean and variance of the batches seen in training."""
    if not isinstance(norm, nn.BatchNorm1d):
        return x
    assert norm.running_mean is not None and norm.running_var is not None
    found = [part.tolist() for part in (norm.running_mean, norm.running_var, norm.weight, norm.bias)]
    return [
        gain * (v - mu) / math.sqrt(variance + norm.eps) + shift
        for v, mu, variance, gain, shift in zip(x, *found, strict=True)
    ]


def gated(layer: GatedViews, views: Matrix, sigmas: list[Callable[[float], float]], first: bool) -> Matrix:
    """One layer: of the numbers that a linear map makes of all views a third each belongs to a view."""
    mixed = affine(layer.a, flat(views))
    h = len(mixed) // 3
    u = mixed[:h]
    gate = [sigmoid(v) / tau for v, tau in zip(affine(layer.gate, u), layer.tau.tolist(), strict=True)]
    new = [u]
    for k in (1, 2):
        v_k = [mixed[k * h + i] * (gate[i] + 1) for i in range(h)]
        if not first:
            assert layer.noise is not None
            v_k = [v + n for v, n in zip(v_k, layer.noise[k - 1].tolist(), strict=True)]
            if len(views[k]) == h:
                v_k = [v + before for v, before in zip(v_k, views[k], strict=True)]
        new.append(v_k)
    ends: Any = layer.ends
    return [
        [sigma(v) for v in normed(end[0], view)] for end, view, sigma in zip(ends, new, sigmas, strict=True)
    ]


def views_of(model: Any, schema: Schema, row: list[int], sigmas: list[Callable[[float], float]]) -> Matrix:
    e = embed(model.embedding.table, schema, row)
    fields = range(len(e))
    p = [[dot(e[i], times(model.w.weight.T, e[j])) for j in fields] for i in fields]  # e_i^T W e_j
    views = [
        flat(e),
        times(model.p1.weight, [p[i][j] for i in fields for j in fields if i <= j]),
        times(model.p2.weight, [p[i][j] for i in fields for j in fields if i >= j]),
    ]
    for number, layer in enumerate(model.layers):
        views = gated(layer, views, sigmas, first=number == 0)
    return [views[0], *([v + u for v, u in zip(view, views[0], strict=True)] for view in views[1:])]


SIGMAS = {"relu": relu, "tanh": math.tanh, "leaky_relu": leaky, "mish": mish, "gelu": gelu}
READINGS: list[dict[str, Any]] = [
    {"hidden": [4, 4, 3]},
    {"hidden": [5, 5], "batch_norm": True},
    {"hidden": [3], "activation": "tanh", "first_activation": "leaky_relu", "second_activation": "relu"},
    {"hidden": []},
]


@every_schema
@pytest.mark.parametrize("reading", READINGS, ids=str)
def test_simcen(schema: Schema, reading: dict[str, Any]) -> None:
    chosen = {"embedding_size": 3, **reading}
    model, ids = exact(build("simcen", schema, chosen, seed=1)), random_ids(schema, 6)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.fill_(0.3)
            module.running_var.fill_(2.0)
    names = {"activation": "relu", "first_activation": "mish", "second_activation": "gelu"}
    sigmas = [SIGMAS[reading.get(key, name)] for key, name in names.items()]
    views = [views_of(model, schema, row, sigmas) for row in ids.tolist()]
    torch.testing.assert_close(model.views(ids), torch.tensor(views).double())
    w, b = model.out.weight[0].tolist(), model.out.bias.item()
    expected = [dot(w, flat(row)) + b for row in views]
    torch.testing.assert_close(model(ids), torch.tensor(expected).double())


def contrasted(views: list[Matrix], t: float) -> Vector:
    """l_r of each row: what its own views have in common, against v_1 with v_2 of all rows."""
    unit = [[[v / (math.sqrt(dot(view, view)) or 1.0) for v in view] for view in row] for row in views]
    losses = []
    for u, v1, v2 in unit:
        own = math.exp((dot(u, v1) + dot(u, v2)) / 2 / t)
        total = sum(math.exp(dot(v1, other[2]) / t) for other in unit)
        losses.append(-math.log(own / total + 1e-5))
    return losses


@pytest.mark.parametrize("t", [0.2, 2.0])
def test_the_contrast_of_a_row_is_with_the_batch(t: float) -> None:
    views = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(1))
    expected = contrasted(views.tolist(), t)
    torch.testing.assert_close(contrast(views, t), torch.tensor(expected))
    torch.testing.assert_close(contrast(views * torch.tensor([[[3.0], [0.1], [7.0]]]), t), contrast(views, t))
    assert contrast(views * 0, t).isfinite().all()


def test_no_row_weighs_more_than_the_logarithm_of_epsilon() -> None:
    """A view that all rows share, and the opposite of the first: exp(-1 / t) of 1000 exp(1 / t)."""
    opposite = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]).expand(1000, 3, 2)
    assert contrast(opposite, 0.1).tolist() == pytest.approx([-math.log(1e-5)] * 1000, rel=1e-3)


@pytest.mark.parametrize("alpha", [0.5, 0.0])
def test_it_learns_from_labels_and_from_the_contrast(alpha: float) -> None:
    schema = SCHEMAS["no-bags"]
    chosen = {"embedding_size": 3, "hidden": [4, 4], "contrast": alpha, "temperature": 0.7}
    model, ids = exact(build("simcen", schema, chosen, seed=1)), random_ids(schema, 6)
    label = [0.0, 1.0, 0.0, 0.0, 1.0, 0.0]
    heads = model.heads(ids)
    loss, logit = model.loss(heads, torch.tensor(label).double())
    torch.testing.assert_close(logit, model(ids))
    views = [views_of(model, schema, row, [relu, mish, gelu]) for row in ids.tolist()]
    expected = logloss(logit.tolist(), label) + alpha * mean(contrasted(views, 0.7))
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    shifted, _ = model.loss(heads + 0.4, torch.tensor(label).double())
    expected += logloss([z + 0.4 for z in logit.tolist()], label) - logloss(logit.tolist(), label)
    assert shifted.item() == pytest.approx(expected, rel=1e-5), "what is added to the logit is no contrast"


def test_the_logit_of_a_row_gets_the_gradient_of_the_logloss_alone() -> None:
    model: Any = build("simcen", SCHEMAS["no-bags"], {"contrast": 0.5}, seed=1)
    z, l_r = (torch.randn(2, 3, dtype=torch.float64, requires_grad=True)).unbind(0)
    label = torch.tensor([0.0, 0.0, 1.0]).double()
    loss, _ = model.loss(torch.stack([z, z + l_r]), label)
    by_z, by_l = torch.autograd.grad(loss, [z, l_r])
    expected = [(sigmoid(v) - y) / 3 for v, y in zip(z.tolist(), label.tolist(), strict=True)]
    assert by_z.tolist() == pytest.approx(expected)
    assert by_l.tolist() == pytest.approx([0.5 / 3] * 3)


def test_the_contrast_is_computed_in_float32_under_autocast() -> None:
    views = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", torch.bfloat16):
        inside, rounded = contrast(views, 0.2), contrast(views.bfloat16(), 0.2)
    assert torch.equal(inside, contrast(views, 0.2))
    assert torch.equal(rounded, contrast(views.bfloat16().float(), 0.2))


def test_without_gates_tau_and_noise_it_is_an_mlp_of_the_views() -> None:
    """A closed gate (sigmoid 0) leaves the linear map and the views as they were before."""
    layer = GatedViews(4, 4, Net((4,)), ("relu", "relu"), first=False).double().eval()
    x = torch.randn(7, 3, 4, dtype=torch.float64)
    with torch.no_grad():
        layer.gate.bias.fill_(-1e3)
        assert layer.noise is not None
        layer.noise.zero_()
    plain = layer.a(x.flatten(1)).unflatten(1, (3, 4)) + torch.cat([torch.zeros(7, 1, 4), x[:, 1:]], 1)
    torch.testing.assert_close(layer(x), torch.relu(plain))


def test_its_vectors_start_as_published() -> None:
    layer = GatedViews(4, 900, Net((900,)), ("relu", "relu"), first=False)
    assert layer.noise is not None and layer.noise.min() > 0 and layer.noise.max() < 1
    assert abs(layer.noise.mean().item() - 0.5) < 0.05
    assert torch.equal(layer.tau, torch.ones(900))
    assert GatedViews(4, 4, Net((4,)), ("relu", "relu"), first=True).noise is None
