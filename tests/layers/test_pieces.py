"""Mechanisms that go through a batch in pieces, with gradients written by hand, against plain operations."""

from typing import Any

import pytest
import torch
from loops import exact
from rows import SCHEMAS, random_ids
from torch import Tensor, nn

from pipeline.layers import attention, compress, pieces, product
from pipeline.layers.attention import Interacting, interact
from pipeline.layers.pieces import by_hand, contract, in_pieces
from pipeline.models import build


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of a few rows, so that a small batch has several, and the last one is shorter."""
    monkeypatch.setattr(attention, "ROWS", 3)
    monkeypatch.setattr(pieces, "NUMBERS", 1)
    monkeypatch.setattr(pieces, "MANY", 1)
    monkeypatch.setattr(compress, "LEAST", 6)
    monkeypatch.setattr(compress, "NUMBERS", 1)


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


class Times(nn.Module):
    """In the place of dropout, with a mask that is known."""

    def __init__(self, mask: Tensor | int) -> None:
        super().__init__()
        self.mask = mask

    def forward(self, a: Tensor) -> Tensor:
        return a * self.mask


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("rows", [1, 3, 7])
@pytest.mark.parametrize("whole", [False, True], ids=["term by term", "whole products"])
@pytest.mark.parametrize("dropped", [False, True])
@pytest.mark.parametrize(("heads", "size", "fields"), [(1, 1, 1), (2, 3, 4)])
def test_attention_and_its_gradient(
    rows: int, whole: bool, dropped: bool, heads: int, size: int, fields: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "NUMBERS", 10**6 if whole else 1)
    inputs = [5, heads * size]
    layers = [Interacting(w, size, heads, scaling=w == 5, dropout=0.5).double() for w in inputs]
    keeps = [(torch.rand(heads, fields, fields, rows) < 0.5).double() * 2 if dropped else None] * 2
    monkeypatch.setattr(attention, "masks", lambda *_: keeps)
    for layer, keep in zip(layers, keeps, strict=True):
        layer.dropout = Times(1 if keep is None else keep.permute(3, 0, 1, 2))
    e = random(rows, fields, 5)
    torch.testing.assert_close(interact(layers, e), layers[1](layers[0](e)))
    weights = [part.weight for layer in layers for part in layer.projections]
    assert torch.autograd.gradcheck(lambda e, *_: interact(layers, e), (e, *weights))
    with torch.no_grad():
        torch.testing.assert_close(interact(layers, e), layers[1](layers[0](e)))


def channels(e: Tensor, weights: list[Tensor], *, split_half: bool, relu: bool) -> Tensor:
    """X^k_h = sum_{i,j} W^k_hij (X^{k-1}_i * X^0_j), summed over d."""
    x, sums = e, []
    for k, w in enumerate(weights):
        x = torch.einsum("khf,bhd,bfd->bkd", w.unflatten(1, (-1, e.shape[1])), x, e)
        x = x.relu() if relu else x
        half = len(w) // 2 if split_half and k < len(weights) - 1 else 0
        sums.append(x[:, half:].sum(2))
        x = x[:, : half or len(w)]
    return torch.cat(sums, 1)


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("rows", [1, 2, 7])
@pytest.mark.parametrize("sizes", [[3], [4, 3], [2, 6, 5]], ids=str)
@pytest.mark.parametrize("fields", [1, 4])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("split_half", [False, True])
def test_compressed_products_and_their_gradients(
    split_half: bool, relu: bool, fields: int, sizes: list[int], rows: int
) -> None:
    torch.manual_seed(1)
    on = [fields, *(size // 2 if split_half else size for size in sizes)]
    weights = [random(size, h * fields) for size, h in zip(sizes, on, strict=False)]
    e = random(rows, fields, 3)

    def fast(e: Tensor, *weights: Tensor) -> Tensor:
        return compress.compress(e, weights, split_half=split_half, relu=relu)

    expected = channels(e, weights, split_half=split_half, relu=relu)
    torch.testing.assert_close(fast(e, *weights), expected)
    with torch.no_grad():
        torch.testing.assert_close(fast(e, *weights), expected)
    assert torch.autograd.gradcheck(fast, (e, *weights))


@pytest.mark.parametrize("relu", [False, True])
def test_large_products_of_channels_are_the_plain_ones(relu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32, of sizes where the other library multiplies, in several pieces."""
    torch.manual_seed(1)
    monkeypatch.setattr(compress, "NUMBERS", 2**17)
    weights = [torch.randn(64, 49) / 5, torch.randn(64, 7 * 32) / 9]
    e, results = torch.randn(100, 7, 16), []
    assert product.LEAST < 64 * 2**17
    for hand in (True, False):
        monkeypatch.setattr(compress, "by_hand", lambda _, hand=hand: hand)
        inputs = [t.clone().requires_grad_() for t in (e, *weights)]
        sums = compress.compress(inputs[0], inputs[1:], split_half=True, relu=relu)
        results.append([sums, *torch.autograd.grad(sums.sin().sum(), inputs)])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def test_no_rows_have_no_channels() -> None:
    weights = [torch.randn(4, 9), torch.randn(2, 12)]
    assert compress.compress(torch.randn(0, 3, 5), weights, split_half=False, relu=True).shape == (0, 6)


