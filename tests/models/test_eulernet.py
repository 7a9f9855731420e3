"""EulerNet against its equations, in complex numbers."""

import cmath
import math

import pytest
import torch
from loops import Vector, dot, embed, exact, normed, relu
from rows import every_schema, random_ids
from torch import Tensor, nn

from pipeline.models import build
from pipeline.models.eulernet import EulerLayer
from pipeline.schema import Schema

Complex = list[list[complex]]


def linear(layer: nn.Linear, x: Vector) -> Vector:
    return [dot(w, x) + b for w, b in zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)]


def interact(layer: EulerLayer, z: Complex) -> Complex:
    dim = len(z[0])
    found = []
    for k, alpha in enumerate(layer.alpha.tolist()):
        vector = []
        for d in range(dim):
            modulus, phase = layer.delta_modulus[k, d].item(), layer.delta_phase[k, d].item()
            for a, feature in zip(alpha, z, strict=True):
                modulus += a * 0.5 * math.log(abs(feature[d]) ** 2 + 1e-8)
                phase += a * cmath.phase(feature[d])
            vector.append(cmath.rect(math.exp(modulus), phase))
        if layer.w is not None:
            real = linear(layer.w, [v.real for feature in z for v in feature])
            imaginary = linear(layer.w, [v.imag for feature in z for v in feature])
            for d in range(dim):
                vector[d] += complex(relu(real[k * dim + d]), relu(imaginary[k * dim + d]))
        reals = normed(layer.norm_r, [v.real for v in vector])
        imaginaries = normed(layer.norm_p, [v.imag for v in vector])
        found.append([complex(r, p) for r, p in zip(reals, imaginaries, strict=True)])
    return found


@every_schema
@pytest.mark.parametrize("layer_norm", [True, False])
@pytest.mark.parametrize("implicit", [True, False])
def test_eulernet(schema: Schema, implicit: bool, layer_norm: bool) -> None:
    chosen = {"embedding_size": 3, "order_vectors": [4, 2], "implicit": implicit, "layer_norm": layer_norm}
    model, ids = exact(build("eulernet", schema, chosen, seed=1)), random_ids(schema, 10)
    expected = []
    for row in ids.tolist():
        phases = embed(model.embedding.table, schema, row)
        mu = model.mu[:, 0].tolist()
        z = [[m * cmath.exp(1j * theta) for theta in e] for m, e in zip(mu, phases, strict=True)]
        for layer in model.layers:
            z = interact(layer, z)
        w = model.out.weight[0].tolist()
        both = [v for feature in z for v in feature]
        expected.append(
            dot(w, [v.real for v in both]) + dot(w, [v.imag for v in both]) + model.out.bias.item()
        )
    torch.testing.assert_close(model(ids), torch.tensor(expected).double())


def explicit(orders: list[list[float]], r: Tensor, p: Tensor) -> Tensor:
    layer = EulerLayer(
        r.shape[1], len(orders), r.shape[2], 0.0, 0.0, implicit=False, layer_norm=False
    ).double()
    with torch.no_grad():
        layer.alpha.copy_(torch.tensor(orders))
        layer.delta_modulus.zero_()
        layer.delta_phase.zero_()
        return torch.complex(*layer(r, p))


def test_orders_of_one_multiply_the_complex_features() -> None:
    r, p = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    z = torch.complex(r, p)
    found = explicit([[1, 1, 0], [0, 1, 1], [1, 1, 1], [0, 2, 0]], r, p)
    expected = [z[:, 0] * z[:, 1], z[:, 1] * z[:, 2], z.prod(1), z[:, 1] ** 2]
    torch.testing.assert_close(found, torch.stack(expected, 1), rtol=1e-5, atol=1e-6)


def test_every_field_starts_in_an_order_vector() -> None:
    layer = EulerLayer(3, 5, 2, 0.0, 0.0, implicit=True, layer_norm=True)
    assert layer.alpha.argmax(1).tolist() == [0, 1, 2, 0, 1]
    assert (layer.alpha.sum(1) == 1).all()
