"""Factorization machine.

Paper: Rendle, "Factorization Machines", ICDM 2010, https://doi.org/10.1109/ICDM.2010.127.

Equation (eq. 1 and lemma 3.1):
logit = w0 + sum_i w_i x_i + sum_{i<j} <v_i, v_j> x_i x_j,
the pairs as 0.5 sum_d [(sum_i v_id)^2 - sum_i v_id^2] (`layers/machine.py`).

Shapes: ids (B, S) -> logit (B,). The pairs run over slots, so two values of one multi-valued field
make a pair too, as every x_i does in the paper.

Differs from the paper: dropout on the embeddings and a transform of them as options; with a
transform (FM+SENET, FM+SEST) the pairs run over fields.
"""

from pipeline.layers.embedding import Transform
from pipeline.layers.fm import FactorizationMachine
from pipeline.schema import Schema


class FM(FactorizationMachine):
    """Linear term plus the inner products of all pairs."""

    def __init__(
        self,
        schema: Schema,
        *,
        embedding_size: int = 16,
        embedding_std: float = 0.01,
        embedding_dropout: float = 0.0,
        embedding_transform: Transform = "none",
    ) -> None:
        super().__init__(
            schema,
            embedding_size,
            dropout=embedding_dropout,
            std=embedding_std,
            transform=embedding_transform,
        )
