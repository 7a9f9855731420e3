"""AFN against its equations."""

import math
from typing import Any

import pytest
import torch
from loops import Matrix, Vector, embed, exact, flat, mlp, times
from rows import SCHEMAS, every_schema, random_ids
from torch import nn

from pipeline.models import build
from pipeline.models.afn import AFN
from pipeline.schema import Schema


def normed(layer: nn.BatchNorm1d, channel: int, x: float) -> float:
    """The running statistics stand in for the batch's (evaluation)."""
    sigma = math.sqrt(layer.running_var[channel].item() + layer.eps)
    mean, gain, bias = (part[channel].item() for part in (layer.running_mean, layer.weight, layer.bias))
    return gain * (x - mean) / sigma + bias


def logarithmic(model: AFN, e: Matrix) -> Matrix:
    ln_e = [
        [normed(model.norm_ln, i, math.log(max(abs(v), 1e-5))) if any(row) else 0.0 for v in row]
        for i, row in enumerate(e)
    ]
    y = []
    for j, w in enumerate(model.w.tolist()):
        sums = [sum(a * row[d] for a, row in zip(w, ln_e, strict=True)) for d in range(len(e[0]))]
        y.append([normed(model.norm_exp, j, math.exp(v)) for v in sums])
    return y


@every_schema
@pytest.mark.parametrize("deep", [[], [3]])
def test_afn(schema: Schema, deep: list[int]) -> None:
    chosen = {"embedding_size": 3, "neurons": 5, "deep": deep, "hidden": [4]}
    model, ids = exact(build("afn", schema, chosen, seed=1)), random_ids(schema, 10)
    for norm in (model.norm_ln, model.norm_exp):
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.5, 2)
    expected = []
    for row in ids.tolist():
        y: Vector = mlp(model.mlp, flat(logarithmic(model, embed(model.embedding.table, schema, row))))
        if deep:
            y = y + mlp(model.deep, flat(embed(model.deep_embedding.table, schema, row)))
        expected.append(times(model.out.weight, y)[0] + model.out.bias.item())
    torch.testing.assert_close(model(ids), torch.tensor(expected).double())


def test_weights_of_zero_and_one_give_the_product_of_the_chosen_fields() -> None:
    model = build("afn", SCHEMAS["no-bags"], {"embedding_size": 3, "neurons": 3}, seed=1).double()
    model.norm_ln = model.norm_exp = nn.Identity()
    with torch.no_grad():
        model.w.copy_(torch.tensor([[1, 1, 0, 0], [0, 1, 1, 1], [0, 0, 2, 0]]))
    e = torch.randn(6, 4, 3, dtype=torch.float64)
    a, b, c, d = e.abs().unbind(1)
    torch.testing.assert_close(model.neurons(e), torch.stack([a * b, b * c * d, c * c], 1))


def test_the_two_networks_of_afn_plus_share_no_embedding() -> None:
    model = build("afn", SCHEMAS["no-bags"], {"deep": [4]}, seed=1)
    assert model.deep_embedding.table is not model.embedding.table
    assert not torch.equal(model.deep_embedding.table, model.embedding.table)


def test_a_missing_value_neither_breaks_the_logarithm_nor_its_gradient() -> None:
    model = build("afn", SCHEMAS["two-domains"], {}, seed=1)
    model(torch.zeros(4, 6, dtype=torch.int32)).sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_an_unseen_id_is_as_the_mean_of_the_seen_ones_and_not_far_outside() -> None:
    """Its row is zero; ln of a tiny number would be many deviations from every logarithm seen."""
    model: Any = build("afn", SCHEMAS["no-bags"], {"embedding_std": 0.1, "neurons": 3}, seed=1).eval()
    seen: list[torch.Tensor] = []
    model.norm_exp.register_forward_pre_hook(lambda _, x: seen.append(x[0].log()))
    unseen = torch.tensor([list(SCHEMAS["no-bags"].offsets)])
    model(unseen)
    assert not seen[0].any(), "a product of ones"


def test_a_dropped_component_is_as_the_mean_of_all_and_not_a_tiny_number() -> None:
    options = {"embedding_std": 0.1, "embedding_dropout": 0.5, "neurons": 3}
    model: Any = build("afn", SCHEMAS["no-bags"], options, seed=1)
    model.norm_exp = nn.Identity()
    e = torch.full((40, 4, 10), 0.1) + 0.02 * torch.rand(40, 4, 10)
    with torch.no_grad():
        model.w.copy_(torch.eye(4)[:3])
    y = model.train().neurons(e).log()
    zero = y == 0
    assert 0.4 < zero.float().mean() < 0.6
    assert y[~zero].abs().max() < 2 * 3, "a normalised logarithm, doubled"
