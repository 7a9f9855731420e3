"""DeepFM: a factorization machine and a network on one embedding.

Paper: Guo et al., "DeepFM: A Factorization-Machine based Neural Network for CTR Prediction",
IJCAI 2017, https://arxiv.org/abs/1703.04247.

Equation (eq. 1-4): logit = y_FM + y_DNN, with y_FM the machine of `fm.py` and y_DNN a network on the
concatenated field embeddings. Both share the embedding; there is one linear term and one bias.

Shapes: ids (B, S) -> logit (B,); the network reads (B, F * D).

Differs from the paper: dropout on the embeddings, a transform of them and batch norm as options; the
last layer has no bias of its own, since w0 is already there.
"""

from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers.embedding import FieldEmbedding, FieldLinear, Transform
from pipeline.layers.mlp import MLP, Activation, dense
from pipeline.layers.pairs import bi_interaction
from pipeline.schema import Schema


class DeepFM(nn.Module):
    """FM and MLP side by side."""

    def __init__(
        self,
        schema: Schema,
        *,
        embedding_size: int = 10,
        embedding_std: float = 0.01,
        embedding_dropout: float = 0.0,
        embedding_transform: Transform = "none",
        hidden: list[int] = [400, 400, 400],  # noqa: B006  never changed, only read
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
        self.mlp = MLP(
            len(schema.fields) * embedding_size,
            hidden,
            dropout=dropout,
            batch_norm=batch_norm,
            activation=activation,
        )
        self.out = dense(self.mlp.outputs, 1, bias=False)

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        v, e = self.embedding.terms_and_fields(ids)
        y_fm = self.linear(ids) + bi_interaction(v).sum(1)
        y_dnn = self.out(self.mlp(e.flatten(1))).squeeze(1)
        return y_fm + y_dnn
