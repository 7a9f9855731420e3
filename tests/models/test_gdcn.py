"""GDCN against its equations."""

from typing import Any

import pytest
import torch
from loops import dot, embed, exact, flat, mlp, sigmoid, times
from rows import SCHEMAS, every_schema, random_ids
from torch import Tensor, nn

from pipeline.models import build
from pipeline.schema import Schema


@every_schema
@pytest.mark.parametrize("structure", ["parallel", "stacked"])
def test_gdcn(schema: Schema, structure: str) -> None:
    chosen = {"embedding_size": 3, "cross_layers": 2, "hidden": [4, 3], "structure": structure}
    model, ids = exact(build("gdcn", schema, chosen, seed=1)), random_ids(schema, 20)
    expected = []
    for row in ids.tolist():
        x0 = x = flat(embed(model.embedding.table, schema, row))
        for layer in model.cross:
            wx, b = times(layer.w.weight, x), layer.w.bias.tolist()
            gate = [sigmoid(v) for v in times(layer.gate.weight, x)]
            x = [x0[i] * (wx[i] + b[i]) * gate[i] + x[i] for i in range(len(x))]
        h = x + mlp(model.mlp, x0) if structure == "parallel" else mlp(model.mlp, x)
        expected.append(dot(h, model.out.weight[0].tolist()) + model.out.bias.item())
    torch.testing.assert_close(model(ids), torch.tensor(expected).double())


class Open(nn.Module):
    """A gate's input so large that its sigmoid is 1."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.full_like(x, 50.0)


@pytest.mark.parametrize("structure", ["parallel", "stacked"])
def test_with_open_gates_it_is_dcnv2(structure: Any) -> None:
    schema = SCHEMAS["three-domains"]
    chosen: dict[str, Any] = {"embedding_size": 3, "hidden": [4], "structure": structure, "cross_layers": 3}
    gated, plain = (exact(build(name, schema, chosen, seed=1)) for name in ("gdcn", "dcnv2"))
    for layer in gated.cross:
        layer.gate = Open()
    plain.load_state_dict(gated.state_dict())
    ids = random_ids(schema, 20)
    torch.testing.assert_close(gated(ids), plain(ids))
