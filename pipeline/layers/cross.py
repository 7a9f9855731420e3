"""Cross layers of the Deep & Cross family: the next x as a function of the first, x0, and the last.

All of them map (B, K) to (B, K) with K = F * D, the flattened embeddings, and add x.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.layers.mechanism import Mechanism
from pipeline.layers.mlp import dense

CrossActivation = Literal["identity", "tanh", "relu"]
CROSS_ACTIVATIONS: dict[CrossActivation, type[nn.Module]] = {
    "identity": nn.Identity,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
}


class VectorCross(nn.Module):
    """x0 (x^T w) + b + x, with one weight per component: (B, K), (B, K) -> (B, K).

    Source: Wang et al., "Deep & Cross Network for Ad Click Predictions", ADKDD 2017,
    https://arxiv.org/abs/1708.05123. w is initialised as Xavier uniform, b at zero.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.w = dense(width, 1, bias=False)
        self.b = nn.Parameter(torch.zeros(width))

    def forward(self, x0: Float[Tensor, "B K"], x: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
        return x0 * self.w(x) + self.b + x


class MatrixCross(nn.Module):
    """x0 * (W x + b) + x: (B, K), (B, K) -> (B, K).

    Source: Wang et al., "DCN V2", WWW 2021, https://arxiv.org/abs/2008.13535. W is initialised as Xavier
    uniform, b at zero.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.w = dense(width, width)

    def forward(self, x0: Float[Tensor, "B K"], x: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
        return x0 * self.w(x) + x


class MixtureCross(nn.Module):
    """Low-rank cross by a mixture of experts: sum_i G_i(x) E_i(x) + x, (B, K), (B, K) -> (B, K).

    E_i(x) = x0 * (U_i g(C_i g(V_i^T x)) + b); if g is the identity, C_i is omitted, since U_i absorbs it.
    The experts are stacked in one V and one U, so that all of them take two products.

    Source: Wang et al., "DCN V2", WWW 2021, https://arxiv.org/abs/2008.13535.

    Args:
        width: K.
        rank: columns of each U_i and V_i.
        experts: their number; a single one has no gate.
        gate: G, a `softmax` over the experts or a `sigmoid` per expert, of one linear map of x.
        activation: g.
    """

    def __init__(
        self,
        width: int,
        rank: int,
        *,
        experts: int = 1,
        gate: Literal["softmax", "sigmoid"] = "softmax",
        activation: CrossActivation = "tanh",
    ) -> None:
        super().__init__()
        self.experts, self.softmax = experts, gate == "softmax"
        self.v = dense(width, experts * rank, bias=False)
        self.c = None
        if activation != "identity":
            c = torch.stack([dense(rank, rank, bias=False).weight.detach() for _ in range(experts)])
            self.c = nn.Parameter(c)
        self.g = CROSS_ACTIVATIONS[activation]()
        self.u = dense(experts * rank, width, bias=False)
        self.b = nn.Parameter(torch.zeros(width))
        self.gate = dense(width, experts, bias=False) if experts > 1 else None
        if self.gate is not None:
            self.mixture = Mechanism("experts", "uniform" if self.softmax else 1.0)

    def forward(self, x0: Float[Tensor, "B K"], x: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
        h = self.v(x).unflatten(1, (self.experts, -1))
        if self.c is not None:
            h = self.g(torch.einsum("bei,eji->bej", self.g(h), self.c))
        if self.gate is None:
            return x0 * (self.u(h.flatten(1)) + self.b) + x
        scores = self.gate(x)
        gates = self.mixture(scores.softmax(1) if self.softmax else scores.sigmoid())
        inner = self.u((gates.unsqueeze(2) * h).flatten(1)) + gates.sum(1, keepdim=True) * self.b
        return x0 * inner + x


class CrossNetwork(nn.ModuleList):
    """Cross layers in sequence, with the same x0 for all: (B, K) -> (B, K)."""

    def forward(self, x0: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
        x = x0
        for cross in self:
            x = cross(x0, x)
        return x
