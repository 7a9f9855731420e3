"""Pairs of fields through a learnt matrix."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

Kind = Literal["all", "each", "interaction"]


class Bilinear(nn.Module):
    """Bilinear interaction of every pair i < j: p_ij = (v_i W) * v_j, a vector.

    Source: Huang, Zhang and Zhang, "FiBiNET", RecSys 2019, https://arxiv.org/abs/1905.09433, section 3.5.
    With W = I it is the Hadamard product of the pair.

    Shapes: (B, F, D) -> (B, C, D) with C = F (F - 1) / 2, in the order of `itertools.combinations`.

    Args:
        fields: F.
        dim: D.
        kind: which pairs share a matrix: `all` of them, `each` left field its own (the last field is
            never on the left, so F - 1 matrices), or every `interaction` its own.
    """

    def __init__(self, fields: int, dim: int, *, kind: Kind = "interaction") -> None:
        super().__init__()
        pairs = [fields - 1 - i for i in range(fields - 1)]  # of which field i is the left one
        matrices = {"all": [1], "each": [1] * (fields - 1), "interaction": pairs}[kind]
        self.matrices, self.repeats = matrices, fields - 1 if kind == "all" else 1
        self.weight = nn.Parameter(torch.empty(sum(matrices), dim, dim))
        for matrix in self.weight:
            nn.init.xavier_uniform_(matrix)

    def forward(self, v: Float[Tensor, "B F D"]) -> Float[Tensor, "B C D"]:
        w = self.weight.split(self.matrices) * self.repeats
        # per left field one product with all its matrices side by side; a shared one broadcasts
        columns, d = v.unbind(1), v.shape[2]
        left = [columns[i] @ w_i.transpose(0, 1).flatten(1) for i, w_i in enumerate(w)]
        return torch.cat([x.unflatten(1, (-1, d)) * v[:, i + 1 :] for i, x in enumerate(left)], 1)
