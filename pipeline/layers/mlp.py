"""The multi-layer perceptron every deep model shares."""

from typing import Literal

import torch
from torch import Tensor, nn

Activation = Literal["relu", "tanh", "sigmoid"]
ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


class Dropout(nn.Dropout):
    """`nn.Dropout`; on a CPU its mask is cut from random 64-bit words, 16 bits a component.

    The same law, with the probability rounded to 1 / 65536, in a third of the time.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  as the parent names it
        if input.is_cuda or not self.training or self.p in (0, 1):
            return super().forward(input)
        dropped, count = round(self.p * 2**16), input.numel()
        words = torch.empty((count + 3) // 4, dtype=torch.int64, device=input.device).random_(-(2**63), None)
        bits = words.view(torch.int16)[:count].view(input.shape)
        return input * ((bits >= dropped - 2**15) * (2**16 / (2**16 - dropped)))


class MLP(nn.Sequential):
    """Hidden layers, each linear -> (batch norm) -> activation -> dropout.

    Shapes: (B, inputs) -> (B, hidden[-1]), or (B, inputs) itself where `hidden` is empty.
    Weights start as Xavier uniform (Glorot and Bengio, 2010), biases at zero.
    """

    def __init__(
        self,
        inputs: int,
        hidden: list[int],
        *,
        dropout: float = 0.0,
        batch_norm: bool = False,
        activation: Activation = "relu",
    ) -> None:
        layers: list[nn.Module] = []
        for width in hidden:
            layers.append(dense(inputs, width))
            if batch_norm:
                layers.append(nn.BatchNorm1d(width))
            layers += [ACTIVATIONS[activation](), Dropout(dropout)]
            inputs = width
        super().__init__(*layers)
        self.outputs = inputs


def dense(inputs: int, outputs: int, *, bias: bool = True) -> nn.Linear:
    """A linear layer with Xavier uniform weights and zero bias."""
    layer = nn.Linear(inputs, outputs, bias=bias)
    nn.init.xavier_uniform_(layer.weight)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer
