"""FCN against its equations."""

import math
from typing import Any

import pytest
import torch
from loops import Vector, dot, embed, exact, logloss, mean, relu, sigmoid, times
from model_options import READINGS
from rows import SCHEMAS, every_schema, random_ids
from torch import nn

from pipeline.layers.masked import MaskedCross, MaskedNetwork
from pipeline.models import build
from pipeline.schema import Schema


def mask(layer: MaskedCross, c: Vector) -> Vector:
    """c * max(0, LayerNorm(c)), or LayerNorm(c)."""
    centre = mean(c)
    deviation = math.sqrt(mean([(v - centre) ** 2 for v in c]) + 1e-5)
    scaled = zip(c, layer.norm.weight.tolist(), layer.norm.bias.tolist(), strict=True)
    norm = [(v - centre) / deviation * gain + shift for v, gain, shift in scaled]
    return norm if layer.opened is None else [v * relu(n) for v, n in zip(c, norm, strict=True)]


def logit(network: MaskedNetwork, x1: Vector, exponential: bool) -> float:
    x = x1
    for layer in network.layers:
        c = times(layer.w.weight, x)
        if isinstance(layer.batch_norm, nn.BatchNorm1d):  # one mean and variance for all components
            centre, variance, gain, shift = (
                part.item()
                for part in (
                    layer.batch_norm.running_mean,
                    layer.batch_norm.running_var,
                    layer.batch_norm.weight,
                    layer.batch_norm.bias,
                )
            )
            c = [gain * (v - centre) / math.sqrt(variance + 1e-5) + shift for v in c]
        both, anchor, b = c + mask(layer, c), x if exponential else x1, layer.b.tolist()
        if layer.bias == "inside":
            x = [anchor[i] * (both[i] + b[i]) + x[i] for i in range(len(x))]
        else:
            x = [anchor[i] * both[i] + b[i] + x[i] for i in range(len(x))]
    return dot(x, network.out.weight[0].tolist()) + network.out.bias.item()


@every_schema
@pytest.mark.parametrize(
    "reading", [{}, *READINGS["fcn"], {"embedding_size": 1}, {"batch_norm": True}], ids=str
)
def test_fcn(schema: Schema, reading: dict[str, Any]) -> None:
    chosen = {"embedding_size": 4, **reading}
    model, ids = exact(build("fcn", schema, chosen, seed=1)), random_ids(schema, 10)
    for network in model.networks:
        for layer in network.layers:
            if reading.get("batch_norm"):
                layer.batch_norm.running_mean.fill_(0.3)
                layer.batch_norm.running_var.fill_(2.0)
    half = math.ceil(chosen["embedding_size"] / 2)
    names = {"both": ["exponential", "linear"]}.get(chosen.get("networks", "both"), [chosen.get("networks")])
    expected = []
    for row in ids.tolist():
        e = embed(model.embedding.table, schema, row)
        x1 = [v for field in e for v in field[:half]] + [v for field in e for v in field[half:]]
        parts = zip(model.networks, names, strict=True)
        expected.append(mean([logit(network, x1, name == "exponential") for network, name in parts]))
    torch.testing.assert_close(model(ids), torch.tensor(expected).double())


@pytest.mark.parametrize(("network", "order"), [("exponential", 8), ("linear", 4)])
def test_the_order_doubles_or_grows_by_one_with_each_layer(network: Any, order: int) -> None:
    """Three layers without bias, of half a mask (one component): a polynomial of this degree in x1."""
    options = {"embedding_size": 1, "cross_layers": 3, "networks": network}
    model = build("fcn", SCHEMAS["no-bags"], options, seed=1).double()
    for name, parameter in model.named_parameters():
        parameter.data = (
            torch.zeros_like(parameter) if name.endswith(("b", "bias")) else parameter.abs() + 0.1
        )
    x1 = torch.full((1, 4), 1e4).double()
    grown = torch.log2(model.networks[0](2 * x1) / model.networks[0](x1)).item()
    assert grown == pytest.approx(order, abs=1e-2)


def test_the_mask_halves_the_weights_of_a_cross_layer() -> None:
    layer = MaskedCross(8, 4, "self")
    assert layer.w.weight.numel() == 8 * 8 / 2


@pytest.mark.parametrize("tri", [True, False])
def test_tri_bce(tri: bool) -> None:
    """L + L_e max(0, L_e - L) + L_s max(0, L_s - L), with the gradient through the weights."""
    model: Any = build("fcn", SCHEMAS["no-bags"], {"tri_bce": tri}, seed=1)
    worse, better = [2.0, -1.0, 0.5], [-0.5, -1.0, 1.0]
    heads = torch.tensor([worse, better], dtype=torch.float64, requires_grad=True)
    label = [0.0, 0.0, 1.0]
    loss, logit = model.loss(heads, torch.tensor(label).double())
    both = [mean([a, b]) for a, b in zip(worse, better, strict=True)]
    fused, own = logloss(both, label), [logloss(head, label) for head in (worse, better)]
    assert own[0] > fused > own[1], "one head is behind the mean, one is ahead of it"
    assert logit.tolist() == pytest.approx(both)
    assert loss.item() == pytest.approx(fused + (own[0] * (own[0] - fused) if tri else 0))
    (gradient,) = torch.autograd.grad(loss, heads)
    for i in range(3):
        slope = (sigmoid(both[i]) - label[i]) / 3
        slopes = [slope / 2, slope / 2]  # of the fused loss by each head
        behind = (sigmoid(worse[i]) - label[i]) / 3
        expected = [
            slopes[0] + tri * (behind * (2 * own[0] - fused) - own[0] * slopes[0]),
            slopes[1] - tri * own[0] * slopes[1],
        ]
        assert gradient[:, i].tolist() == pytest.approx(expected)


def test_each_network_has_a_depth_and_a_dropout_of_its_own() -> None:
    options = {"cross_layers": 1, "linear_layers": 3, "dropout": 0.1, "linear_dropout": 0.3}
    model: Any = build("fcn", SCHEMAS["no-bags"], options, seed=1)
    assert [len(network.layers) for network in model.networks] == [1, 3]
    assert [network.dropout.p for network in model.networks] == [0.1, 0.3]


def test_a_bias_inside_the_product_starts_between_zero_and_one() -> None:
    b = MaskedCross(500, 250, "self", bias="inside").b
    assert b.min() > 0 and b.max() < 1 and abs(b.mean().item() - 0.5) < 0.05
