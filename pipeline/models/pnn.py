"""PNN, the product-based neural network: products of embeddings in the first hidden layer.

Paper: Qu et al., "Product-based Neural Networks for User Response Prediction", ICDM 2016,
https://arxiv.org/abs/1611.00144.

Equation: l_1 = relu(l_z + l_p + b_1), then further layers; logit = w . l_L + b. l_z = W_z z, z the
concatenated embeddings f_i; unit n = 1..D1 of l_p is a function of the products of all pairs i, j (i = j
included):
`inner` (IPNN)  l_p^n = sum_ij theta_i^n theta_j^n <f_i, f_j> = ||sum_i theta_i^n f_i||^2
`outer` (OPNN)  l_p^n = sum_dk W_p^n[d, k] p[d, k],  p = f f^T,  f = sum_i f_i (the superposition:
                f f^T = sum_ij f_i f_j^T)
`both`  (PNN*)  the sum of the two.

Shapes: ids (B, S) -> E (B, F, D) -> l_z, l_p, l_1 (B, D1), D1 = hidden[0] -> logit (B,).

Differs from the paper: `factorized=False` gives IPNN the full matrix of pair weights, which the paper
factorizes as theta theta^T, so that l_p^n may be negative.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers.mlp import ACTIVATIONS, Dropout, dense
from pipeline.layers.options import Embed, Net
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
    """A network with a product layer; without a linear term, so the last layer has the bias."""

    def __init__(
        self,
        schema: Schema,
        *,
        embedding: Embed = Embed(10),
        product: Literal["inner", "outer", "both"] = "inner",
        factorized: bool = True,
        network: Net = Net((400, 400), dropout=0.5),
    ) -> None:
        if not network.hidden:
            raise ValueError("hidden is empty: its first width is that of the product layer, so give one")
        super().__init__()
        self.embedding = embedding(schema)
        f, d1 = len(schema.fields), network.hidden[0]
        self.linear_signals = dense(self.embedding.width, d1)
        self.products = nn.ModuleList()
        if product != "outer":
            self.products.append(Inner(f, d1, factorized=factorized))
        if product != "inner":
            self.products.append(Outer(embedding.size, d1))
        norm = nn.BatchNorm1d(d1) if network.batch_norm else nn.Identity()
        self.first = nn.Sequential(norm, ACTIVATIONS[network.activation](), Dropout(network.dropout))
        self.mlp = network(d1, network.hidden[1:])
        self.out = dense(self.mlp.outputs, 1)

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        e = self.embedding(ids)
        l_z = self.linear_signals(e.flatten(1))
        l_p = torch.stack([signals(e) for signals in self.products]).sum(0)
        l_1 = self.first(l_z + l_p)
        return self.out(self.mlp(l_1)).squeeze(1)
