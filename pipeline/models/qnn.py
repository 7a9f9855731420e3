"""QNN-alpha: layers of quadratic neurons, the input times activated linear maps of it.

Paper: Li et al., "Revisiting Feature Interactions from the Perspective of Quadratic Neural Networks for
Click-through Rate Prediction", KDD 2025, https://arxiv.org/abs/2505.17999.

Equation: with x the concatenated embeddings, H heads and R maps, a layer is
x <- concat_h sum_r x_h * relu(W_hr x + b_hr) + x: the Khatri-Rao product of x_h with its R maps, with the
activation inside the product and none after it; logit = w . x + b.
It is trained by the self-ensemble loss L(p, y) + L(p_1, p) + L(p_2, p): the mean p of the probabilities of
two passes with different dropout learns from the labels and teaches both passes (a constant there).

Shapes: ids (B, S) -> E (B, F, D) -> x (B, F * D) -> logit (B,).

Differs from the paper: this follows its abstract and the authors' code; the equations were not available. As
in that code, x_h is the h-th part of every field's vector, and the products are laid out head by head but the
residual field by field (else `heads` would change nothing). Embedding dropout is drawn once for both passes;
that code has none. `self_ensemble` off trains on the logloss of one pass, in half of the time.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers import loss
from pipeline.layers.mlp import ACTIVATIONS, Activation, Dropout, dense
from pipeline.layers.options import Count, Embed, Probability
from pipeline.schema import Schema


class QuadraticLayer(nn.Module):
    """x + sum_r x * relu(W_r x), head by head: (B, F * D) -> (B, F * D)."""

    def __init__(
        self,
        fields: int,
        dim: int,
        heads: int,
        maps: int,
        dropout: float,
        batch_norm: bool,
        activation: Activation,
    ) -> None:
        super().__init__()
        width = fields * dim
        norm = nn.BatchNorm1d(maps * width) if batch_norm else nn.Identity()
        self.maps = nn.Sequential(
            dense(width, maps * width), norm, ACTIVATIONS[activation](), Dropout(dropout)
        )
        self.shape, self.heads, self.r = (fields, heads, dim // heads), heads, maps

    def forward(self, x: Float[Tensor, "B E"]) -> Float[Tensor, "B E"]:
        x_h = x.unflatten(1, self.shape).transpose(1, 2).flatten(2)
        rows = self.maps(x).unflatten(1, (self.heads, self.r, -1))
        return (x_h * rows.sum(2)).flatten(1) + x


class QNN(nn.Module):
    """Quadratic layers, then a linear map."""

    def __init__(
        self,
        schema: Schema,
        *,
        embedding: Embed = Embed(16),
        layers: Count = 2,
        heads: Count = 1,
        maps: Count = 2,
        dropout: Probability = 0.0,
        batch_norm: bool = False,
        activation: Activation = "relu",
        self_ensemble: bool = True,
    ) -> None:
        if embedding.size % heads:
            raise ValueError(
                f"heads {heads} must divide embedding_size {embedding.size}: each has a part of every vector"
            )
        super().__init__()
        f = len(schema.fields)
        self.passes = 2 if self_ensemble else 1
        self.loss = loss.self_ensemble if self_ensemble else loss.of_mean
        self.embedding = embedding(schema)
        stack: list[nn.Module] = []
        for _ in range(layers):
            layer = QuadraticLayer(f, embedding.size, heads, maps, dropout, batch_norm, activation)
            stack += [layer, Dropout(dropout)]
        self.layers = nn.Sequential(*stack)
        self.out = dense(self.embedding.width, 1)

    def one_pass(self, x: Float[Tensor, "B E"]) -> Float[Tensor, " B"]:
        """Return the logits of these embeddings."""
        return self.out(self.layers(x)).squeeze(1)

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        return self.one_pass(self.embedding(ids).flatten(1))

    def heads(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, "H B"]:
        """Return the logits of two passes, each with a dropout of its own."""
        x = self.embedding(ids).flatten(1)
        return torch.stack([self.one_pass(x) for _ in range(self.passes)])
