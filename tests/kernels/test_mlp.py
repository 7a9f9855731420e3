"""The kernel looks at the layers that a network really has."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pipeline.kernels.mlp import mlp
from pipeline.layers.accelerated import off
from pipeline.layers.mlp import MLP, Dropout, Linear


class Residual(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + x.square()


class Doubled(Linear):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  as the parent names it
        return 2 * super().forward(input)


def with_hook(network: MLP) -> None:
    network[0].register_forward_hook(lambda layer, inputs, output: 2 * output)


CHANGES: dict[str, Callable[[MLP], object]] = {
    "a layer norm": lambda network: network.insert(1, nn.LayerNorm(5)),
    "a residual": lambda network: network.append(Residual()),
    "three more layers": lambda network: network.extend([nn.LayerNorm(5), nn.ReLU(), Dropout(0.0)]),
    "another activation": lambda network: network.__setitem__(4, nn.GELU()),
    "another linear layer": lambda network: network.__setitem__(3, Doubled(5, 5)),
    "no bias": lambda network: network.__setitem__(3, Linear(5, 5, bias=False)),
    "weight norm": lambda network: nn.utils.parametrizations.weight_norm(network[0]),
    "a hook": with_hook,
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_network_with_any_other_layer_trains_and_scores_as_it_is(change: str) -> None:
    network, x = MLP(4, [5, 5]), torch.randn(7, 4)
    CHANGES[change](network)
    for p in network.parameters():
        nn.init.normal_(p)
    assert mlp(network, x) is NotImplemented
    with off():
        expected = network(x)
    torch.testing.assert_close(network(x), expected)
    with torch.no_grad():
        torch.testing.assert_close(network(x), expected)


def test_a_relu_network_of_two_axes_in_training_has_the_kernel() -> None:
    network, x = MLP(4, [5]), torch.randn(2, 4)
    assert mlp(network, x) is not NotImplemented
    assert mlp(network, x.unsqueeze(1)) is NotImplemented, "a network over the last axis of three"
    assert mlp(MLP(4, [5], batch_norm=True), x) is NotImplemented
    assert mlp(MLP(4, [5], activation="tanh"), x) is NotImplemented
    assert mlp(MLP(4, [5], dropout=1.0), x) is NotImplemented
    assert mlp(MLP(4, []), x) is NotImplemented
    with torch.no_grad():
        assert mlp(network, x) is NotImplemented


def test_a_layer_may_have_a_dropout_of_its_own() -> None:
    network = MLP(4, [50, 50], dropout=0.5)
    network[2].p = 0.0
    network[5].eval()
    x = torch.randn(7, 4)
    result = mlp(network, x)
    assert result is not NotImplemented
    torch.testing.assert_close(result, network.eval()(x))
