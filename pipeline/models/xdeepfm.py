"""xDeepFM: a compressed interaction network beside a linear term and a deep network.

Paper: Lian et al., "xDeepFM: Combining Explicit and Implicit Feature Interactions for Recommender
Systems", KDD 2018, https://arxiv.org/abs/1803.05170.

Equation: X^k_h = sum_{i,j} W^k_hij (X^{k-1}_i * X^0_j) with X^0 the field embeddings,
p^k_h = sum_d X^k_hd; logit = linear + w_cin . [p^1, ..., p^T] + w_dnn . MLP(X^0).

Shapes: ids (B, S) -> X^0 (B, F, D) -> X^k (B, H_k, D) -> p (B, sum of H_k) -> logit (B,).

Differs from the paper: its equations pool every channel and have no activation in the CIN, as here;
`split_half` (half of a layer's channels is pooled, the other half goes on; the last layer is
pooled whole) and `cin_activation` relu are what public code does. The bias stands once. Dropout,
batch norm and a transform of the embeddings are options.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers.compress import Compress
from pipeline.layers.embedding import FieldEmbedding, FieldLinear, Transform
from pipeline.layers.mlp import MLP, Activation, dense
from pipeline.schema import Schema


class CIN(nn.Module):
    """The compressed interaction network: (B, F, D) -> (B, outputs), the sums over D."""

    def __init__(self, fields: int, sizes: list[int], *, split_half: bool, relu: bool) -> None:
        if not sizes or (split_half and any(size % 2 for size in sizes[:-1])):
            raise ValueError(f"cin {sizes} must have a size, and even ones but the last with split_half")
        super().__init__()
        self.on = [size // 2 if split_half else size for size in sizes[:-1]]  # channels that go on
        inputs = [fields, *self.on]
        pairs = zip(inputs, sizes, strict=True)
        self.w = nn.ModuleList(Compress(before, fields, size) for before, size in pairs)
        self.split_half = split_half
        self.activation: nn.Module | None = nn.ReLU() if relu else None
        self.outputs = sum(sizes) - (sum(self.on) if split_half else 0)

    def forward(self, e: Float[Tensor, "B F D"]) -> Float[Tensor, "B K"]:
        b, f, d = e.shape
        x = x0 = e.transpose(0, 1).flatten(1)  # (F, B * D)
        flat: Tensor = e.transpose(1, 2)  # x as (B, D, H)
        pooled = []
        last = len(self.w) - 1
        for k, w in enumerate(self.w):
            assert isinstance(w, Compress)
            if k == last and self.activation is None:
                # sum_d W (x_d * x0_d) = W sum_d x_d * x0_d: the sum first, for nothing follows
                matrices = w.weight.unflatten(1, (-1, f)).transpose(1, 2).flatten(1)
                pooled.append((e @ flat).flatten(1) @ matrices.T)
                break
            x = w(x, x0, columns=k >= last - (self.activation is None))
            flat = x.T.unflatten(0, (b, d))
            if self.activation is not None:
                flat = self.activation(flat)
            p = flat
            if self.split_half and k < last:
                flat, p = flat.chunk(2, 2)
            pooled.append(p.sum(1))
            x = flat.flatten(0, 1).T
        return torch.cat(pooled, 1)


class XDeepFM(nn.Module):
    """Linear term, CIN and MLP on one embedding."""

    def __init__(
        self,
        schema: Schema,
        *,
        embedding_size: int = 10,
        embedding_std: float = 0.01,
        embedding_dropout: float = 0.0,
        embedding_transform: Transform = "none",
        cin: list[int] = [100, 100],  # noqa: B006  never changed, only read
        split_half: bool = False,
        cin_activation: Literal["identity", "relu"] = "identity",
        hidden: list[int] = [400, 400],  # noqa: B006  never changed, only read
        dropout: float = 0.5,
        batch_norm: bool = False,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        f = len(schema.fields)
        self.linear = FieldLinear(schema)
        self.embedding = FieldEmbedding(
            schema,
            embedding_size,
            dropout=embedding_dropout,
            std=embedding_std,
            transform=embedding_transform,
        )
        self.cin = CIN(f, cin, split_half=split_half, relu=cin_activation == "relu")
        self.mlp = MLP(
            f * embedding_size, hidden, dropout=dropout, batch_norm=batch_norm, activation=activation
        )
        self.w_cin = dense(self.cin.outputs, 1, bias=False)
        self.w_dnn = dense(self.mlp.outputs, 1, bias=False)

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        e = self.embedding(ids)
        y_cin = self.w_cin(self.cin(e)).squeeze(1)
        y_dnn = self.w_dnn(self.mlp(e.flatten(1))).squeeze(1)
        return self.linear(ids) + y_cin + y_dnn
