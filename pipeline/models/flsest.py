"""FLSEST: squeeze-excitation with soft thresholds beside the plain embedding.

Paper: Chen, He and Zhou, "FLSEST: CTR model based on important features and soft threshold",
IJCCC 21(1), 2026, https://doi.org/10.15837/ijccc.2026.1.7069.

Equation: V = SEST(E) per general feature domain (eq. 1-8, `layers/excitation.py`);
logit = linear + w . concat[FwBI(E), FwBI(V), MLP(E), MLP(V)] with FwBI of eq. 12-14
(`layers/fwbi.py`) and MLP of eq. 17; the four share no weights, w has no bias.

Shapes: ids (B, S) -> E (B, F, D) -> V (B, F, D or 2D) -> logit (B,).

Differs from the paper: eq. 8 is a sum where the text says concatenation (`merge` offers both), and sigma2 is
not named (`threshold` offers relu and sigmoid). There is one linear term, as in section 3.4. `use_*` are the
ablations of Table 5.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers.embedding import FieldLinear
from pipeline.layers.excitation import DomainSEST
from pipeline.layers.fwbi import FwBI
from pipeline.layers.mlp import dense
from pipeline.layers.options import Count, Embed, Net, Probability
from pipeline.schema import Schema


class FLSEST(nn.Module):
    """FwBI and MLP on the embedding and on its SEST copy."""

    def __init__(
        self,
        schema: Schema,
        *,
        embedding: Embed = Embed(16),
        dicefactor: Probability = 0.0,
        reduction: Count = 3,
        merge: Literal["sum", "concat"] = "sum",
        threshold: Literal["relu", "sigmoid"] = "sigmoid",
        use_fwbi: bool = True,
        use_mlp: bool = True,
        use_sest: bool = True,
        network: Net = Net((200, 200, 200), dropout=0.5),
    ) -> None:
        if not (use_fwbi or use_mlp):
            raise ValueError("use_fwbi and use_mlp are both off: nothing is left but the linear term")
        super().__init__()
        self.linear = FieldLinear(schema)
        self.embedding = embedding(schema)
        self.sest = None
        if use_sest:
            self.sest = DomainSEST(schema, reduction=reduction, threshold=threshold, merge=merge)
        dims = [embedding.size]
        if use_sest:
            dims.append(embedding.size * (2 if merge == "concat" else 1))
        pooled = [FwBI(schema, dim, dicefactor=dicefactor) for dim in dims if use_fwbi]
        networks = [network(len(schema.fields) * dim) for dim in dims if use_mlp]
        self.fwbi = nn.ModuleList(pooled)
        self.mlp = nn.ModuleList(networks)
        widths = sum(dims) * use_fwbi + sum(mlp.outputs for mlp in networks)
        self.out = dense(widths, 1, bias=False)

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        e = self.embedding(ids)
        copies = [e] if self.sest is None else [e, self.sest(e)]
        # an ablated part has no modules
        parts = [fwbi(x) for fwbi, x in zip(self.fwbi, copies, strict=False)]
        parts += [mlp(x.flatten(1)) for mlp, x in zip(self.mlp, copies, strict=False)]
        return self.linear(ids) + self.out(torch.cat(parts, 1)).squeeze(1)
