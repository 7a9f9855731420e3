"""DNN: a network on the concatenated embeddings, the baseline of every deep model.

Paper: Covington, Adams and Sargin, "Deep Neural Networks for YouTube Recommendations", RecSys 2016,
https://doi.org/10.1145/2959100.2959190 (its ranking network).

Equation: logit = w . MLP(concat_f e_f) + b.

Shapes: ids (B, S) -> E (B, F, D) -> (B, F * D) -> logit (B,).

Differs from the paper: the loss is the plain logloss, not weighted by watch time; the values of a
multi-valued field are summed, not averaged; numbers are binned and embedded, not normalised inputs; all
fields have one embedding size.
"""

from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers.mlp import dense
from pipeline.layers.options import Embed, Net
from pipeline.schema import Schema


class DNN(nn.Module):
    """Embedding and MLP; without a linear term, so the last layer has the bias."""

    def __init__(
        self,
        schema: Schema,
        *,
        embedding: Embed = Embed(32),
        network: Net = Net((1024, 512, 256)),
    ) -> None:
        super().__init__()
        self.embedding = embedding(schema)
        self.mlp = network(self.embedding.width)
        self.out = dense(self.mlp.outputs, 1)

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        e = self.embedding(ids)
        return self.out(self.mlp(e.flatten(1))).squeeze(1)
