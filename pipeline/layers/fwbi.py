"""Field-wise bi-interaction over general feature domains."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.layers.pairs import Pairs
from pipeline.schema import Schema


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
        dicefactor: probability with which a component of MF or FM is dropped in training.
        bias: add a learnt vector to MF and to FM, as in the authors' code.
    """

    domain: Tensor

    def __init__(self, schema: Schema, dim: int, *, dicefactor: float = 0.0, bias: bool = True) -> None:
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
        self.dicefactor = dicefactor

    def sums(self, e: Float[Tensor, "B F D"]) -> Float[Tensor, "B G D"]:
        """Sum the fields of each domain."""
        return e.new_zeros(e.shape[0], len(self.r_within), e.shape[2]).index_add(1, self.domain, e)

    def forward(self, e: Float[Tensor, "B F D"]) -> Float[Tensor, "B D"]:
        s = self.sums(e)
        fm = self.r_within @ (s * s - self.sums(e * e))
        mf = torch.zeros_like(fm)
        if self.r_between is not None:
            mf = self.r_between @ self.pairs.hadamard(s)
        if self.bias is not None:
            mf, fm = mf + self.bias[0], fm + self.bias[1]
        mf = F.dropout(mf, self.dicefactor, self.training)
        fm = F.dropout(fm, self.dicefactor, self.training)
        return mf + fm
