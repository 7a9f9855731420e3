"""FinalNet: layers whose output has a linear and a quadratic term in their input.

Paper: Zhu et al., "FINAL: Factorized Interaction Layer for CTR Prediction", SIGIR 2023,
https://doi.org/10.1145/3539618.3591988.

Equation: h_1 = W_1 x + b_1, h_2 = h_1 * sigma(W_2 x + b_2), x <- h_1 + h_2 per layer, so that the degree
doubles with each; logit = w . x + b (1B), or the mean of two such blocks' logits (2B).
2B is trained by L(p, y) + L(p_1, p) + L(p_2, p): the logloss L of the mean's probability p, which in turn
teaches each block (a constant there).

Shapes: ids (B, S) -> x (B, F * D) -> (B, H) per layer -> logit (B,).

Differs from the paper: `self_distillation` off trains the two blocks of 2B on their mean alone. sigma is
`activation`; `none`, the default of the authors' code, gives a plain product. `activate: layer` puts it where
that code has it, behind the layer and its batch norm: x <- sigma(h_1 + h_1 * (W_2 x + b_2)). `merge` `concat`
concatenates h_1 and h_2 at half the width, as that code does. `gating` reweights the fields before the first
block, x = concat[E, g * E] with g = W E + b over the field axis, initialised at g = 1. Both blocks have the
widths `hidden`.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers import loss
from pipeline.layers.factorized import FactorizedInteraction, FieldGates, Merge
from pipeline.layers.mlp import ACTIVATIONS, Dropout, dense
from pipeline.layers.options import Count, Embed, Probability
from pipeline.schema import Schema


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
        activate: Literal["product", "layer"] = "product",
        self_distillation: bool = True,
    ) -> None:
        super().__init__()
        self.loss = loss.self_distillation if self_distillation and block == "2B" else loss.of_mean
        self.embedding = embedding(schema)
        self.gates = FieldGates(len(schema.fields)) if gating else nn.Identity()
        sigma = None if activation == "none" else activation
        inside, behind = (sigma, None) if activate == "product" else (None, sigma)
        inputs = [self.embedding.width * (2 if gating else 1), self.embedding.width]
        self.blocks = nn.ModuleList()
        for width in inputs[: 1 if block == "1B" else 2]:
            layers: list[nn.Module] = []
            for i, h in enumerate(hidden):
                before = hidden[i - 1] if i else width
                layers.append(FactorizedInteraction(before, h, merge=merge, activation=inside))
                layers += [nn.BatchNorm1d(h)] if batch_norm else []
                layers += [*([ACTIVATIONS[behind]()] if behind else []), Dropout(dropout)]
            self.blocks.append(nn.Sequential(*layers, dense(hidden[-1] if hidden else width, 1)))

    def heads(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, "H B"]:
        """Return the logit of each block."""
        e = self.embedding(ids)
        x = [self.gates(e), e]  # the second is used by 2B only
        logits = [block(x_b.flatten(1)) for block, x_b in zip(self.blocks, x, strict=False)]
        return torch.cat(logits, 1).T

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        return self.heads(ids).mean(0)
