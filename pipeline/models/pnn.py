"""Product-based neural network: products of the embeddings enter the first hidden layer.

Paper: Qu et al., "Product-based Neural Networks for User Response Prediction", ICDM 2016,
https://arxiv.org/abs/1611.00144.

Equation: l_1 = relu(l_z + l_p + b_1), then further layers; logit = w . l_L + b. l_z = W_z z, z the
concatenated embeddings f_i; l_p, unit by unit (n = 1..D1), reads the products of all pairs i, j (i = j
too):
`inner` (IPNN)  l_p^n = sum_ij theta_i^n theta_j^n <f_i, f_j> = ||sum_i theta_i^n f_i||^2
`outer` (OPNN)  l_p^n = sum_dk W_p^n[d, k] p[d, k],  p = f f^T,  f = sum_i f_i (the superposition:
                f f^T = sum_ij f_i f_j^T)
`both`  (PNN*)  the sum of the two.

Shapes: ids (B, S) -> E (B, F, D) -> l_z, l_p, l_1 (B, D1), D1 = hidden[0] -> logit (B,).

Differs from the paper: `factorized=False` gives IPNN the whole matrix of pair weights that theta
theta^T stands for, so that l_p^n may be negative. Dropout on the embeddings, a transform of them and
batch norm are options.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers.embedding import FieldEmbedding, Transform
from pipeline.layers.mlp import ACTIVATIONS, MLP, Activation, Dropout, dense
from pipeline.schema import Schema


class Inner(nn.Module):
    """Signals of the inner products: (B, F, D) -> (B, H)."""

    def __init__(self, fields: int, units: int, *, factorized: bool) -> None:
        super().__init__()
        inputs = fields if factorized else fields * fields
        self.weight = dense(inputs, units, bias=False).weight
        self.factorized = factorized

    def forward(self, f: Float[Tensor, "B F D"]) -> Float[Tensor, "B H"]:
        w = self.weight
        if self.factorized:
            w = (w.unsqueeze(2) * w.unsqueeze(1)).flatten(1)  # theta theta^T of each unit
        return (f @ f.mT).flatten(1) @ w.T


class Outer(nn.Module):
    """Signals of the superposed outer product: (B, F, D) -> (B, H)."""

    def __init__(self, size: int, units: int) -> None:
        super().__init__()
        self.weight = dense(size * size, units, bias=False).weight

    def forward(self, f: Float[Tensor, "B F D"]) -> Float[Tensor, "B H"]:
        total = f.sum(1)
        p = total.unsqueeze(2) * total.unsqueeze(1)
        return p.flatten(1) @ self.weight.T


class PNN(nn.Module):
    """A network whose first layer sees products; no linear term, so the last layer has a bias."""

    def __init__(
        self,
        schema: Schema,
        *,
        embedding_size: int = 10,
        embedding_std: float = 0.01,
        embedding_dropout: float = 0.0,
        embedding_transform: Transform = "none",
        product: Literal["inner", "outer", "both"] = "inner",
        factorized: bool = True,
        hidden: list[int] = [400, 400],  # noqa: B006  never changed, only read
        dropout: float = 0.5,
        batch_norm: bool = False,
        activation: Activation = "relu",
    ) -> None:
        if not hidden:
            raise ValueError("hidden is empty: its first width is that of the product layer, so give one")
        super().__init__()
        self.embedding = FieldEmbedding(
            schema,
            embedding_size,
            dropout=embedding_dropout,
            std=embedding_std,
            transform=embedding_transform,
        )
        f, d1 = len(schema.fields), hidden[0]
        self.linear_signals = dense(f * embedding_size, d1)
        self.products = nn.ModuleList()
        if product != "outer":
            self.products.append(Inner(f, d1, factorized=factorized))
        if product != "inner":
            self.products.append(Outer(embedding_size, d1))
        norm = nn.BatchNorm1d(d1) if batch_norm else nn.Identity()
        self.first = nn.Sequential(norm, ACTIVATIONS[activation](), Dropout(dropout))
        self.mlp = MLP(d1, hidden[1:], dropout=dropout, batch_norm=batch_norm, activation=activation)
        self.out = dense(self.mlp.outputs, 1)

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        e = self.embedding(ids)
        l_z = self.linear_signals(e.flatten(1))
        l_p = torch.stack([signals(e) for signals in self.products]).sum(0)
        l_1 = self.first(l_z + l_p)
        return self.out(self.mlp(l_1)).squeeze(1)
