"""Neural factorization machine: the pairs of FM as one vector, read by a network.

Paper: He and Chua, "Neural Factorization Machines for Sparse Predictive Analytics", SIGIR 2017,
https://arxiv.org/abs/1708.05027.

Equation: logit = w0 + sum_i w_i x_i + p . MLP(f_BI(V)),
f_BI(V) = sum_{i<j} x_i v_i * x_j v_j = 0.5 [(sum_i x_i v_i)^2 - sum_i (x_i v_i)^2], a vector. With no
hidden layer and p = 1 it is FM.

Shapes: ids (B, S) -> V (B, N, D) -> f_BI (B, D) -> logit (B,). The pairs run over slots, so two
values of one multi-valued field make a pair too, as every x_i does in the paper.

Differs from the paper: dropout on the embeddings and a transform of them as options (with a
transform the pairs run over fields); batch norm, on f_BI and in the network, is off by default.
"""

from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers.embedding import FieldEmbedding, FieldLinear, Transform
from pipeline.layers.mlp import MLP, Activation, Dropout, dense
from pipeline.layers.pairs import bi_interaction
from pipeline.schema import Schema


class NFM(nn.Module):
    """Linear term plus a network on the pooled pairs.

    Args:
        interaction_dropout: probability with which a component of f_BI is dropped in training.
    """

    def __init__(
        self,
        schema: Schema,
        *,
        embedding_size: int = 64,
        embedding_std: float = 0.01,
        embedding_dropout: float = 0.0,
        embedding_transform: Transform = "none",
        interaction_dropout: float = 0.3,
        hidden: list[int] = [64],  # noqa: B006  never changed, only read
        dropout: float = 0.5,
        batch_norm: bool = False,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        self.linear = FieldLinear(schema)
        self.embedding = FieldEmbedding(
            schema,
            embedding_size,
            dropout=embedding_dropout,
            std=embedding_std,
            transform=embedding_transform,
        )
        self.norm = nn.BatchNorm1d(embedding_size) if batch_norm else nn.Identity()
        self.dropout = Dropout(interaction_dropout)
        self.mlp = MLP(embedding_size, hidden, dropout=dropout, batch_norm=batch_norm, activation=activation)
        self.p = dense(self.mlp.outputs, 1, bias=False)

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        v, _ = self.embedding.slots_and_fields(ids)
        f_bi = self.dropout(self.norm(bi_interaction(v)))
        return self.linear(ids) + self.p(self.mlp(f_bi)).squeeze(1)
