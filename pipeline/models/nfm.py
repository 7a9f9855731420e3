"""NFM: a network on the summed pairs of a factorization machine.

Paper: He and Chua, "Neural Factorization Machines for Sparse Predictive Analytics", SIGIR 2017,
https://arxiv.org/abs/1708.05027.

Equation: logit = w0 + sum_i w_i x_i + p . MLP(f_BI(V)),
f_BI(V) = sum_{i<j} x_i v_i * x_j v_j = 0.5 [(sum_i x_i v_i)^2 - sum_i (x_i v_i)^2], a vector. With no
hidden layer and p = 1 it is FM.

Shapes: ids (B, S) -> V (B, N, D) -> f_BI (B, D) -> logit (B,). The pairs are those of slots, so that two
values of one multi-valued field are a pair too, as all x_i are in the paper.

Differs from the paper: batch norm, on f_BI and in the network, is off by default. With `embedding_transform`
the pairs are those of fields.
"""

from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers.embedding import FieldLinear
from pipeline.layers.mlp import Dropout, dense
from pipeline.layers.options import Embed, Net, Probability
from pipeline.layers.pairs import bi_interaction
from pipeline.schema import Schema


class NFM(nn.Module):
    """Linear term plus a network on the summed pairs.

    Args:
        interaction_dropout: probability with which a component of f_BI is dropped in training.
    """

    def __init__(
        self,
        schema: Schema,
        *,
        embedding: Embed = Embed(64),
        interaction_dropout: Probability = 0.3,
        network: Net = Net((64,), dropout=0.5),
    ) -> None:
        super().__init__()
        self.linear = FieldLinear(schema)
        self.embedding = embedding(schema)
        self.norm = nn.BatchNorm1d(embedding.size) if network.batch_norm else nn.Identity()
        self.dropout = Dropout(interaction_dropout)
        self.mlp = network(embedding.size)
        self.p = dense(self.mlp.outputs, 1, bias=False)

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        v, _ = self.embedding.slots_and_fields(ids)
        f_bi = self.dropout(self.norm(bi_interaction(v)))
        return self.linear(ids) + self.p(self.mlp(f_bi)).squeeze(1)
