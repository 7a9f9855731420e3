"""QNN-alpha: layers of quadratic neurons, the input times activated maps of itself.

Paper: Li et al., "Revisiting Feature Interactions from the Perspective of Quadratic Neural Networks for
Click-through Rate Prediction", KDD 2025, https://arxiv.org/abs/2505.17999.

Equation: with x the concatenated embeddings, H heads and R maps, a layer is
x <- concat_h sum_r x_h * relu(W_hr x + b_hr) + x: the products of x_h with the R rows of the maps (a
Khatri-Rao product), the activation in the middle and none after; logit = w . x + b.

Shapes: ids (B, S) -> E (B, F, D) -> x (B, F * D) -> logit (B,).

Differs from the paper: its equations could not be read, so this follows its abstract and the authors'
code. There x_h holds the h-th part of every field's vector, and the products come back head by head
while the residual is field by field; so it is here, as otherwise `heads` would change nothing. Their
loss on two passes with different dropout (self-ensemble) belongs to the training and is left out.
Dropout on the embeddings and the activation are options.
"""

from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers.embedding import FieldEmbedding, Transform
from pipeline.layers.mlp import ACTIVATIONS, Activation, Dropout, dense
from pipeline.schema import Schema


class QuadraticLayer(nn.Module):
    """x + sum_r x * relu(W_r x), the heads' parts one after the other: (B, F * D) -> (B, F * D)."""

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
    """Quadratic layers and a linear map."""

    def __init__(
        self,
        schema: Schema,
        *,
        embedding_size: int = 16,
        embedding_std: float = 0.01,
        embedding_dropout: float = 0.0,
        embedding_transform: Transform = "none",
        layers: int = 2,
        heads: int = 1,
        maps: int = 2,
        dropout: float = 0.0,
        batch_norm: bool = False,
        activation: Activation = "relu",
    ) -> None:
        if embedding_size % heads:
            raise ValueError(
                f"heads {heads} must divide embedding_size {embedding_size}: each has a part of every vector"
            )
        super().__init__()
        f = len(schema.fields)
        self.embedding = FieldEmbedding(
            schema,
            embedding_size,
            dropout=embedding_dropout,
            std=embedding_std,
            transform=embedding_transform,
        )
        stack: list[nn.Module] = []
        for _ in range(layers):
            layer = QuadraticLayer(f, embedding_size, heads, maps, dropout, batch_norm, activation)
            stack += [layer, Dropout(dropout)]
        self.layers = nn.Sequential(*stack)
        self.out = dense(f * embedding_size, 1)

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        x = self.layers(self.embedding(ids).flatten(1))
        return self.out(x).squeeze(1)
