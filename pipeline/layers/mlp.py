"""The multi-layer perceptron every deep model shares."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from pipeline.layers.pieces import at_once, by_hand, in_pieces
from pipeline.layers.product import Linear, product

Activation = Literal["relu", "tanh", "sigmoid"]
ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


def keep(like: Tensor, dropped: int) -> Tensor:
    """Draw a mask in the shape of `like`, False with probability `dropped` / 65536.

    It is cut from random 64-bit words, 16 bits a component: the same law as `nn.Dropout`'s mask with
    the probability rounded, in a third of the time on a CPU.
    """
    count = like.numel()
    words = torch.empty((count + 3) // 4, dtype=torch.int64, device=like.device).random_(-(2**63), None)
    return words.view(torch.int16)[:count].view(like.shape) >= dropped - 2**15


class Dropout(nn.Dropout):
    """`nn.Dropout`, on a CPU with the mask of `keep`."""

    @property
    def dropped(self) -> int:
        """The probability, in 65536ths."""
        return round(self.p * 2**16)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  as the parent names it
        if input.is_cuda or not self.training or self.p in (0, 1):
            return super().forward(input)
        return input * (keep(input, self.dropped) * (2**16 / (2**16 - self.dropped)))


class MLP(nn.Sequential):
    """Hidden layers, each linear -> (batch norm) -> activation -> dropout.

    Shapes: (B, inputs) -> (B, hidden[-1]), or (B, inputs) itself where `hidden` is empty.
    Weights start as Xavier uniform (Glorot and Bengio, 2010), biases at zero.
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
        self.dropout = dropout
        self._linear = tuple(layer for layer in layers if isinstance(layer, nn.Linear))
        self.plain_relu = bool(hidden) and activation == "relu" and not batch_norm and dropout < 1

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  as the parent names it
        """Apply the layers; in training a network of plain relu layers is one step of autograd."""
        if self._in_one(input):
            dropped = round(self.dropout * 2**16) if self.training else 0
            weights = [tensor for layer in self._linear for tensor in (layer.weight, layer.bias)]
            result: Tensor = _Relu.apply(input, dropped, *weights)  # type: ignore[no-untyped-call]
        else:
            result = super().forward(input)  # type: ignore[no-untyped-call]
        return result

    def after(self, function: Callable[[Tensor], Tensor], x: Tensor, numbers: int) -> Tensor:
        """Apply the layers to function(x), a function of rows that makes so many numbers of each.

        Where a batch of them is too large it goes from x to the first hidden layer in pieces of the
        batch: see `pieces.in_pieces`.
        """
        if at_once(x, numbers):
            return self(function(x))
        first, *rest = self or [nn.Identity()]
        h = in_pieces(lambda part: first(function(part)), x, numbers)
        for layer in rest:
            h = layer(h)
        return h

    def _in_one(self, x: Tensor) -> bool:
        return self.plain_relu and x.dim() == 2 and torch.is_grad_enabled() and by_hand(x)


class _Relu(torch.autograd.Function):
    """h <- dropout(relu(W h + b)), layer by layer, in place wherever no one else looks.

    What is dropped is zero, as is what relu cut off: so the outputs themselves are the mask that the
    backward pass needs, and no other is kept.
    """

    @staticmethod
    def forward(ctx: Any, h: Tensor, dropped: int, *weights: Tensor) -> Tensor:
        outputs = [h]
        ctx.scale = 2**16 / (2**16 - dropped)
        for w, b in zip(weights[::2], weights[1::2], strict=True):
            h = product(h, w, b).relu_()
            if dropped:
                h.mul_(keep(h, dropped) * ctx.scale)
            outputs.append(h)
        ctx.save_for_backward(*outputs, *weights[::2])
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        layers = len(ctx.saved_tensors) // 2
        outputs, weights = ctx.saved_tensors[: layers + 1], ctx.saved_tensors[layers + 1 :]
        found: list[Tensor | None] = []
        grad = torch.ops.aten.threshold_backward(grad, outputs[-1], 0)
        for k in reversed(range(layers)):
            if ctx.scale != 1:
                grad.mul_(ctx.scale)
            found[:0] = [product(grad.t(), outputs[k].t()), grad.sum(0)]
            if k:
                grad = product(grad, weights[k].t())
                torch.ops.aten.threshold_backward.grad_input(grad, outputs[k], 0, grad_input=grad)
        return (product(grad, weights[0].t()) if ctx.needs_input_grad[0] else None), None, *found


def dense(inputs: int, outputs: int, *, bias: bool = True) -> Linear:
    """A linear layer with Xavier uniform weights and zero bias."""
    layer = Linear(inputs, outputs, bias=bias)
    nn.init.xavier_uniform_(layer.weight)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer
