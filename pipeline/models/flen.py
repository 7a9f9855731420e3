"""FLEN: field-wise bi-interaction over general feature domains beside a network.

Paper: Chen et al., "FLEN: Leveraging Field for Scalable CTR Prediction", 2019,
https://arxiv.org/abs/1911.04690.

Equation: with S_m the sum of the embeddings of domain m, between domains MF = sum_{i<j} r_ij S_i * S_j,
within them FM = sum_m r_mm [S_m * S_m - sum_n e_n * e_n] (`layers/fwbi.py`);
logit = linear + w . concat[MF + FM, MLP(E)]. r starts at 1 between the domains and at 0.5 within.
`dicefactor` is the probability with which a component of MF or FM is dropped in training.

Shapes: ids (B, S) -> E (B, F, D) -> MF + FM (B, D), MLP (B, H) -> logit (B,).

Differs from the paper: there can be any number of domains, those of the schema. MF and FM have a learnt bias,
as in public code; w has none. A multi-valued field is one embedding, the sum of its values'.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers.embedding import FieldLinear
from pipeline.layers.fwbi import FwBI
from pipeline.layers.mlp import dense
from pipeline.layers.options import Embed, Net, Probability
from pipeline.schema import Schema


class FLEN(nn.Module):
    """FwBI and MLP, joined by the last layer."""

    def __init__(
        self,
        schema: Schema,
        *,
        embedding: Embed = Embed(16),
        dicefactor: Probability = 0.0,
        network: Net = Net((200, 200, 200), dropout=0.5),
    ) -> None:
        super().__init__()
        self.linear = FieldLinear(schema)
        self.embedding = embedding(schema)
        self.fwbi = FwBI(schema, embedding.size, dicefactor=dicefactor)
        self.mlp = network(self.embedding.width)
        self.out = dense(embedding.size + self.mlp.outputs, 1, bias=False)

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        e = self.embedding(ids)
        h = torch.cat([self.fwbi(e), self.mlp(e.flatten(1))], 1)
        return self.linear(ids) + self.out(h).squeeze(1)
