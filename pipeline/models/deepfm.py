"""DeepFM: a factorization machine and a network on one embedding.

Paper: Guo et al., "DeepFM: A Factorization-Machine based Neural Network for CTR Prediction",
IJCAI 2017, https://arxiv.org/abs/1703.04247.

Equation (eq. 1-4): logit = y_FM + y_DNN, with y_FM the factorization machine of `fm.py` and y_DNN a
network on the concatenated field embeddings. Both share the embedding; there is one linear term and one bias.

Shapes: ids (B, S) -> logit (B,); the network reads (B, F * D).

Differs from the paper: the last layer has no bias of its own, since w0 is already there.
"""

from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers.embedding import FieldLinear
from pipeline.layers.mlp import dense
from pipeline.layers.options import Embed, Net
from pipeline.layers.pairs import bi_interaction
from pipeline.schema import Schema


class DeepFM(nn.Module):
    """FM and MLP side by side."""

    def __init__(
        self, schema: Schema, *, embedding: Embed = Embed(10), network: Net = Net(dropout=0.5)
    ) -> None:
        super().__init__()
        self.linear = FieldLinear(schema)
        self.embedding = embedding(schema)
        self.mlp = network(self.embedding.width)
        self.out = dense(self.mlp.outputs, 1, bias=False)

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        v, e = self.embedding.slots_and_fields(ids)  # two values of one bag are a pair, too
        y_fm = self.linear(ids) + bi_interaction(v).sum(1)
        y_dnn = self.out(self.mlp(e.flatten(1))).squeeze(1)
        return y_fm + y_dnn
