"""Wukong: stacked factorization machines, each layer doubling the order of the interactions.

Paper: Zhang et al., "Wukong: Towards a Scaling Law for Large-Scale Recommendation", ICML 2024,
https://arxiv.org/abs/2403.02545.

Equation: X_{l+1} = LN(concat[FMB(X_l), LCB(X_l)] + X_l), with
FMB(X) = reshape(MLP(LN(flatten(FM(X))))), n_F vectors, FM(X) = X X^T (all inner products of pairs) or,
optimised, X (X^T Y) with Y of n x k, and LCB(X) = W_L X, n_L vectors; then MLP(flatten X_L).
`projection` is Y: `none`, no Y; `learnt`, one matrix; `attentive`, made from the row itself,
Y = reshape(MLP(flatten(W_Y X))) with W_Y of k x n.

Shapes: ids (B, S) -> X_0 (B, F, D) -> X_l (B, n_F + n_L, D) -> logit (B,).

Differs from the paper: n_F, n_L, k and the depths differ there from dataset to dataset; those here are
small ones. The width of the MLP that makes Y is not given: `fm_hidden` is that of both. Where the
number of vectors changes, the residual is a linear map of the vectors. Each field has one embedding.
Dropout and batch norm are options.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers.embedding import FieldEmbedding, Transform
from pipeline.layers.mlp import MLP, Activation, dense
from pipeline.layers.norm import vector_norm
from pipeline.schema import Schema

Projection = Literal["none", "learnt", "attentive"]


class WukongFM(nn.Module):
    """X X^T, or its product with Y: (B, N, D) -> (B, N, N or rank)."""

    def __init__(self, n: int, dim: int, projection: Projection, rank: int, hidden: list[int]) -> None:
        super().__init__()
        self.y = self.w_y = None
        self.width = n if projection == "none" else rank
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

    def __init__(
        self, fm: WukongFM, n: int, n_f: int, n_l: int, dim: int, hidden: list[int], dropout: float
    ) -> None:
        super().__init__()
        self.fm = fm
        self.ln_fm = nn.LayerNorm(n * fm.width)
        mlp = MLP(n * fm.width, hidden, dropout=dropout)
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
        embedding_size: int = 16,
        embedding_std: float = 0.1,
        embedding_dropout: float = 0.0,
        embedding_transform: Transform = "none",
        layers: int = 2,
        fm_vectors: int = 4,
        linear_vectors: int = 4,
        projection: Projection = "attentive",
        rank: int = 8,
        fm_hidden: list[int] = [32],  # noqa: B006  never changed, only read
        hidden: list[int] = [400, 400],  # noqa: B006  never changed, only read
        dropout: float = 0.0,
        batch_norm: bool = False,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        d, n = embedding_size, fm_vectors + linear_vectors
        self.embedding = FieldEmbedding(
            schema, d, dropout=embedding_dropout, std=embedding_std, transform=embedding_transform
        )
        sizes = [len(schema.fields)] + [n] * (layers - 1)
        machines = [WukongFM(size, d, projection, rank, fm_hidden) for size in sizes]
        self.layers = nn.Sequential(
            *(
                WukongLayer(fm, size, fm_vectors, linear_vectors, d, fm_hidden, dropout)
                for fm, size in zip(machines, sizes, strict=True)
            )
        )
        self.mlp = MLP(n * d, hidden, dropout=dropout, batch_norm=batch_norm, activation=activation)
        self.out = dense(self.mlp.outputs, 1)

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        x = self.layers(self.embedding(ids))
        return self.out(self.mlp(x.flatten(1))).squeeze(1)
