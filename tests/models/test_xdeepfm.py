"""xDeepFM against its equations."""

from typing import Any

import pytest
import torch
from loops import Matrix, Vector, dot, embed, exact, flat, linear, mlp, pairs
from model_options import READINGS
from rows import SCHEMAS, every_schema, random_ids

from pipeline.common.errors import PipelineError
from pipeline.layers.cin import CIN
from pipeline.models import build
from pipeline.schema import Schema


def cin(layer: CIN, e: Matrix, *, split_half: bool, relu: bool) -> Vector:
    """X^k_h = sum_{i,j} W^k_hij (X^{k-1}_i * X^0_j), each channel that is pooled summed over d."""
    x, pooled = e, []
    for k, w in enumerate(layer.w):
        weights = w.weight.unflatten(1, (len(x), len(e))).tolist()
        new = []
        for channel in weights:
            total = [0.0] * len(e[0])
            for i, a in enumerate(x):
                for j, b in enumerate(e):
                    total = [t + channel[i][j] * p * q for t, p, q in zip(total, a, b, strict=True)]
            new.append([max(v, 0.0) for v in total] if relu else total)
        half = len(new) // 2
        last = k == len(layer.w) - 1
        x, direct = (new[:half], new[half:]) if split_half and not last else (new, new)
        pooled += [sum(channel) for channel in direct]
    return pooled


@every_schema
@pytest.mark.parametrize("reading", [{}, *READINGS["xdeepfm"], {"cin": [3], "split_half": True}], ids=str)
def test_xdeepfm(schema: Schema, reading: dict[str, Any]) -> None:
    chosen = {"embedding_size": 3, "hidden": [4, 3], "cin": [4, 3], **reading}
    model, ids = exact(build("xdeepfm", schema, chosen, seed=1)), random_ids(schema, 10)
    split_half, relu = reading.get("split_half", False), "cin_activation" in reading
    expected = []
    for row in ids.tolist():
        e = embed(model.embedding.table, schema, row)
        p = cin(model.cin, e, split_half=split_half, relu=relu)
        y_cin = dot(p, model.w_cin.weight[0].tolist())
        y_dnn = dot(mlp(model.mlp, flat(e)), model.w_dnn.weight[0].tolist())
        expected.append(linear(model.linear, row) + y_cin + y_dnn)
    torch.testing.assert_close(model(ids), torch.tensor(expected).double())


def test_a_channel_that_sums_the_pairs_above_the_diagonal_is_fm() -> None:
    """The paper's remark: with one layer of one channel, the CIN is an FM over fields."""
    schema, fields = SCHEMAS["no-bags"], 4
    model, ids = (
        exact(build("xdeepfm", schema, {"embedding_size": 3, "cin": [1]}, seed=1)),
        random_ids(schema, 10),
    )
    model.cin.w[0].weight.data = torch.ones(fields, fields).double().triu(1).reshape(1, -1)
    e = model.embedding(ids)
    expected = torch.tensor([[pairs(row)] for row in e.tolist()]).double()
    torch.testing.assert_close(model.cin(e), expected)


@pytest.mark.parametrize(
    ("split_half", "kept"), [(False, 4 + 6 + 5), (True, 2 + 3 + 5)], ids=["all", "half, the last one whole"]
)
def test_how_many_channels_are_pooled(split_half: bool, kept: int) -> None:
    layer = CIN(3, [4, 6, 5], split_half=split_half, relu=False)
    assert layer(torch.randn(2, 3, 4)).shape == (2, kept)
    assert layer.outputs == kept


@pytest.mark.parametrize("chosen", [{"cin": []}, {"cin": [3, 4], "split_half": True}], ids=str)
def test_impossible_sizes_are_explained(chosen: dict[str, Any]) -> None:
    with pytest.raises(PipelineError, match=r"cin \[.*must have a size"):
        build("xdeepfm", SCHEMAS["no-bags"], chosen, seed=1)
