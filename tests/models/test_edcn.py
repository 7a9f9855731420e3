"""EDCN against its equations."""

import pytest
import torch
from loops import Vector, dot, embed, exact, flat, mlp, relu, softmax, times
from rows import every_schema, random_ids

from pipeline.models import build
from pipeline.models.edcn import Bridge, Regulation
from pipeline.schema import Schema


def affine(layer: torch.nn.Linear, x: Vector) -> Vector:
    return [relu(v + b) for v, b in zip(times(layer.weight, x), layer.bias.tolist(), strict=True)]


def bridge(layer: Bridge, x: Vector, h: Vector) -> Vector:
    if layer.kind == "hadamard":
        return [a * b for a, b in zip(x, h, strict=True)]
    if layer.kind == "sum":
        return [a + b for a, b in zip(x, h, strict=True)]
    if layer.kind == "concat":
        return affine(layer.w, x + h)
    p = layer.p.weight[0].tolist()
    a_x, a_h = softmax([dot(p, affine(layer.w_x, x)), dot(p, affine(layer.w_h, h))])
    return [a_x * a + a_h * b for a, b in zip(x, h, strict=True)]


@every_schema
@pytest.mark.parametrize("kind", ["hadamard", "sum", "concat", "attention"])
@pytest.mark.parametrize("temperature", [1.0, 0.4])
def test_edcn(schema: Schema, kind: str, temperature: float) -> None:
    """Each layer's cross has + c and the x0 of the first layer."""
    fields, dim = len(schema.fields), 3
    chosen = {"embedding_size": dim, "bridge": kind, "temperature": temperature, "cross_layers": 3}
    model, ids = exact(build("edcn", schema, chosen, seed=1)), random_ids(schema, 10)
    expected = []
    for row in ids.tolist():
        f, x0 = flat(embed(model.embedding.table, schema, row)), None
        for gates, cross, deep, join in zip(model.gates, model.cross, model.dense, model.bridge, strict=True):
            of_field = [softmax([g / temperature for g in stream]) for stream in gates.g.tolist()]
            c, d = ([fields * g[i // dim] * v for i, v in enumerate(f)] for g in of_field)
            x0 = x0 or c
            s = dot(c, cross.w.weight[0].tolist())
            x = [x0[i] * s + cross.b[i].item() + c[i] for i in range(len(c))]
            h = mlp(deep, d)
            f = bridge(join, x, h)
        expected.append(dot(x + h + f, model.out.weight[0].tolist()) + model.out.bias.item())
    torch.testing.assert_close(model(ids), torch.tensor(expected).double())


def test_gates_start_at_one_and_a_low_temperature_sharpens_them() -> None:
    f = torch.ones(2, 8)
    for stream in Regulation(4, 2, 1.0, False)(f):
        torch.testing.assert_close(stream, f)
    warm, cold = Regulation(4, 2, 1.0, False), Regulation(4, 2, 0.1, False)
    for layer in (warm, cold):
        layer.g.data[:] = torch.tensor([1.0, 0.0, 0.0, 0.0])
    assert warm(f)[0][0, 0] < cold(f)[0][0, 0] <= 4
    torch.testing.assert_close(cold(f)[0].mean(1), torch.ones(2))


def test_batch_norm_takes_the_scale_of_the_gates_out() -> None:
    """Both streams have mean 0 and deviation 1 in each component, whatever the gates say."""
    layer = Regulation(4, 2, 1.0, True).double()
    layer.g.data[:] = torch.randn(2, 4)
    for stream in layer(10 * torch.randn(500, 8).double() + 3):
        torch.testing.assert_close(stream.mean(0), torch.zeros(8).double())
        torch.testing.assert_close(stream.std(0, correction=0), torch.ones(8).double(), atol=1e-3, rtol=0)
