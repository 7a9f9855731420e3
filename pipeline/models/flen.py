"""FLEN: field-wise bi-interaction over general feature domains beside a network.

Paper: Chen et al., "FLEN: Leveraging Field for Scalable CTR Prediction", 2019,
https://arxiv.org/abs/1911.04690.

Equation: with S_m the sum of the embeddings of domain m, between domains MF = sum_{i<j} r_ij S_i * S_j,
within them FM = sum_m r_mm [S_m * S_m - sum_n e_n * e_n] (`layers/fwbi.py`);
h_FwBI = relu(W_FwBI concat[linear, MF + FM]); logit = w . concat[h_FwBI, MLP(E)].

Shapes: ids (B, S) -> E (B, F, D) -> h_FwBI (B, D + 1), MLP (B, H) -> logit (B,).

Differs from the paper: `joint=linear` is DeepCTR's form, logit = linear + w . concat[MF + FM, MLP(E)]. There
can be any number of domains, those of the schema. r starts at 1 between the domains and at 0.5 within. MF and
FM have a learnt bias, as in public code; W_FwBI and w have none. A multi-valued field is one embedding, the
sum of its values'. DiceFactor, the probability with which a component of MF or FM (`dice=pairs`: a pair of
fields) is dropped in training, is off by default.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers.embedding import FieldLinear
from pipeline.layers.fwbi import Dice, FwBI
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
        dice: Dice = "components",
        joint: Literal["relu", "linear"] = "relu",
        network: Net = Net((200, 200, 200), dropout=0.5),
    ) -> None:
        super().__init__()
        self.linear = FieldLinear(schema)
        self.embedding = embedding(schema)
        self.fwbi = FwBI(schema, embedding.size, dicefactor=dicefactor, dice=dice)
        self.mlp = network(self.embedding.width)
        size = embedding.size + (joint == "relu")
        self.join = dense(size, size, bias=False) if joint == "relu" else None
        self.out = dense(size + self.mlp.outputs, 1, bias=False)

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        e, linear = self.embedding(ids), self.linear(ids)
        h, deep = self.fwbi(e), self.mlp(e.flatten(1))
        if self.join is None:
            return linear + self.out(torch.cat([h, deep], 1)).squeeze(1)
        h = torch.relu(self.join(torch.cat([linear.unsqueeze(1), h], 1)))
        return self.out(torch.cat([h, deep], 1)).squeeze(1)
