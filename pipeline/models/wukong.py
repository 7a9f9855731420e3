"""Wukong: stacked factorization machines; each layer doubles the order of the interactions.

Paper: Zhang et al., "Wukong: Towards a Scaling Law for Large-Scale Recommendation", ICML 2024,
https://arxiv.org/abs/2403.02545.

Equation: X_{l+1} = LN(concat[FMB(X_l), LCB(X_l)] + X_l), with
FMB(X) = reshape(MLP(LN(flatten(FM(X))))), n_F vectors, FM(X) = X X^T (all inner products of pairs) or,
optimised, X (X^T Y) with Y of n x k, and LCB(X) = W_L X, n_L vectors; then MLP(flatten X_L).
`projection` is `none`, a `learnt` Y, or `attentive`: Y = reshape(MLP(flatten(W_Y X))) with W_Y of k x n.

Shapes: ids (B, S) -> X_0 (B, F, D) -> X_l (B, n_F + n_L, D) -> logit (B,).

Differs from the paper: n_F, n_L, k and the depths, which vary there by dataset, are small by default. The
width of the MLP that computes Y is not given: both MLPs have the widths `fm_hidden`. Where the number of
vectors changes, the residual is a linear map of the vectors. Each field has one embedding.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers.mlp import MLP, dense
from pipeline.layers.norm import vector_norm
from pipeline.layers.options import Count, Embed, Net
from pipeline.schema import Schema


class WukongFM(nn.Module):
    """X X^T, or its product with Y: (B, N, D) -> (B, N, N or rank)."""

    def __init__(self, n: int, dim: int, projection: str, rank: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.y = self.w_y = None
        self.n, self.width = n, n if projection == "none" else rank
        if projection == "learnt":
            self.y = nn.Parameter(dense(rank, n, bias=False).weight)
        elif projection == "attentive":
            self.w_y = nn.Parameter(dense(n, rank, bias=False).weight)
            mlp = MLP(rank * dim, hidden)
            self.make = nn.Sequential(mlp, dense(mlp.outputs, n * rank))

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N K"]:
        y = self.y
        if self.w_y is not None:
            y = self.make((self.w_y @ x).flatten(1)).unflatten(1, (x.shape[1], -1))
        return x @ x.mT if y is None else x @ (x.mT @ y)


class WukongLayer(nn.Module):
    """FMB and LCB side by side: (B, N, D) -> (B, n_F + n_L, D)."""

    def __init__(self, fm: WukongFM, n_f: int, n_l: int, dim: int, network: Net) -> None:
        super().__init__()
        self.fm, n = fm, fm.n
        self.ln_fm = nn.LayerNorm(n * fm.width)
        mlp = network(n * fm.width)
        self.mlp = nn.Sequential(mlp, dense(mlp.outputs, n_f * dim))
        self.w_l = nn.Parameter(dense(n, n_l, bias=False).weight)
        self.residual = nn.Parameter(dense(n, n_f + n_l, bias=False).weight) if n != n_f + n_l else None
        self.ln = vector_norm(dim)

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B C D"]:
        fmb = self.mlp(self.ln_fm(self.fm(x).flatten(1))).unflatten(1, (-1, x.shape[2]))
        lcb = self.w_l @ x
        return self.ln(torch.cat([fmb, lcb], 1) + (x if self.residual is None else self.residual @ x))


class Wukong(nn.Module):
    """Layers of FM blocks and linear compression, then a network."""

    def __init__(
        self,
        schema: Schema,
        *,
        embedding: Embed = Embed(16, std=0.1),
        layers: Count = 2,
        fm_vectors: Count = 4,
        linear_vectors: Count = 4,
        projection: Literal["none", "learnt", "attentive"] = "attentive",
        rank: Count = 8,
        fm_hidden: Sequence[Count] = (32,),
        network: Net = Net((400, 400)),
    ) -> None:
        super().__init__()
        self.embedding = embedding(schema)
        d, n = embedding.size, fm_vectors + linear_vectors
        sizes = [len(schema.fields)] + [n] * (layers - 1)
        fms = [WukongFM(size, d, projection, rank, fm_hidden) for size in sizes]
        fm_network = Net(fm_hidden, dropout=network.dropout)
        stack = [WukongLayer(fm, fm_vectors, linear_vectors, d, fm_network) for fm in fms]
        self.layers = nn.Sequential(*stack)
        self.mlp = network(n * d)
        self.out = dense(self.mlp.outputs, 1)

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        x = self.layers(self.embedding(ids))
        return self.out(self.mlp(x.flatten(1))).squeeze(1)
