"""FinalNet's layer of linear and quadratic terms, and the gates of its fields.

Source: Zhu et al., "FINAL", SIGIR 2023, https://doi.org/10.1145/3539618.3591988.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.layers.mechanism import Mechanism
from pipeline.layers.mlp import ACTIVATIONS, Activation, dense

Merge = Literal["sum", "concat"]


class FactorizedInteraction(nn.Module):
    """h_1 + h_1 * sigma(W_2 x + b_2), or both terms side by side: (B, inputs) -> (B, width)."""

    def __init__(self, inputs: int, width: int, *, merge: Merge, activation: Activation | None) -> None:
        if merge == "concat" and width % 2:
            raise ValueError(f"merge concat halves every width of hidden: {width} is odd, take an even one")
        super().__init__()
        self.merge = merge
        size = width if merge == "sum" else width // 2
        self.w1, self.w2 = dense(inputs, size), dense(inputs, size)
        self.sigma = ACTIVATIONS[activation]() if activation else nn.Identity()

    def forward(self, x: Float[Tensor, "B W"]) -> Float[Tensor, "B H"]:
        h1 = self.w1(x)
        h2 = h1 * self.sigma(self.w2(x))
        return h1 + h2 if self.merge == "sum" else torch.cat([h1, h2], 1)


class FieldGates(nn.Module):
    """concat[E, g * E] with g = W E + b over the field axis: (B, F, D) -> (B, 2 F, D)."""

    def __init__(self, fields: int) -> None:
        super().__init__()
        self.w = nn.Linear(fields, fields)
        nn.init.zeros_(self.w.weight)
        nn.init.ones_(self.w.bias)
        self.g = Mechanism("gate", 1.0)

    def forward(self, e: Float[Tensor, "B F D"]) -> Float[Tensor, "B N D"]:
        return torch.cat([e, e * self.g(self.w(e.transpose(1, 2)).transpose(1, 2))], 1)
