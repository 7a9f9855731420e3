"""EulerNet: feature interactions of learnt order, in the polar form of complex features.

Paper: Tian et al., "EulerNet: Adaptive Feature Interaction Learning via Euler's Formula for CTR
Prediction", SIGIR 2023, https://arxiv.org/abs/2304.10711.

Equation: the embedding is a phase and field j has the modulus mu_j: r + ip = mu_j exp(i e_j). A layer, with
lambda_j and theta_j the modulus and phase of its inputs and alpha_k the k-th order vector:
l_k = exp(sum_j alpha_kj log lambda_j + delta'_k), psi_k = sum_j alpha_kj theta_j + delta_k (explicit),
r_k = l_k cos psi_k + relu(W_k r + b_k), p_k = l_k sin psi_k + relu(W_k p + b_k) (implicit: same W, b).
After the last layer logit = w . r + w . p + b.

Shapes: ids (B, S) -> r, p (B, F, D) -> r, p (B, order_vectors[l], D) -> logit (B,).

Differs from the paper: it leaves the initial order vectors open; here the k-th is the unit vector of field k
modulo F (the authors' code draws the field at random unless there are as many vectors as fields). r_k and p_k
have layer norm, as in that code; `implicit` is the ablation. `dropout` acts on r and p in front of W,
`explicit_dropout` on log lambda and theta, as in that code. 1e-8 is added to lambda squared before the
logarithm.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers.mlp import Dropout, dense
from pipeline.layers.norm import vector_norm
from pipeline.layers.options import Count, Embed, Probability
from pipeline.schema import Schema

Vectors = Float[Tensor, "B F D"]


class EulerLayer(nn.Module):
    """n order vectors over m complex features."""

    def __init__(
        self,
        m: int,
        n: int,
        dim: int,
        dropout: float,
        explicit_dropout: float,
        implicit: bool,
        layer_norm: bool,
    ) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.eye(m)[torch.arange(n) % m])
        self.delta_modulus = nn.Parameter(0.01 * torch.randn(n, dim))
        self.delta_phase = nn.Parameter(0.01 * torch.randn(n, dim))
        self.w = dense(m * dim, n * dim) if implicit else None
        self.dropout, self.explicit_dropout = Dropout(dropout), Dropout(explicit_dropout)
        self.norm_r = vector_norm(dim) if layer_norm else nn.Identity()
        self.norm_p = vector_norm(dim) if layer_norm else nn.Identity()

    def forward(self, r: Vectors, p: Vectors) -> tuple[Float[Tensor, "B C D"], Float[Tensor, "B C D"]]:
        log_lam, theta = 0.5 * torch.log(r * r + p * p + 1e-8), torch.atan2(p, r)
        l = torch.exp(self.alpha @ self.explicit_dropout(log_lam) + self.delta_modulus)  # noqa: E741
        psi = self.alpha @ self.explicit_dropout(theta) + self.delta_phase
        new_r, new_p = l * psi.cos(), l * psi.sin()
        if self.w is not None:
            new_r = new_r + torch.relu(self.w(self.dropout(r.flatten(1)))).view_as(new_r)
            new_p = new_p + torch.relu(self.w(self.dropout(p.flatten(1)))).view_as(new_p)
        return self.norm_r(new_r), self.norm_p(new_p)


class EulerNet(nn.Module):
    """Euler's formula, layers of explicit and implicit interactions, a linear map."""

    def __init__(
        self,
        schema: Schema,
        *,
        embedding: Embed = Embed(16),
        order_vectors: Sequence[Count] = (7,),
        implicit: bool = True,
        layer_norm: bool = True,
        dropout: Probability = 0.0,
        explicit_dropout: Probability = 0.0,
    ) -> None:
        super().__init__()
        self.embedding = embedding(schema)
        sizes = [len(schema.fields), *order_vectors]
        self.mu = nn.Parameter(torch.ones(sizes[0], 1))
        self.layers = nn.ModuleList(
            EulerLayer(m, n, embedding.size, dropout, explicit_dropout, implicit, layer_norm)
            for m, n in zip(sizes, order_vectors, strict=False)
        )
        self.out = dense(sizes[-1] * embedding.size, 1)

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        e = self.embedding(ids)
        r, p = self.mu * e.cos(), self.mu * e.sin()
        for layer in self.layers:
            r, p = layer(r, p)
        return self.out((r + p).flatten(1)).squeeze(1)
