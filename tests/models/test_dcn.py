"""DCN against its equation."""

import torch
from loops import dot, embed, exact, flat, mlp
from rows import SCHEMAS, every_schema, random_ids

from pipeline.models import build
from pipeline.schema import Schema


@every_schema
def test_dcn(schema: Schema) -> None:
    chosen = {"embedding_size": 3, "cross_layers": 2, "hidden": [4, 3]}
    model, ids = exact(build("dcn", schema, chosen, seed=1)), random_ids(schema, 20)
    expected = []
    for row in ids.tolist():
        x0 = x = flat(embed(model.embedding.table, schema, row))
        for layer in model.cross:
            s, b = dot(x, layer.w.weight[0].tolist()), layer.b.tolist()
            x = [x0[i] * s + b[i] + x[i] for i in range(len(x))]
        both = x + mlp(model.mlp, x0)
        expected.append(dot(both, model.out.weight[0].tolist()) + model.out.bias.item())
    torch.testing.assert_close(model(ids), torch.tensor(expected).double())


def test_a_layer_has_a_vector_of_weights_not_a_matrix() -> None:
    schema = SCHEMAS["no-bags"]
    one, two = (build("dcn", schema, {"embedding_size": 3, "cross_layers": n}, seed=1) for n in (1, 2))
    width = 3 * len(schema.fields)
    weights = [sum(p.numel() for p in model.parameters()) for model in (one, two)]
    assert weights[1] - weights[0] == 2 * width  # w and b
