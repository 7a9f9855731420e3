"""DCN-V2 against its equations; its layers are in tests/layers/test_cross.py."""

from typing import Any

import pytest
import torch
from loops import dot, embed, exact, flat, mlp, times
from rows import SCHEMAS, every_schema, random_ids

from pipeline.common.errors import PipelineError
from pipeline.models import build
from pipeline.schema import Schema


@every_schema
@pytest.mark.parametrize("structure", ["parallel", "stacked"])
def test_dcnv2(schema: Schema, structure: str) -> None:
    chosen = {"embedding_size": 3, "hidden": [4, 3], "structure": structure}
    model, ids = exact(build("dcnv2", schema, chosen, seed=1)), random_ids(schema, 20)
    expected = []
    for row in ids.tolist():
        x0 = x = flat(embed(model.embedding.table, schema, row))
        for layer in model.cross:
            wx, b = times(layer.w.weight, x), layer.w.bias.tolist()
            x = [x0[i] * (wx[i] + b[i]) + x[i] for i in range(len(x))]
        h = x + mlp(model.mlp, x0) if structure == "parallel" else mlp(model.mlp, x)
        expected.append(dot(h, model.out.weight[0].tolist()) + model.out.bias.item())
    torch.testing.assert_close(model(ids), torch.tensor(expected).double())


@pytest.mark.parametrize("structure", ["parallel", "stacked"])
def test_low_rank_without_activation_is_the_full_matrix_u_v(structure: Any) -> None:
    schema = SCHEMAS["three-domains"]
    plain: dict[str, Any] = {"embedding_size": 3, "hidden": [4], "structure": structure}
    low = exact(build("dcnv2", schema, {**plain, "low_rank": 2, "cross_activation": "identity"}, seed=1))
    full, ids = exact(build("dcnv2", schema, plain, seed=2)), random_ids(schema, 20)
    full.load_state_dict(low.state_dict(), strict=False)
    for thin, thick in zip(low.cross, full.cross, strict=True):
        thick.w.weight.data = thin.u.weight @ thin.v.weight
        thick.w.bias.data = thin.b.data
    torch.testing.assert_close(low(ids), full(ids))


def test_experts_need_a_low_rank() -> None:
    with pytest.raises(PipelineError, match="4 experts need a low_rank above 0"):
        build("dcnv2", SCHEMAS["no-bags"], {"experts": 4}, seed=1)
