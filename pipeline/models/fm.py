"""FM: a factorization machine.

Paper: Rendle, "Factorization Machines", ICDM 2010, https://doi.org/10.1109/ICDM.2010.127.

Equation (eq. 1 and lemma 3.1):
logit = w0 + sum_i w_i x_i + sum_{i<j} <v_i, v_j> x_i x_j,
the pairs as 0.5 sum_d [(sum_i v_id)^2 - sum_i v_id^2] (`layers/fm.py`).

Shapes: ids (B, S) -> logit (B,). The pairs are those of slots, so that two values of one multi-valued field
are a pair too, as all x_i are in the paper.

Differs from the paper: with `embedding_transform` (FM+SENET, FM+SEST) the pairs are those of fields.
"""

from pipeline.layers.fm import FactorizationMachine
from pipeline.layers.options import Embed
from pipeline.schema import Schema


class FM(FactorizationMachine):
    """Linear term plus the inner products of all pairs."""

    def __init__(self, schema: Schema, *, embedding: Embed = Embed(16)) -> None:
        super().__init__(schema, embedding)
