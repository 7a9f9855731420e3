"""FiBiNET: reweighted fields and bilinear pairs in front of a network.

Paper: Huang, Zhang and Zhang, "FiBiNET: Combining Feature Importance and Bilinear feature Interaction
for Click-Through Rate Prediction", RecSys 2019, https://arxiv.org/abs/1905.09433.

Equation: V = SENET(E) (`layers/excitation.py`); p_ij = (e_i W) * e_j on E and q_ij = (v_i W') * v_j on V
(`layers/bilinear.py`); logit = linear + MLP(concat[p, q]).

Shapes: ids (B, S) -> E, V (B, F, D) -> p, q (B, C, D) with C = F (F - 1) / 2 -> logit (B,).

Differs from the paper: p and q have matrices of their own, which the paper leaves open. `excitation`
`sest` puts FLSEST's unit in the place of SENET (FiBiSEST, FLSEST Table 4); `none` leaves V out. Dropout on
the embeddings, a transform of them and batch norm are options; the last layer has no bias of its own.
"""

from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers.bilinear import Bilinear, BilinearKind, bilinear
from pipeline.layers.embedding import FieldEmbedding, FieldLinear, Transform
from pipeline.layers.excitation import SENET, DomainSEST
from pipeline.layers.mlp import MLP, Activation, dense
from pipeline.schema import Schema


class FiBiNET(nn.Module):
    """Bilinear pairs of the embedding and of its reweighted copy."""

    def __init__(
        self,
        schema: Schema,
        *,
        embedding_size: int = 10,
        embedding_std: float = 0.01,
        embedding_dropout: float = 0.0,
        embedding_transform: Transform = "none",
        kind: BilinearKind = "interaction",
        excitation: Literal["senet", "sest", "none"] = "senet",
        reduction: int = 3,
        hidden: list[int] = [400, 400, 400],  # noqa: B006  never changed, only read
        dropout: float = 0.5,
        batch_norm: bool = False,
        activation: Activation = "relu",
    ) -> None:
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
        self.excite: nn.Module | None = None
        if excitation == "senet":
            self.excite = SENET(f, reduction=reduction)
        elif excitation == "sest":
            self.excite = DomainSEST(schema, reduction=reduction)
        copies = 1 if self.excite is None else 2
        self.bilinear = nn.ModuleList(Bilinear(f, embedding_size, kind=kind) for _ in range(copies))
        self.mlp = MLP(
            copies * f * (f - 1) // 2 * embedding_size,
            hidden,
            dropout=dropout,
            batch_norm=batch_norm,
            activation=activation,
        )
        self.out = dense(self.mlp.outputs, 1, bias=False)

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        e = self.embedding(ids)
        copies = [e] if self.excite is None else [e, self.excite(e)]
        c = bilinear([*self.bilinear], copies)
        return self.linear(ids) + self.out(self.mlp(c.flatten(1))).squeeze(1)
