"""FinalNet: layers whose output has a linear and a quadratic term in their input.

Paper: Zhu et al., "FINAL: Factorized Interaction Layer for CTR Prediction", SIGIR 2023,
https://doi.org/10.1145/3539618.3591988.

Equation: h_1 = W_1 x + b_1, h_2 = h_1 * sigma(W_2 x + b_2), x <- h_1 + h_2 per layer, so that the degree
doubles with each; logit = w . x + b (1B), or the mean of two such blocks' logits (2B).

Shapes: ids (B, S) -> x (B, F * D) -> (B, H) per layer -> logit (B,).

Differs from the paper: the two blocks of 2B are trained on their mean alone; the paper's self-distillation
loss belongs to training and is omitted. sigma is `activation`; `none`, as in the authors' code, gives a plain
product. `merge` `concat` concatenates h_1 and h_2 at half the width, as that code does. `gating` reweights
the fields before the first block, x = concat[E, g * E] with g = W E + b over the field axis, initialised at
g = 1. Both blocks have the widths `hidden`.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers.mlp import ACTIVATIONS, Activation, Dropout, dense
from pipeline.layers.options import Count, Embed, Probability
from pipeline.schema import Schema

Merge = Literal["sum", "concat"]


class FactorizedInteraction(nn.Module):
    """h_1 + h_1 * sigma(W_2 x + b_2), or both side by side: (B, inputs) -> (B, width)."""

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

    def forward(self, e: Float[Tensor, "B F D"]) -> Float[Tensor, "B N D"]:
        return torch.cat([e, e * self.w(e.transpose(1, 2)).transpose(1, 2)], 1)


class FinalNet(nn.Module):
    """One block of factorized interaction layers, or two."""

    def __init__(
        self,
        schema: Schema,
        *,
        embedding: Embed = Embed(10),
        block: Literal["1B", "2B"] = "2B",
        gating: bool = False,
        merge: Merge = "sum",
        hidden: Sequence[Count] = (64, 64, 64),
        dropout: Probability = 0.0,
        batch_norm: bool = False,
        activation: Literal["none", "relu", "tanh", "sigmoid"] = "none",
    ) -> None:
        super().__init__()
        self.embedding = embedding(schema)
        self.gates = FieldGates(len(schema.fields)) if gating else nn.Identity()
        sigma = None if activation == "none" else activation
        inputs = [self.embedding.width * (2 if gating else 1), self.embedding.width]
        self.blocks = nn.ModuleList()
        for width in inputs[: 1 if block == "1B" else 2]:
            layers: list[nn.Module] = []
            for i, h in enumerate(hidden):
                before = hidden[i - 1] if i else width
                layers.append(FactorizedInteraction(before, h, merge=merge, activation=sigma))
                layers += [*([nn.BatchNorm1d(h)] if batch_norm else []), Dropout(dropout)]
            self.blocks.append(nn.Sequential(*layers, dense(hidden[-1] if hidden else width, 1)))

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        e = self.embedding(ids)
        x = [self.gates(e), e]  # the second is used by 2B only
        logits = [block(x_b.flatten(1)) for block, x_b in zip(self.blocks, x, strict=False)]
        return torch.cat(logits, 1).mean(1)
