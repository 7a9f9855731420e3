"""Bilinear pairs against their loops."""

from itertools import combinations
from typing import Any

import pytest
import torch
from loops import exact
from torch import Tensor

from pipeline.layers.bilinear import Bilinear, BilinearKind, Bilinears

KINDS: list[BilinearKind] = ["all", "each", "interaction"]
every_kind = pytest.mark.parametrize("kind", KINDS)
every_size = pytest.mark.parametrize("fields", [2, 3, 6])


def matrix(layer: Bilinear, kind: BilinearKind, pair: int, left: int) -> list[list[float]]:
    """The matrix of one pair: the only one, that of its left field, or its own."""
    found: list[list[float]] = layer.weight[{"all": 0, "each": left, "interaction": pair}[kind]].tolist()
    return found


@every_size
@every_kind
def test_bilinear_is_its_loops(kind: BilinearKind, fields: int) -> None:
    """The left vector times W is a row: p_d = sum_c v_ic W_cd v_jd, no transpose of it."""
    layer, v = exact(Bilinear(fields, 3, kind=kind)), torch.randn(7, fields, 3).double()
    expected: list[Any] = []
    for row in v.tolist():
        expected.append([])
        for pair, (i, j) in enumerate(combinations(range(fields), 2)):
            w = matrix(layer, kind, pair, i)
            left = [sum(row[i][c] * w[c][d] for c in range(3)) for d in range(3)]
            expected[-1].append([x * y for x, y in zip(left, row[j], strict=True)])
    torch.testing.assert_close(layer(v), torch.tensor(expected).double())


def hadamard(v: Tensor) -> Tensor:
    return torch.stack([v[:, i] * v[:, j] for i, j in combinations(range(v.shape[1]), 2)], 1)


@every_size
@every_kind
def test_with_the_identity_it_is_the_hadamard_product(kind: BilinearKind, fields: int) -> None:
    layer, v = Bilinear(fields, 4, kind=kind), torch.randn(7, fields, 4)
    layer.weight.data[:] = torch.eye(4)
    torch.testing.assert_close(layer(v), hadamard(v))


@every_size
def test_with_equal_matrices_the_three_kinds_agree(fields: int) -> None:
    v, w = torch.randn(7, fields, 4), torch.randn(4, 4)
    layers = [Bilinear(fields, 4, kind=kind) for kind in KINDS]
    assert [len(layer.weight) for layer in layers] == [1, fields - 1, fields * (fields - 1) // 2]
    for layer in layers:
        layer.weight.data[:] = w
    for layer in layers[1:]:
        torch.testing.assert_close(layer(v), layers[0](v))


@every_kind
def test_layers_side_by_side_concatenate_their_pairs(kind: BilinearKind) -> None:
    layers = Bilinears(Bilinear(4, 3, kind=kind) for _ in range(2))
    fields = [torch.randn(7, 4, 3) for _ in layers]
    expected = torch.cat([layer(v) for layer, v in zip(layers, fields, strict=True)], 1)
    torch.testing.assert_close(layers(fields), expected)


@pytest.mark.slow
def test_a_layer_of_pairs_can_be_exported() -> None:
    layer, rows = Bilinear(4, 3), torch.export.Dim("rows", min=1, max=4096)
    exported = torch.export.export(layer, (torch.randn(5, 4, 3),), dynamic_shapes=({0: rows},))
    v = torch.randn(9, 4, 3)
    torch.testing.assert_close(exported.module()(v), layer(v))
