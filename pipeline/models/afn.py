"""AFN and AFN+: cross features whose order is learnt, as exponentials of weighted logarithms.

Paper: Cheng, Shen and Huang, "Adaptive Factorization Network: Learning Adaptive-Order Feature
Interactions", AAAI 2020, https://arxiv.org/abs/1909.03276.

Equation: the logarithmic neuron j is y_j = exp(sum_i w_ij ln e_i), component by component, which is the
product of the e_i to the powers w_ij; logit = MLP(concat of all y_j). AFN+ (`deep`) has a network on
embeddings of its own beside it: logit = w1 y_AFN + w2 y_DNN + b.

Shapes: ids (B, S) -> E (B, F, D) -> y (B, neurons, D) -> logit (B,).

Differs from the paper: fewer neurons and wider embeddings by default. Embeddings are made positive by
max(|e|, 1e-7). The batch norm of the logarithms is by field, that of the exponentials by neuron. w1 and
w2 of AFN+ are part of the last layer, which reads both networks: the same functions, trained as one
from the start. Dropout on the embeddings and batch norm of the networks are options.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers.embedding import FieldEmbedding, Transform
from pipeline.layers.mlp import MLP, Activation, dense
from pipeline.schema import Schema

TINY = 1e-7


class AFN(nn.Module):
    """Logarithmic neurons and a network on them, with `deep` another beside it."""

    def __init__(
        self,
        schema: Schema,
        *,
        embedding_size: int = 10,
        embedding_std: float = 0.01,
        embedding_dropout: float = 0.0,
        embedding_transform: Transform = "none",
        neurons: int = 64,
        deep: list[int] = [],  # noqa: B006  never changed, only read
        hidden: list[int] = [400, 400, 400],  # noqa: B006  never changed, only read
        dropout: float = 0.0,
        batch_norm: bool = False,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        f = len(schema.fields)

        def embedding() -> FieldEmbedding:
            return FieldEmbedding(
                schema,
                embedding_size,
                dropout=embedding_dropout,
                std=embedding_std,
                transform=embedding_transform,
            )

        def network(inputs: int, widths: list[int]) -> MLP:
            return MLP(inputs, widths, dropout=dropout, batch_norm=batch_norm, activation=activation)

        self.embedding = embedding()
        self.w = nn.Parameter(dense(f, neurons, bias=False).weight)
        self.norm_ln = nn.BatchNorm1d(f)
        self.norm_exp = nn.BatchNorm1d(neurons)
        self.mlp = network(neurons * embedding_size, hidden)
        self.deep_embedding = self.deep = None
        outputs = self.mlp.outputs
        if deep:
            self.deep_embedding = embedding()
            self.deep = network(f * embedding_size, deep)
            outputs += self.deep.outputs
        self.out = dense(outputs, 1)

    def neurons(self, e: Float[Tensor, "B F D"]) -> Float[Tensor, "B C D"]:
        """The logarithmic transformation layer."""
        ln_e = self.norm_ln(e.abs().clamp_min(TINY).log())
        return self.norm_exp((self.w @ ln_e).exp())

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        y = self.mlp(self.neurons(self.embedding(ids)).flatten(1))
        if self.deep is not None and self.deep_embedding is not None:
            y = torch.cat([y, self.deep(self.deep_embedding(ids).flatten(1))], 1)
        return self.out(y).squeeze(1)
