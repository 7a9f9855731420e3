"""FLSEST: squeeze-excitation with soft thresholds beside the plain embedding.

Paper: Chen, He and Zhou, "FLSEST: CTR model based on important features and soft threshold",
IJCCC 21(1), 2026, https://doi.org/10.15837/ijccc.2026.1.7069.

Equation: V = SEST(E) per general feature domain (eq. 1-8, `layers/excitation.py`);
logit = linear + w . concat[FwBI(E), FwBI(V), MLP(E), MLP(V)] with FwBI of eq. 12-14
(`layers/fwbi.py`) and MLP of eq. 17; each of the four has weights of its own, w has no bias.

Shapes: ids (B, S) -> E (B, F, D) -> V (B, F, D or 2D) -> logit (B,).

Differs from the paper: eq. 8 is a sum where the text says concatenation (`merge` offers both), and
sigma2 is not named (`threshold` offers relu and sigmoid). The linear term stands once (section
3.4). `use_*` are the ablations of Table 5. The embeddings' initial deviation and dropout, and batch
norm, are options.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers.embedding import FieldEmbedding, FieldLinear, Transform
from pipeline.layers.excitation import DomainSEST
from pipeline.layers.fwbi import FwBI
from pipeline.layers.mlp import MLP, Activation, dense
from pipeline.schema import Schema


class FLSEST(nn.Module):
    """FwBI and MLP on the embedding and on its SEST copy."""

    def __init__(
        self,
        schema: Schema,
        *,
        embedding_size: int = 16,
        embedding_std: float = 0.01,
        embedding_dropout: float = 0.0,
        embedding_transform: Transform = "none",
        hidden: list[int] = [200, 200, 200],  # noqa: B006  never changed, only read
        dropout: float = 0.5,
        dicefactor: float = 0.0,
        reduction: int = 3,
        merge: Literal["sum", "concat"] = "sum",
        threshold: Literal["relu", "sigmoid"] = "sigmoid",
        use_fwbi: bool = True,
        use_mlp: bool = True,
        use_sest: bool = True,
        batch_norm: bool = False,
        activation: Activation = "relu",
    ) -> None:
        if not (use_fwbi or use_mlp):
            raise ValueError("use_fwbi and use_mlp are both off: nothing is left but the linear term")
        super().__init__()
        f = len(schema.fields)
        self.linear = FieldLinear(schema)
        self.embedding = FieldEmbedding(
            schema,
            embedding_size,
            dropout=embedding_dropout,
            std=embedding_std,
            transform=embedding_transform,
        )
        self.sest = None
        if use_sest:
            self.sest = DomainSEST(schema, reduction=reduction, threshold=threshold, merge=merge)
        dims = [embedding_size]
        if use_sest:
            dims.append(embedding_size * (2 if merge == "concat" else 1))
        self.fwbi = nn.ModuleList(
            FwBI(schema, dim, dicefactor=dicefactor) for dim in (dims if use_fwbi else ())
        )
        networks = [
            MLP(f * dim, hidden, dropout=dropout, batch_norm=batch_norm, activation=activation)
            for dim in (dims if use_mlp else ())
        ]
        self.mlp = nn.ModuleList(networks)
        widths = sum(dims) * use_fwbi + sum(mlp.outputs for mlp in networks)
        self.out = dense(widths, 1, bias=False)

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        e = self.embedding(ids)
        copies = [e] if self.sest is None else [e, self.sest(e)]
        # not strict: an ablated part has no modules
        parts = [fwbi(x) for fwbi, x in zip(self.fwbi, copies, strict=False)]
        parts += [mlp(x.flatten(1)) for mlp, x in zip(self.mlp, copies, strict=False)]
        return self.linear(ids) + self.out(torch.cat(parts, 1)).squeeze(1)
