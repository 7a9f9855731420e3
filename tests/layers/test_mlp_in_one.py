"""A network of plain relu layers in one step of autograd, against its layers one by one."""

import pytest
import torch
from torch import Tensor, nn

from pipeline.layers.mlp import MLP


def gradients(mlp: MLP, x: Tensor, forward: object, seed: int) -> list[Tensor]:
    x = x.detach().requires_grad_()
    torch.manual_seed(seed)
    y = forward(x)  # type: ignore[operator]
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    return [y.detach(), *torch.autograd.grad((y * weights).sum(), [x, *mlp.parameters()])]


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("batch", [1, 33])
@pytest.mark.parametrize("hidden", [[7], [7, 5, 6]])
def test_in_one_is_layer_by_layer(dropout: float, training: bool, batch: int, hidden: list[int]) -> None:
    torch.manual_seed(3)
    mlp = MLP(4, hidden, dropout=dropout).double().train(training)
    for p in mlp.parameters():
        nn.init.normal_(p)
    x = torch.randn(batch, 4, dtype=torch.float64)
    assert mlp._in_one(x)
    ours = gradients(mlp, x, mlp, 5)
    plain = gradients(mlp, x, lambda x: nn.Sequential.forward(mlp, x), 5)
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)  # the layers' mask is float32
    assert any(a.any() for a in ours[1:]) or (dropout and batch == 1), "all may be dropped of one row"


def test_the_input_and_its_gradient_are_left_as_they_were() -> None:
    mlp = MLP(4, [5, 3])
    x, grad = torch.randn(6, 4, requires_grad=True), torch.randn(6, 3)
    before, handed = x.detach().clone(), grad.clone()
    mlp(x).backward(grad)
    assert torch.equal(x, before)
    assert torch.equal(grad, handed)


@pytest.mark.parametrize("options", [{"batch_norm": True}, {"activation": "tanh"}])
def test_other_networks_go_layer_by_layer(options: dict[str, object]) -> None:
    assert not MLP(4, [5], **options)._in_one(torch.randn(2, 4))  # type: ignore[arg-type]
    assert not MLP(4, [5])._in_one(torch.randn(2, 3, 4)), "a network over the last axis of three"
    with torch.no_grad():
        assert not MLP(4, [5])._in_one(torch.randn(2, 4))
