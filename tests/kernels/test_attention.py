"""Attention with its dropout, whose masks the kernel draws in another order than the layers."""

import pytest
import torch
from torch import Tensor, nn

from pipeline.kernels import attention
from pipeline.layers.accelerated import off
from pipeline.layers.attention import Interacting, InteractingLayers


class Times(nn.Module):
    """In the place of dropout, with a mask that is known."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.mask = mask

    def forward(self, a: Tensor) -> Tensor:
        return a * self.mask


@pytest.mark.parametrize("rows", [1, 3, 7])
@pytest.mark.parametrize("whole", [False, True], ids=["slice by slice", "whole products"])
@pytest.mark.parametrize(("heads", "size", "fields"), [(1, 1, 1), (2, 3, 4)])
def test_attention_with_a_known_mask_and_its_gradient(
    rows: int, whole: bool, heads: int, size: int, fields: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "CHUNK_ROWS", 3)
    monkeypatch.setattr(attention, "CHUNK_ELEMENTS", 10**6 if whole else 1)
    layers = [Interacting(w, size, heads, scaling=w == 5, dropout=0.5).double() for w in (5, heads * size)]
    masks = [(torch.rand(heads, fields, fields, rows) < 0.5).double() * 2 for _ in layers]
    monkeypatch.setattr(attention, "dropout_masks", lambda *_: masks)
    for layer, mask in zip(layers, masks, strict=True):
        layer.dropout = Times(mask.permute(3, 0, 1, 2))
    stack = InteractingLayers(*layers)
    e = torch.randn(rows, fields, 5, dtype=torch.float64, requires_grad=True)
    inputs = [e, *stack.parameters()]
    weight = torch.randn(rows, fields, heads * size).double()
    ours = stack(e)
    with off():
        plain = stack(e)
    torch.testing.assert_close(ours, plain)
    with torch.no_grad():
        torch.testing.assert_close(stack(e), plain)
    grads = [torch.autograd.grad(result, inputs, weight) for result in (ours, plain)]
    torch.testing.assert_close(*grads)


def test_dropout_of_attention_keeps_the_mean_on_few_fields_too() -> None:
    layer, row = Interacting(3, 4, 2, scaling=False, dropout=0.5), torch.rand(1, 2, 3)
    for projection in (layer.value, layer.residual):
        nn.init.constant_(projection.weight, 0.2)  # above zero, where the ReLU is linear
    stack = InteractingLayers(layer)
    dropped = stack(row.expand(20_000, 2, 3))
    assert dropped.std(0).min() > 0.01
    expected = stack.eval()(row)
    torch.testing.assert_close(dropped.mean(0, keepdim=True), expected, rtol=0.02, atol=0)
    torch.testing.assert_close(expected, layer(row))


def test_many_fields_or_layers_that_differ_have_no_kernel() -> None:
    def interacting(inputs: int, size: int, heads: int) -> Interacting:
        return Interacting(inputs, size, heads, scaling=False, dropout=0.0)

    few, many = torch.randn(2, 5, 8), torch.randn(2, 25, 8)
    assert attention.interactinglayers(InteractingLayers(interacting(8, 4, 2)), few) is not NotImplemented
    for layers, e in [
        ([interacting(8, 4, 2)], many),
        ([interacting(8, 4, 2), interacting(8, 8, 1)], few),
        ([interacting(8, 4, 2), nn.Identity()], few),
        ([], few),
    ]:
        assert attention.interactinglayers(InteractingLayers(*layers), e) is NotImplemented
