"""MaskNet against its equations."""

import pytest
import torch
from loops import Matrix, Vector, embed, exact, flat, mlp, normed, relu, times
from rows import SCHEMAS, every_schema, random_ids
from torch import nn

from pipeline.models import build
from pipeline.models.masknet import MaskBlock
from pipeline.schema import Schema


def affine(layer: nn.Linear, x: Vector) -> Vector:
    return [v + b for v, b in zip(times(layer.weight, x), layer.bias.tolist(), strict=True)]


def masked(block: MaskBlock, v_emb: Vector, v_in: Vector) -> Vector:
    inner, _, outer = block.mask
    mask = affine(outer, [relu(v) for v in affine(inner, v_emb)])
    product = [m * v for m, v in zip(mask, v_in, strict=True)]
    return [relu(v) for v in normed(block.ln, times(block.w.weight, product))]


@every_schema
@pytest.mark.parametrize("hidden", [[], [4, 3]])
@pytest.mark.parametrize("structure", ["serial", "parallel"])
def test_masknet(schema: Schema, structure: str, hidden: list[int]) -> None:
    chosen = {"embedding_size": 3, "structure": structure, "block_size": 4, "hidden": hidden}
    model, ids = exact(build("masknet", schema, chosen, seed=1)), random_ids(schema, 10)
    expected = []
    for row in ids.tolist():
        e: Matrix = embed(model.embedding.table, schema, row)
        v_emb, ln_emb = flat(e), flat([normed(model.ln_emb, vector) for vector in e])
        if structure == "serial":
            v = ln_emb
            for block in model.blocks:
                v = masked(block, v_emb, v)
        else:
            v = flat([masked(block, v_emb, ln_emb) for block in model.blocks])
        expected.append(affine(model.out, mlp(model.mlp, v))[0])
    torch.testing.assert_close(model(ids), torch.tensor(expected).double())


def test_the_mask_is_wider_than_what_it_masks() -> None:
    """Reduction ratio r = t / z (section 3.2): the aggregation layer is r times the projection layer."""
    model = build("masknet", SCHEMAS["no-bags"], {"embedding_size": 5, "structure": "serial"}, seed=1)
    widths = [(block.mask[0].out_features, block.mask[2].out_features) for block in model.blocks]
    assert widths == [(40, 20), (64, 32), (64, 32)]


def test_every_mask_is_guided_by_the_raw_embedding() -> None:
    """In a later block, too, the mask reads V_emb, not the block before (section 3.3)."""
    model = exact(build("masknet", SCHEMAS["no-bags"], {"structure": "serial", "embedding_size": 4}, seed=1))
    seen = []
    for block in model.blocks:
        block.mask.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    ids = random_ids(SCHEMAS["no-bags"], 3)
    model(ids)
    assert len(seen) == 3
    assert all(torch.equal(v_emb, model.embedding(ids).flatten(1)) for v_emb in seen)
