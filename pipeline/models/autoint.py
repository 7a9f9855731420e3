"""AutoInt: multi-head self-attention over the fields.

Paper: Song et al., "AutoInt: Automatic Feature Interaction Learning via Self-Attentive Neural
Networks", CIKM 2019, https://arxiv.org/abs/1810.11921.

Equation, per layer and head h (eq. 5-8): a_mk = softmax_k <W_Q e_m, W_K e_k>, e~_m = sum_k a_mk W_V e_k;
the heads are concatenated, e_m <- ReLU(e~_m + W_Res e_m). At the end (eq. 9)
logit = w . concat[e_1 .. e_F] + b. With `hidden` the logit of a network on the embeddings is added: AutoInt+.

Shapes: ids (B, S) -> E (B, F, D) -> (B, F, heads * attention_size) per layer -> logit (B,).

Differs from the paper: with `scaling` the inner products are divided by the square root of
`attention_size`, as in the Transformer; the paper does not scale. `dropout` acts on the attention weights
and in the network.
"""

from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers.attention import Interacting, InteractingLayers
from pipeline.layers.mlp import dense
from pipeline.layers.options import Count, Embed, Net
from pipeline.schema import Schema


class AutoInt(nn.Module):
    """Attention layers, flattened; with `hidden` a network beside them."""

    def __init__(
        self,
        schema: Schema,
        *,
        embedding: Embed = Embed(16),
        attention_size: Count = 32,
        heads: Count = 2,
        attention_layers: Count = 3,
        scaling: bool = False,
        network: Net = Net(()),
    ) -> None:
        super().__init__()
        self.embedding = embedding(schema)
        width = heads * attention_size
        self.layers = InteractingLayers(
            *(
                Interacting(inputs, attention_size, heads, scaling=scaling, dropout=network.dropout)
                for inputs in [embedding.size, *[width] * (attention_layers - 1)]
            )
        )
        self.out = dense(len(schema.fields) * width, 1)
        self.plus: nn.Sequential | None = None
        if network.hidden:
            mlp = network(self.embedding.width)
            self.plus = nn.Sequential(mlp, dense(mlp.outputs, 1, bias=False))

    def attention(self, ids: Int[Tensor, "B S"]) -> list[Float[Tensor, "B heads F F"]]:
        """Return each layer's attention weights a_mk: of field m (third axis) on field k (last axis)."""
        e, found = self.embedding(ids), []
        for layer in self.layers:
            assert isinstance(layer, Interacting)
            found.append(layer.weights(e))
            e = layer(e)
        return found

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        e = self.embedding(ids)
        logit = self.out(self.layers(e).flatten(1))
        if self.plus is not None:
            logit = logit + self.plus(e.flatten(1))
        return logit.squeeze(1)
