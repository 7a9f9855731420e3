"""AFN and AFN+: cross features whose order is learnt, as exponentials of weighted logarithms.

Paper: Cheng, Shen and Huang, "Adaptive Factorization Network: Learning Adaptive-Order Feature
Interactions", AAAI 2020, https://arxiv.org/abs/1909.03276.

Equation: the logarithmic neuron j is y_j = exp(sum_i w_ij ln e_i), component by component, which is the
product of the e_i to the powers w_ij; logit = MLP(concat of all y_j). AFN+ (`deep`) adds a network on a
second embedding: logit = w1 y_AFN + w2 y_DNN + b.

Shapes: ids (B, S) -> E (B, F, D) -> y (B, neurons, D) -> logit (B,).

Differs from the paper: fewer neurons and wider embeddings by default. Embeddings are made positive by
max(|e|, 1e-5), as in FuxiCTR (the paper: 1e-7). Batch norm of the logarithms is per field, that of the
exponentials per neuron. What is not there, an id unseen in training or an empty bag, has no logarithm: its
normalised one is 0, their mean, and so is that of a component dropped by `embedding_dropout`; a zero in
front of the logarithm would be by far the largest signal. A row that starts at zero has no gradient here.
AFN+ has one last layer on both networks, with w1 and w2 in its weights: the same function, trained jointly
from the start.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers.mlp import Dropout, dense
from pipeline.layers.options import Count, Embed, Net
from pipeline.schema import Schema

TINY = 1e-5


class AFN(nn.Module):
    """Logarithmic neurons and a network on them; with `deep` a second network on the plain embeddings."""

    def __init__(
        self,
        schema: Schema,
        *,
        embedding: Embed = Embed(10),
        neurons: Count = 64,
        deep: Sequence[Count] = (),
        network: Net = Net(),
    ) -> None:
        super().__init__()
        f = len(schema.fields)
        self.embedding = Embed(embedding.size, embedding.std, transform=embedding.transform)(schema)
        self.dropout = Dropout(embedding.dropout)
        self.w = nn.Parameter(dense(f, neurons, bias=False).weight)
        self.norm_ln = nn.BatchNorm1d(f)
        self.norm_exp = nn.BatchNorm1d(neurons)
        self.mlp = network(neurons * embedding.size)
        self.deep_embedding = self.deep = None
        outputs = self.mlp.outputs
        if deep:
            self.deep_embedding = embedding(schema)
            self.deep = network(self.deep_embedding.width, deep)
            outputs += self.deep.outputs
        self.out = dense(outputs, 1)

    def neurons(self, e: Float[Tensor, "B F D"]) -> Float[Tensor, "B C D"]:
        """The logarithmic transformation layer."""
        there = (e != 0).any(2, keepdim=True)
        ln_e = self.dropout(self.norm_ln(e.abs().clamp_min(TINY).log()) * there)
        return self.norm_exp((self.w @ ln_e).exp())

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        y = self.mlp(self.neurons(self.embedding(ids)).flatten(1))
        if self.deep is not None and self.deep_embedding is not None:
            y = torch.cat([y, self.deep(self.deep_embedding(ids).flatten(1))], 1)
        return self.out(y).squeeze(1)
