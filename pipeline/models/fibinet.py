"""FiBiNET: reweighted fields and bilinear pairs in front of a network.

Paper: Huang, Zhang and Zhang, "FiBiNET: Combining Feature Importance and Bilinear feature Interaction
for Click-Through Rate Prediction", RecSys 2019, https://arxiv.org/abs/1905.09433.

Equation: V = SENET(E) (`layers/excitation.py`); p_ij = (e_i W) * e_j on E and q_ij = (v_i W') * v_j on V
(`layers/bilinear.py`); logit = linear + MLP(concat[p, q]).

Shapes: ids (B, S) -> E, V (B, F, D) -> p, q (B, C, D) with C = F (F - 1) / 2 -> logit (B,).

Differs from the paper: p and q have separate matrices W and W', which the paper leaves open. The last
layer has no bias, since w0 of the linear term is one. W2 of SENET starts with absolute values, so that
no gate is zero for every row from the start. `excitation` `sest` replaces SENET by FLSEST's unit over all
fields (FiBiSEST, FLSEST Table 4); `none` omits V and q.
"""

from math import comb
from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers.bilinear import Bilinear, BilinearKind, Bilinears
from pipeline.layers.embedding import FieldLinear
from pipeline.layers.excitation import SENET, SEST
from pipeline.layers.mlp import dense
from pipeline.layers.options import Count, Embed, Net
from pipeline.schema import Schema


class FiBiNET(nn.Module):
    """Bilinear pairs of the embedding and of its reweighted copy."""

    def __init__(
        self,
        schema: Schema,
        *,
        embedding: Embed = Embed(10),
        kind: BilinearKind = "interaction",
        excitation: Literal["senet", "sest", "none"] = "senet",
        reduction: Count = 3,
        network: Net = Net(dropout=0.5),
    ) -> None:
        super().__init__()
        f = len(schema.fields)
        self.linear = FieldLinear(schema)
        self.embedding = embedding(schema)
        self.excite: nn.Module | None = None
        if excitation == "senet":
            self.excite = SENET(f, reduction=reduction)
        elif excitation == "sest":
            self.excite = SEST(f, reduction=reduction)
        copies = 1 if self.excite is None else 2
        self.bilinear = Bilinears(Bilinear(f, embedding.size, kind=kind) for _ in range(copies))
        self.mlp = network(copies * comb(f, 2) * embedding.size)
        self.out = dense(self.mlp.outputs, 1, bias=False)

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        e = self.embedding(ids)
        c = self.bilinear([e] if self.excite is None else [e, self.excite(e)])
        return self.linear(ids) + self.out(self.mlp(c.flatten(1))).squeeze(1)