@pytest.mark.parametrize("given", [False, True])
def test_contract_is_the_sum_of_the_product(given: bool) -> None:
    x, y, total = torch.randn(4, 1, 5), torch.randn(4, 3, 5), torch.randn(3, 5)
    expected = (x * y).sum(0) + (total if given else 0)
    torch.testing.assert_close(contract(x, y, 0, total.clone() if given else None), expected)


CASES: list[tuple[str, dict[str, Any]]] = [
    ("autoint", {"attention_size": 3, "heads": 2, "scaling": True}),
    ("xdeepfm", {"cin": [4, 6, 3], "split_half": True}),
    ("xdeepfm", {"cin": [4, 3], "cin_activation": "relu"}),
    ("fiinet", {"hidden": [4]}),
    ("fiinet", {"hidden": [], "fusion": "align"}),
]
every_case = pytest.mark.parametrize(("name", "chosen"), CASES, ids=str)


@pytest.mark.usefixtures("tiny")
@every_case
def test_a_model_in_pieces_is_the_model(name: str, chosen: dict[str, Any], monkeypatch: Any) -> None:
    """Logits and gradients of the plain operations, which are also what export and GPUs get."""
    schema = SCHEMAS["no-bags"]
    model, ids = exact(build(name, schema, {"embedding_size": 3, **chosen}, seed=1)), random_ids(schema, 11)
    weight = torch.randn(11).double()
    found = []
    for hand in (True, False):
        if not hand:
            for module in ("attention", "compress", "pieces"):
                monkeypatch.setattr(f"pipeline.layers.{module}.by_hand", lambda _: False)
        logit = model(ids)
        found.append([logit, *torch.autograd.grad(logit @ weight, list(model.parameters()))])
        with torch.inference_mode():
            torch.testing.assert_close(model(ids), logit.detach())
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


@every_case
def test_a_model_of_pieces_can_be_exported(name: str, chosen: dict[str, Any]) -> None:
    schema = SCHEMAS["no-bags"]
    model = exact(build(name, schema, {"embedding_size": 3, **chosen}, seed=1))
    rows = torch.export.Dim("rows", min=1, max=4096)
    exported = torch.export.export(model, (random_ids(schema, 5),), dynamic_shapes=({0: rows},))
    ids = random_ids(schema, 9)
    torch.testing.assert_close(exported.module()(ids), model(ids))


def test_autocast_takes_the_plain_way() -> None:
    schema = SCHEMAS["no-bags"]
    model, ids = build("autoint", schema, {"attention_size": 3}, seed=1), random_ids(schema, 5)
    with torch.autocast("cpu", torch.bfloat16):
        assert not by_hand(torch.zeros(1))
        assert model(ids).isfinite().all()


def test_dropout_of_attention_keeps_the_mean_on_few_fields_too() -> None:
    layer, row = Interacting(3, 4, 2, scaling=False, dropout=0.5), torch.rand(1, 2, 3)
    for part in (layer.value, layer.residual):
        nn.init.constant_(part.weight, 0.2)  # above zero, where the ReLU is linear
    dropped = interact([layer], row.expand(20_000, 2, 3))
    assert dropped.std(0).min() > 0.01
    expected = interact([layer.eval()], row)
    torch.testing.assert_close(dropped.mean(0, keepdim=True), expected, rtol=0.02, atol=0)
    torch.testing.assert_close(expected, layer(row))


def test_the_size_of_a_piece_changes_nothing() -> None:
    x = random(10, 3)
    whole = x.square().sum(1)
    torch.testing.assert_close(in_pieces(lambda part: part.square().sum(1), x, pieces.MANY // 3), whole)
