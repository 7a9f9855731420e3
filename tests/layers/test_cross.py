"""Cross layers against their equations, and what they are equal to."""

import math
from typing import Any

import pytest
import torch
from loops import Vector, dot, exact, sigmoid, softmax, times

from pipeline.layers.cross import CrossNetwork, MatrixCross, MixtureCross, VectorCross

ROWS, K = 10, 5


def two(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    x0, x = torch.randn(2, ROWS, K, generator=torch.Generator().manual_seed(seed)).double()
    return x0, x


def compare(layer: Any, expected: list[Vector]) -> None:
    torch.testing.assert_close(layer(*two()), torch.tensor(expected).double())


def pairs() -> list[tuple[Vector, Vector]]:
    x0, x = two()
    return list(zip(x0.tolist(), x.tolist(), strict=True))


def test_vector_cross() -> None:
    """DCN: x0 (x^T w) + b + x."""
    layer = exact(VectorCross(K))
    w, b = layer.w.weight[0].tolist(), layer.b.tolist()
    compare(layer, [[x0[i] * dot(x, w) + b[i] + x[i] for i in range(K)] for x0, x in pairs()])


def test_matrix_cross() -> None:
    """DCN-V2: x0 * (W x + b) + x."""
    layer = exact(MatrixCross(K))
    b = layer.w.bias.tolist()
    expected = []
    for x0, x in pairs():
        wx = times(layer.w.weight, x)
        expected.append([x0[i] * (wx[i] + b[i]) + x[i] for i in range(K)])
    compare(layer, expected)


@pytest.mark.parametrize("gate", ["softmax", "sigmoid"])
@pytest.mark.parametrize("activation", ["identity", "tanh", "relu"])
@pytest.mark.parametrize("experts", [1, 3])
def test_mixture_cross(experts: int, activation: Any, gate: Any) -> None:
    """DCN-V2: sum_i G_i(x) [x0 * (U_i g(C_i g(V_i^T x)) + b)] + x."""
    layer = exact(MixtureCross(K, 2, experts=experts, gate=gate, activation=activation))
    g = {"identity": lambda v: v, "tanh": math.tanh, "relu": lambda v: max(v, 0.0)}[activation]
    b, expected = layer.b.tolist(), []
    for x0, x in pairs():
        scores = times(layer.gate.weight, x) if experts > 1 else [0.0]
        weights = softmax(scores) if gate == "softmax" else [sigmoid(s) for s in scores]
        out = list(x)
        for e in range(experts):
            own = slice(2 * e, 2 * e + 2)
            h = times(layer.v.weight[own], x)
            if activation != "identity":
                h = [g(v) for v in times(layer.c[e], [g(v) for v in h])]
            wx = times(layer.u.weight[:, own], h)
            weight = weights[e] if experts > 1 else 1.0
            out = [o + weight * x0[i] * (wx[i] + b[i]) for i, o in enumerate(out)]
        expected.append(out)
    compare(layer, expected)


def test_one_linear_expert_is_a_matrix_of_low_rank() -> None:
    low, full = exact(MixtureCross(K, 2, activation="identity")), exact(MatrixCross(K))
    with torch.no_grad():
        full.w.weight.copy_(low.u.weight @ low.v.weight)
        full.w.bias.copy_(low.b)
    torch.testing.assert_close(low(*two()), full(*two()))


@pytest.mark.parametrize("layer", [VectorCross(K), MatrixCross(K), MixtureCross(K, 2, experts=2)], ids=str)
def test_without_weights_a_cross_layer_changes_nothing(layer: Any) -> None:
    network = CrossNetwork([layer, layer]).double()
    for parameter in network.parameters():
        torch.nn.init.zeros_(parameter)
    x0, _ = two()
    assert torch.equal(network(x0), x0)


def test_a_network_crosses_with_the_first_x_each_time() -> None:
    """One component, w = 1, b = 0: each layer gives x (x0 + 1), so two give x0 (x0 + 1)^2."""
    network = CrossNetwork([VectorCross(1), VectorCross(1)])
    for layer in network:
        torch.nn.init.ones_(layer.w.weight)
    assert network(torch.tensor([[2.0]])).item() == 2 * (2 + 1) ** 2
