"""FiBiNET against its equations."""

from itertools import combinations
from typing import Any

import pytest
import torch
from loops import Matrix, Vector, embed, exact, excite, linear, mean, mlp, relu, sest, sigmoid, times
from model_options import READINGS
from rows import SCHEMAS, every_schema, random_ids
from torch import Tensor, nn

from pipeline.layers.excitation import SENET
from pipeline.models import build
from pipeline.schema import Schema


def reweighted(model: nn.Module, e: Matrix) -> Matrix:
    """SENET or SEST, on all fields."""
    if isinstance(model.excite, SENET):
        a = excite(model.excite.reweight, [mean(row) for row in e], relu)
        return [[a[f] * x for x in row] for f, row in enumerate(e)]
    return sest(model.excite, e, sigmoid)  # type: ignore[arg-type]


def bilinear(weight: Tensor, kind: str, v: Matrix) -> Vector:
    """(v_i W) * v_j for every pair, one behind the other."""
    out: Vector = []
    for pair, (i, j) in enumerate(combinations(range(len(v)), 2)):
        w = weight[{"all": 0, "each": i, "interaction": pair}[kind]]
        out += [x * y for x, y in zip(times(w.T, v[i]), v[j], strict=True)]
    return out


@pytest.mark.parametrize("reading", [{}, *READINGS["fibinet"]], ids=str)
@every_schema
def test_fibinet(schema: Schema, reading: dict[str, Any]) -> None:
    model = exact(build("fibinet", schema, {"embedding_size": 3, "hidden": [4], **reading}, seed=1))
    kind, ids, expected = reading.get("kind", "interaction"), random_ids(schema, 12), []
    for row in ids.tolist():
        e = embed(model.embedding.table, schema, row)
        copies = [e] if reading.get("excitation") == "none" else [e, reweighted(model, e)]
        c = [x for b, v in zip(model.bilinear, copies, strict=True) for x in bilinear(b.weight, kind, v)]
        expected.append(linear(model.linear, row) + times(model.out.weight, mlp(model.mlp, c))[0])
    torch.testing.assert_close(model(ids), torch.tensor(expected).double())


def test_senet_is_not_bounded_by_a_sigmoid() -> None:
    """Its last function is ReLU: a weight can be 0 and can exceed 1."""
    model = exact(build("fibinet", SCHEMAS["three-domains"], {}, seed=1))
    ones = torch.ones(1, 5, 10).double()
    for parameter in model.excite.parameters():
        nn.init.constant_(parameter, 2.0)
    assert (model.excite(ones) > 1).all()
    for parameter in model.excite.parameters():
        nn.init.constant_(parameter, -2.0)
    assert not model.excite(ones).any()
