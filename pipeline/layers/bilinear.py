"""Pairs of fields through a learnt matrix."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.layers.accelerated import accelerated
from pipeline.layers.pairs import Pairs

BilinearKind = Literal["all", "each", "interaction"]


class Bilinear(nn.Module):
    """Bilinear interaction of every pair i < j: p_ij = (v_i W) * v_j, a vector.

    Source: Huang, Zhang and Zhang, "FiBiNET", RecSys 2019, https://arxiv.org/abs/1905.09433, section 3.5.
    With W = I it is the Hadamard product of the pair.

    Shapes: (B, F, D) -> (B, P, D) with P = F (F - 1) / 2, in the order of `itertools.combinations`.

    Args:
        fields: F.
        dim: D.
        kind: which pairs share a matrix: `all` of them, those of `each` left field (the last field is never
            on the left, so F - 1 matrices), or none (a matrix for every `interaction`).
    """

    matrix: Tensor

    def __init__(self, fields: int, dim: int, *, kind: BilinearKind = "interaction") -> None:
        super().__init__()
        self.kind, self.pairs = kind, Pairs(fields)
        first, count = self.pairs.first, self.pairs.count
        of_pair = {"all": torch.zeros_like(first), "each": first, "interaction": torch.arange(count)}[kind]
        self.register_buffer("matrix", of_pair, persistent=False)  # which one a pair takes
        matrices = {"all": 1, "each": fields - 1, "interaction": count}[kind]
        self.weight = nn.Parameter(torch.empty(matrices, dim, dim))
        for matrix in self.weight:
            nn.init.xavier_uniform_(matrix)

    @accelerated("bilinear")
    def forward(self, v: Float[Tensor, "B F D"]) -> Float[Tensor, "B P D"]:
        v_i, v_j = v[:, self.pairs.first], v[:, self.pairs.second]
        return torch.einsum("bpc,pcd->bpd", v_i, self.weight[self.matrix]) * v_j


class Bilinears(nn.ModuleList):
    """Bilinear layers side by side, each with its own fields; their pairs are concatenated.

    Shapes: as many (B, F, D) as layers -> (B, layers * P, D).
    """

    @accelerated("bilinear")
    def forward(self, fields: Sequence[Float[Tensor, "B F D"]]) -> Float[Tensor, "B K D"]:
        return torch.cat([layer(v) for layer, v in zip(self, fields, strict=True)], 1)
