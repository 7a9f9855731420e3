"""FmFM against its sum over pairs of fields."""

from itertools import combinations

import torch
from loops import dot, embed, exact, linear, times
from rows import SCHEMAS, every_schema, random_ids

from pipeline.layers.pairs import bi_interaction
from pipeline.models import build
from pipeline.schema import Schema


@every_schema
def test_fmfm(schema: Schema) -> None:
    """<v_i M, v_j> with i before j: M acts on the earlier field, from the right."""
    model, ids = exact(build("fmfm", schema, {"embedding_size": 3}, seed=1)), random_ids(schema, 20)
    expected = []
    for row in ids.tolist():
        e = embed(model.embedding.table, schema, row)
        pairs = sum(dot(times(m.T, a), b) for m, (a, b) in zip(model.matrix, combinations(e, 2), strict=True))
        expected.append(linear(model.linear, row) + pairs)
    torch.testing.assert_close(model(ids), torch.tensor(expected).double())


@every_schema
def test_it_starts_as_an_fm_on_fields(schema: Schema) -> None:
    model, ids = build("fmfm", schema, {}, seed=1).double(), random_ids(schema, 20)
    fm = model.linear(ids) + bi_interaction(model.embedding(ids)).sum(1)
    torch.testing.assert_close(model(ids), fm)


@every_schema
def test_with_multiples_of_the_identity_it_is_fwfm(schema: Schema) -> None:
    fwfm = exact(build("fwfm", schema, {"embedding_size": 3, "linear": "lw"}, seed=1))
    fmfm = exact(build("fmfm", schema, {"embedding_size": 3}, seed=2))
    fmfm.embedding.load_state_dict(fwfm.embedding.state_dict())
    fmfm.linear.load_state_dict(fwfm.linear.state_dict())
    fmfm.matrix.data = fwfm.r.data[:, None, None] * torch.eye(3).double()
    ids = random_ids(schema, 20)
    torch.testing.assert_close(fmfm(ids), fwfm(ids))


def test_each_pair_has_a_matrix_of_its_own() -> None:
    model = build("fmfm", SCHEMAS["no-bags"], {"embedding_size": 3}, seed=1)
    assert model.matrix.shape == (6, 3, 3)
