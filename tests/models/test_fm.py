"""FM against its double sum."""

import torch
from loops import exact, linear, pairs, values
from rows import SCHEMAS, every_schema, random_ids

from pipeline.models import build
from pipeline.schema import Schema


@every_schema
def test_fm_pairs_all_values_those_inside_a_bag_too(schema: Schema) -> None:
    model, ids = exact(build("fm", schema, {"embedding_size": 3}, seed=1)), random_ids(schema, 20)
    expected = [linear(model.linear, row) + pairs(values(model.embedding.table, row)) for row in ids.tolist()]
    torch.testing.assert_close(model(ids), torch.tensor(expected).double())


def test_weights_that_were_saved_keep_their_names() -> None:
    names = build("fm", SCHEMAS["two-domains"], {}, seed=1).state_dict().keys()
    assert names == {"linear.bias", "linear.table", "embedding.table", "base_logit"}
