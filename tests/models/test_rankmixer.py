"""RankMixer against its equations."""

import math

import pytest
import torch
from loops import Matrix, Vector, dot, embed, exact, flat, mean, normed, times
from rows import every_schema, random_ids

from pipeline.models import build
from pipeline.models.rankmixer import PerToken, mix
from pipeline.schema import Schema


def plus(x: Vector, y: Vector) -> Vector:
    return [a + b for a, b in zip(x, y, strict=True)]


def per_token(layer: PerToken, x: Matrix) -> Matrix:
    layers = zip(layer.weight, layer.bias.tolist(), x, strict=True)
    return [plus(times(weight.T, token), bias) for weight, bias, token in layers]


def gelu(x: float) -> float:
    return x * (1 + math.erf(x / math.sqrt(2))) / 2


def mixed(x: Matrix) -> Matrix:
    size = len(x[0]) // len(x)
    return [[v for token in x for v in token[h * size : (h + 1) * size]] for h in range(len(x))]


@every_schema
@pytest.mark.parametrize("tokens", [1, 3])
def test_rankmixer(schema: Schema, tokens: int) -> None:
    """With three tokens of vectors of size 4, zeros fill the last part in some of the schemas."""
    chosen = {"embedding_size": 4, "tokens": tokens, "head_size": 2, "expansion": 2, "layers": 2}
    model, ids = exact(build("rankmixer", schema, chosen, seed=1)), random_ids(schema, 10)
    expected = []
    for row in ids.tolist():
        e = embed(model.embedding.table, schema, row)
        values = flat([e[field] for domain in schema.domains for field in domain])
        part = math.ceil(len(values) / tokens)
        values += [0.0] * (tokens * part - len(values))
        x = per_token(model.tokenize, [values[t * part : (t + 1) * part] for t in range(tokens)])
        for block in model.blocks:
            s = [normed(block.ln_mix, plus(a, b)) for a, b in zip(mixed(x), x, strict=True)]
            wide = [[gelu(v) for v in token] for token in per_token(block.pffn[0], s)]
            x = [normed(block.ln, plus(a, b)) for a, b in zip(per_token(block.pffn[2], wide), s, strict=True)]
        pooled = [mean(list(column)) for column in zip(*x, strict=True)]
        expected.append(dot(model.out.weight[0].tolist(), pooled) + model.out.bias.item())
    torch.testing.assert_close(model(ids), torch.tensor(expected).double())


def test_mixing_gives_each_token_one_head_of_every_token() -> None:
    x = torch.arange(16.0).reshape(1, 2, 8)  # two tokens of two heads
    assert mix(x).tolist() == [[[0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15]]]
    torch.testing.assert_close(mix(mix(x)), x)
