"""Embeddings and a network, nothing else: the baseline of every deep model.

Paper: Covington, Adams and Sargin, "Deep Neural Networks for YouTube Recommendations", RecSys 2016,
https://doi.org/10.1145/2959100.2959190 (its ranking network).

Equation: logit = w . MLP(concat_f e_f) + b.

Shapes: ids (B, S) -> E (B, F, D) -> (B, F * D) -> logit (B,).

Differs from the paper: the loss is the plain logloss, not weighted by watch time; the values of a bag
are summed, not averaged; numbers are bins with embeddings and not normalised inputs; one embedding
size for all fields. Dropout, on the embeddings too, a transform of them and batch norm are options.
"""

from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers.embedding import FieldEmbedding, Transform
from pipeline.layers.mlp import MLP, Activation, dense
from pipeline.schema import Schema


class DNN(nn.Module):
    """A network on the concatenated embeddings; no linear term, so the last layer has the bias."""

    def __init__(
        self,
        schema: Schema,
        *,
        embedding_size: int = 32,
        embedding_std: float = 0.01,
        embedding_dropout: float = 0.0,
        embedding_transform: Transform = "none",
        hidden: list[int] = [1024, 512, 256],  # noqa: B006  never changed, only read
        dropout: float = 0.0,
        batch_norm: bool = False,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        self.embedding = FieldEmbedding(
            schema,
            embedding_size,
            dropout=embedding_dropout,
            std=embedding_std,
            transform=embedding_transform,
        )
        self.mlp = MLP(
            len(schema.fields) * embedding_size,
            hidden,
            dropout=dropout,
            batch_norm=batch_norm,
            activation=activation,
        )
        self.out = dense(self.mlp.outputs, 1)

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        e = self.embedding(ids)
        return self.out(self.mlp(e.flatten(1))).squeeze(1)
