"""The multi-layer perceptron every deep model shares."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from pipeline.layers.accelerated import accelerated

Activation = Literal["relu", "tanh", "sigmoid"]
ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


class MLP(nn.Sequential):
    """Hidden layers, each linear -> (batch norm) -> activation -> dropout.

    Shapes: (B, inputs) -> (B, hidden[-1]), or (B, inputs) unchanged if `hidden` is empty.
    Weights are initialised Xavier uniform (Glorot and Bengio, 2010), biases at zero.
    """

    def __init__(
        self,
        inputs: int,
        hidden: Sequence[int],
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

    # the kernel declines layers that it does not know, and cannot see a change of this body
    @accelerated("mlp")
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  as the parent names it
        return super().forward(input)  # type: ignore[no-untyped-call]


class Dropout(nn.Dropout):
    """`nn.Dropout`, on a CPU with the mask of `dropout_mask`."""

    @property
    def threshold16(self) -> int:
        """The probability in units of 2^-16."""
        return round(self.p * 2**16)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  as the parent names it
        if input.is_cuda or not self.training or self.p in (0, 1):
            return super().forward(input)
        return input * (dropout_mask(input, self.threshold16) * (2**16 / (2**16 - self.threshold16)))


def dropout_mask(like: Tensor, threshold16: int) -> Tensor:
    """Draw a mask in the shape of `like`, False with probability `threshold16` / 65536.

    It consists of random 64-bit words, 16 bits for each element: the same distribution as `nn.Dropout`'s mask
    with the probability rounded, in a third of the time on a CPU.
    """
    count = like.numel()
    words = torch.empty((count + 3) // 4, dtype=torch.int64, device=like.device).random_(-(2**63), None)
    return words.view(torch.int16)[:count].view(like.shape) >= threshold16 - 2**15


class Linear(nn.Linear):
    """`nn.Linear`."""

    @accelerated("product")
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  as the parent names it
        return super().forward(input)


def dense(inputs: int, outputs: int, *, bias: bool = True) -> Linear:
    """Return a linear layer with Xavier uniform weights and zero bias."""
    layer = Linear(inputs, outputs, bias=bias)
    nn.init.xavier_uniform_(layer.weight)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer
