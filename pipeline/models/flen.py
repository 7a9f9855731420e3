"""FLEN: field-wise bi-interaction over general feature domains beside a network.

Paper: Chen et al., "FLEN: Leveraging Field for Scalable CTR Prediction", 2019,
https://arxiv.org/abs/1911.04690.

Equation: with S_m the sum of the embeddings of domain m, between domains MF = sum_{i<j} r_ij S_i * S_j,
within them FM = sum_m r_mm [S_m * S_m - sum_n e_n * e_n] (`layers/fwbi.py`);
logit = linear + w . concat[MF + FM, MLP(E)]. r starts at 1 between the domains and at 0.5 within.
Dicefactor drops components of MF and of FM in training.

Shapes: ids (B, S) -> E (B, F, D) -> MF + FM (B, D), MLP (B, H) -> logit (B,).

Differs from the paper: the domains are those of the schema, however many. A learnt bias for MF and for
FM, as implementations have it; w has none. Two values of one bag are one embedding, their sum. Dropout on
the embeddings, a transform of them and batch norm are options.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers.embedding import FieldEmbedding, FieldLinear, Transform
from pipeline.layers.fwbi import FwBI
from pipeline.layers.mlp import MLP, Activation, dense
from pipeline.schema import Schema


class FLEN(nn.Module):
    """FwBI and MLP meet before the last layer."""

    def __init__(
        self,
        schema: Schema,
        *,
        embedding_size: int = 16,
        embedding_std: float = 0.01,
        embedding_dropout: float = 0.0,
        embedding_transform: Transform = "none",
        dicefactor: float = 0.0,
        hidden: list[int] = [200, 200, 200],  # noqa: B006  never changed, only read
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
        self.fwbi = FwBI(schema, embedding_size, dicefactor=dicefactor)
        self.mlp = MLP(
            len(schema.fields) * embedding_size,
            hidden,
            dropout=dropout,
            batch_norm=batch_norm,
            activation=activation,
        )
        self.out = dense(embedding_size + self.mlp.outputs, 1, bias=False)

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        e = self.embedding(ids)
        h = torch.cat([self.fwbi(e), self.mlp(e.flatten(1))], 1)
        return self.linear(ids) + self.out(h).squeeze(1)
