"""EDCN: cross and dense layers, joined by a bridge after every layer.

Paper: Chen et al., "Enhancing Explicit and Implicit Feature Interactions via Information Sharing
for Parallel Deep CTR Models", CIKM 2021, https://dlp-kdd.github.io/assets/pdf/DLP-KDD_2021_paper_12.pdf.

Equation, per layer l, with f_0 the concatenated embeddings and x_0 = c_0:
regulation: c_l = F softmax(gc_l / tau) * f_l, d_l = F softmax(gd_l / tau) * f_l, one gate per field;
x_{l+1} = x_0 (c_l^T w_l) + b_l + c_l, h_{l+1} = relu(W_l d_l + b'_l); bridge: f_{l+1} = x_{l+1} * h_{l+1}
(`hadamard`), their `sum`, relu(W [x, h] + b) (`concat`) or a_x x + a_h h (`attention`, a the softmax of
p . relu(W x + b) and p . relu(W' h + b'));
logit = w . [x_L, h_L, f_L] + bias.

Shapes: ids (B, S) -> f (B, F * D), and so are c, d, x and h -> logit (B,).

Differs from the paper: gates start at 1; the paper's, without the factor F, shrink the signal by F in every
layer, unless `batch_norm` cancels it. The attention bridge is read as a weight per stream. `dropout`: of h.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers.cross import VectorCross
from pipeline.layers.mechanism import Mechanism
from pipeline.layers.mlp import MLP, Activation, dense
from pipeline.layers.options import Count, Embed, Positive, Probability
from pipeline.schema import Schema


class Bridge(nn.Module):
    """Both streams as one: (B, K), (B, K) -> (B, K)."""

    def __init__(self, width: int, kind: str) -> None:
        super().__init__()
        self.kind = kind
        if kind == "concat":
            self.w = dense(2 * width, width)
        elif kind == "attention":
            self.w_x, self.w_h, self.p = dense(width, width), dense(width, width), dense(width, 1, bias=False)
            self.attention = Mechanism("attention", "uniform")

    def forward(self, x: Float[Tensor, "B K"], h: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
        if self.kind in ("hadamard", "sum"):
            return x * h if self.kind == "hadamard" else x + h
        if self.kind == "concat":
            return torch.relu(self.w(torch.cat([x, h], 1)))
        scores = self.p(torch.relu(torch.stack([self.w_x(x), self.w_h(h)], 1)))
        return (self.attention(scores.softmax(1)) * torch.stack([x, h], 1)).sum(1)


class Regulation(nn.Module):
    """The streams c and d from f, by a gate per field: (B, F * D) -> two of (B, F * D)."""

    def __init__(self, fields: int, dim: int, temperature: float, batch_norm: bool) -> None:
        super().__init__()
        self.g, self.gates = nn.Parameter(torch.zeros(2, fields)), Mechanism("gate", 1.0, per_row=False)
        self.dim, self.temperature = dim, temperature
        self.norm = nn.ModuleList(nn.BatchNorm1d(fields * dim) if batch_norm else nn.Identity() for _ in "cd")

    def forward(self, f: Float[Tensor, "B K"]) -> tuple[Float[Tensor, "B K"], Float[Tensor, "B K"]]:
        gates = self.g.shape[1] * (self.g / self.temperature).softmax(1)
        to_c, to_d = self.gates(gates.unsqueeze(0)).squeeze(0).repeat_interleave(self.dim, 1)
        return self.norm[0](to_c * f), self.norm[1](to_d * f)


class EDCN(nn.Module):
    """Regulation, cross and dense layer, bridge; repeated."""

    def __init__(
        self,
        schema: Schema,
        *,
        embedding: Embed = Embed(16),
        cross_layers: Count = 2,
        bridge: Literal["hadamard", "sum", "concat", "attention"] = "hadamard",
        temperature: Positive = 1.0,
        dropout: Probability = 0.0,
        batch_norm: bool = False,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        self.embedding = embedding(schema)
        f, d, k, depth = len(schema.fields), embedding.size, self.embedding.width, range(cross_layers)
        self.gates = nn.ModuleList(Regulation(f, d, temperature, batch_norm) for _ in depth)
        self.cross = nn.ModuleList(VectorCross(k) for _ in depth)
        self.dense = nn.ModuleList(MLP(k, [k], dropout=dropout, activation=activation) for _ in depth)
        self.bridge = nn.ModuleList(Bridge(k, bridge) for _ in depth)
        self.out = dense(3 * k, 1)

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        f = self.embedding(ids).flatten(1)
        x0: Tensor | None = None
        for gates, cross, deep, bridge in zip(self.gates, self.cross, self.dense, self.bridge, strict=True):
            c, d = gates(f)
            x0 = c if x0 is None else x0
            x, h = cross(x0, c), deep(d)
            f = bridge(x, h)
        return self.out(torch.cat([x, h, f], 1)).squeeze(1)
