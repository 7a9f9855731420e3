"""AutoInt: multi-head self-attention over the fields.

Paper: Song et al., "AutoInt: Automatic Feature Interaction Learning via Self-Attentive Neural
Networks", CIKM 2019, https://arxiv.org/abs/1810.11921.

Equation, per layer and head h (eq. 5-8): a_mk = softmax_k <W_Q e_m, W_K e_k>, e~_m = sum_k a_mk W_V e_k;
the heads are concatenated, e_m <- ReLU(e~_m + W_Res e_m). At the end (eq. 9)
logit = w . concat[e_1 .. e_F] + b. With `hidden` a network on the embeddings stands beside it: AutoInt+.

Shapes: ids (B, S) -> E (B, F, D) -> (B, F, heads * attention_size) per layer -> logit (B,).

Differs from the paper: `scaling` divides the inner products by the root of their size, as libraries do;
the paper does not. Dropout acts on the attention weights and in the network. Dropout on the
embeddings, a transform of them and batch norm are options.
"""

from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers.attention import Interacting, interact, is_small
from pipeline.layers.embedding import FieldEmbedding, Transform
from pipeline.layers.mlp import MLP, Activation, dense
from pipeline.schema import Schema


class AutoInt(nn.Module):
    """Layers of attention, flattened; beside them a network where `hidden` has layers."""

    def __init__(
        self,
        schema: Schema,
        *,
        embedding_size: int = 16,
        embedding_std: float = 0.01,
        embedding_dropout: float = 0.0,
        embedding_transform: Transform = "none",
        attention_size: int = 32,
        heads: int = 2,
        attention_layers: int = 3,
        scaling: bool = False,
        hidden: list[int] = [],  # noqa: B006  never changed, only read
        dropout: float = 0.0,
        batch_norm: bool = False,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        f, self.size = len(schema.fields), attention_size
        self.embedding = FieldEmbedding(
            schema,
            embedding_size,
            dropout=embedding_dropout,
            std=embedding_std,
            transform=embedding_transform,
        )
        widths = [embedding_size, *[heads * attention_size] * attention_layers]
        self.layers = nn.Sequential(
            *[Interacting(w, attention_size, heads, scaling=scaling, dropout=dropout) for w in widths[:-1]]
        )
        self.out = dense(f * widths[-1], 1)
        self.plus: nn.Sequential | None = None
        if hidden:
            mlp = MLP(
                f * embedding_size, hidden, dropout=dropout, batch_norm=batch_norm, activation=activation
            )
            self.plus = nn.Sequential(mlp, dense(mlp.outputs, 1, bias=False))

    def attention(self, ids: Int[Tensor, "B S"]) -> list[Float[Tensor, "B heads F F"]]:
        """The attention weights of each layer: how much field m (third axis) takes from field k (last)."""
        e, found = self.embedding(ids), []
        for layer in self.layers:
            assert isinstance(layer, Interacting)
            found.append(layer.weights(e))
            e = layer(e)
        return found

    def interact(self, e: Float[Tensor, "B F D"]) -> Float[Tensor, "B F W"]:
        """All layers of attention."""
        if not self.layers or not is_small(e, e.shape[1], self.size):
            return self.layers(e)
        return interact([layer for layer in self.layers if isinstance(layer, Interacting)], e)

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        e = self.embedding(ids)
        logit = self.out(self.interact(e).flatten(1))
        if self.plus is not None:
            logit = logit + self.plus(e.flatten(1))
        return logit.squeeze(1)
