"""Field-wise bi-interaction over general feature domains."""

from itertools import combinations
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.layers.pairs import Pairs
from pipeline.schema import Schema

Dice = Literal["components", "pairs"]


class FwBI(nn.Module):
    """Pairs between domains (MF) and pairs within them (FM), with one weight per pair of domains.

    Source: FLSEST eq. 12-13, after Chen et al., "FLEN", 2019, https://arxiv.org/abs/1911.04690:
    S_m = sum of the embeddings of domain m,
    MF = sum_{i<j} r_ij S_i * S_j,   FM = sum_m r_mm [S_m * S_m - sum_n e_n * e_n].
    With one domain and r = 0.5 it is FM's pairwise term; with a domain per field it is FwFM's.

    Shapes: (B, F, D) -> (B, D).

    Args:
        schema: the fields and their domains.
        dim: D, the size of the biases.
        dicefactor: probability with which something is dropped in training, and what is left scaled up.
        dice: what: `components` of MF and of FM, as FLEN has it ("independent latent features"), or the
            product of a pair of fields, as FLSEST does ("to randomly discard the feature interactions").
        bias: add a learnt vector to MF and to FM, as in the authors' code.
    """

    domain: Tensor
    weight_of_pair: Tensor

    def __init__(
        self,
        schema: Schema,
        dim: int,
        *,
        dicefactor: float = 0.0,
        dice: Dice = "components",
        bias: bool = True,
    ) -> None:
        super().__init__()
        g = len(schema.domains)
        domain = torch.zeros(len(schema.fields), dtype=torch.long)
        for m, members in enumerate(schema.domains):
            domain[list(members)] = m
        self.register_buffer("domain", domain, persistent=False)
        self.pairs = Pairs(g)
        self.r_between = nn.Parameter(torch.ones(self.pairs.count)) if self.pairs.count else None
        self.r_within = nn.Parameter(torch.full((g,), 0.5))
        self.bias = nn.Parameter(torch.zeros(2, dim)) if bias else None
        self.dicefactor, self.dice = dicefactor, dice
        self.of_fields = Pairs(len(schema.fields))
        # of each pair of fields the place of its weight in [2 r_within, r_between]
        place = {(m, m): m for m in range(g)}
        place |= {pair: g + i for i, pair in enumerate(combinations(range(g), 2))}
        both = combinations(domain.tolist(), 2)
        weight = torch.tensor([place[min(pair), max(pair)] for pair in both], dtype=torch.long)
        self.register_buffer("weight_of_pair", weight, persistent=False)

    def sums(self, e: Float[Tensor, "B F D"]) -> Float[Tensor, "B G D"]:
        """Sum the fields of each domain."""
        return e.new_zeros(e.shape[0], len(self.r_within), e.shape[2]).index_add(1, self.domain, e)

    def diced_pairs(self, e: Float[Tensor, "B F D"]) -> Float[Tensor, "B D"]:
        """MF + FM without the biases, pair by pair of fields, some of them dropped."""
        r = 2 * self.r_within if self.r_between is None else torch.cat([2 * self.r_within, self.r_between])
        kept = F.dropout(e.new_ones(len(e), self.of_fields.count), self.dicefactor)
        return torch.einsum("bp,bpd->bd", kept * r[self.weight_of_pair], self.of_fields.hadamard(e))

    def forward(self, e: Float[Tensor, "B F D"]) -> Float[Tensor, "B D"]:
        if self.training and self.dicefactor and self.dice == "pairs":
            pooled = self.diced_pairs(e)
            return pooled if self.bias is None else pooled + self.bias.sum(0)
        s = self.sums(e)
        fm = self.r_within @ (s * s - self.sums(e * e))
        mf = torch.zeros_like(fm)
        if self.r_between is not None:
            mf = self.r_between @ self.pairs.hadamard(s)
        if self.bias is not None:
            mf, fm = mf + self.bias[0], fm + self.bias[1]
        if self.dice == "components":
            mf = F.dropout(mf, self.dicefactor, self.training)
            fm = F.dropout(fm, self.dicefactor, self.training)
        return mf + fm
