"""NFM against its equations."""

import math

import pytest
import torch
from loops import Matrix, Vector, exact, linear, mlp, product, times, values
from rows import SCHEMAS, every_schema, random_ids
from torch import nn

from pipeline.models import build
from pipeline.schema import Schema


def pair_vector(vectors: Matrix, size: int) -> Vector:
    """f_BI: the sum of v_i * v_j over all pairs, those inside a bag too."""
    total = [0.0] * size
    for j, b in enumerate(vectors):
        for a in vectors[:j]:
            total = [t + x for t, x in zip(total, product([a, b]), strict=True)]
    return total


@every_schema
@pytest.mark.parametrize("hidden", [[4, 3], []], ids=str)
def test_nfm(schema: Schema, hidden: list[int]) -> None:
    chosen = {"embedding_size": 3, "hidden": hidden, "activation": "tanh"}
    model, ids = exact(build("nfm", schema, chosen, seed=1)), random_ids(schema, 20)
    expected = []
    for row in ids.tolist():
        f_bi = pair_vector(values(model.embedding.table, row), 3)
        deep = times(model.p.weight, mlp(model.mlp, f_bi, math.tanh))[0]
        expected.append(linear(model.linear, row) + deep)
    torch.testing.assert_close(model(ids), torch.tensor(expected).double())


@every_schema
def test_without_hidden_layers_and_with_ones_it_is_fm(schema: Schema) -> None:
    model = exact(build("nfm", schema, {"embedding_size": 3, "hidden": []}, seed=1))
    fm = build("fm", schema, {"embedding_size": 3}, seed=1).double()
    fm.load_state_dict({key: value for key, value in model.state_dict().items() if key != "p.weight"})
    nn.init.ones_(model.p.weight)
    ids = random_ids(schema, 20)
    torch.testing.assert_close(model(ids), fm(ids))


def test_the_network_reads_a_vector_of_pairs_and_not_the_embeddings() -> None:
    """FM beside a network on the embeddings would be DeepFM."""
    model = exact(build("nfm", SCHEMAS["no-bags"], {"embedding_size": 3, "hidden": [5]}, seed=1))
    assert model.mlp[0].in_features == 3
    ids = random_ids(SCHEMAS["no-bags"], 6)
    plain = model(ids) - model.linear(ids)
    model.embedding.table.data.neg_()  # a pair has two factors: the signs cancel
    torch.testing.assert_close(model(ids) - model.linear(ids), plain)


def test_batch_norm_and_dropout_act_on_the_pairs() -> None:
    schema = SCHEMAS["no-bags"]
    chosen = {"embedding_size": 3, "hidden": [], "batch_norm": True, "interaction_dropout": 0.5}
    model, ids = exact(build("nfm", schema, chosen, seed=1)), random_ids(schema, 400)
    f_bi = torch.tensor([pair_vector(values(model.embedding.table, row), 3) for row in ids.tolist()]).double()
    normal = (f_bi - f_bi.mean(0)) / (f_bi.var(0, unbiased=False) + model.norm.eps).sqrt()
    normal = normal * model.norm.weight + model.norm.bias
    seen: list[torch.Tensor] = []
    model.mlp.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.train()(ids)
    kept = seen[0] != 0
    torch.testing.assert_close(seen[0][kept], 2 * normal[kept])
    assert kept.double().mean().item() == pytest.approx(0.5, abs=0.07)
