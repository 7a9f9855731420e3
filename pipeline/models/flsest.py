"""FLSEST: squeeze-excitation with soft thresholds beside the plain embedding.

Paper: Chen, He and Zhou, "FLSEST: CTR model based on important features and soft threshold",
IJCCC 21(1), 2026, https://doi.org/10.15837/ijccc.2026.1.7069.

Equation: V = SEST(E) (eq. 1-8, `layers/excitation.py`);
logit = linear + w . relu(concat[FwBI(E), FwBI(V), MLP(E), MLP(V)]) with FwBI of eq. 12-14
(`layers/fwbi.py`) and MLP of eq. 17; the four share no weights, w has no bias.

Shapes: ids (B, S) -> E (B, F, D) -> V (B, F, D or 2D) -> logit (B,).

Differs from the paper: it leaves much open, and its authors' code ("the code") has other things. `scope` is
all fields, which eq. 1-7 run over, or each general domain for itself, as in the code. Reweighting gates are
one a field (eq. 6) or, with `gate=component`, one a component ("a_i in R^k", below eq. 7). sigma2 is not
named: relu for these gates, as in SENET; `threshold` for the thresholds, where relu can remove a field.
`merge`: eq. 8 is a sum, its text and the code say concatenation. `joint` relu is the "joint processing
through ReLU" of the four parts (section 3); the code has none (`linear`). DiceFactor drops pairs of fields
("randomly discard the feature interactions"), or components with `dice=components`; it is off, since the
code has none. There is one linear term, as in section 3.4. FwBI has the code's bias vectors; r starts at 1
between domains and 0.5 within them. Embeddings start at N(0, 1e-4^2), as in the code; W1 to W4 as in
`layers/excitation.py`, so that no unit is dead from the start. The code's L2 is 1e-5 on linear weights and
1e-6 on embeddings, in Keras without a factor 1/2; here it belongs to training. Dropout, of which nothing is
said, is 0.5. Table 5's ablations are `use_fwbi`, `use_mlp` and `second_copy` none; `second_copy` same (V =
E) tells what a second copy brings without SEST.
"""

from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers.embedding import FieldLinear
from pipeline.layers.excitation import SEST, DomainSEST
from pipeline.layers.fwbi import Dice, FwBI
from pipeline.layers.mlp import dense
from pipeline.layers.options import Count, Embed, Net, Probability
from pipeline.schema import Schema


class FLSEST(nn.Module):
    """FwBI and MLP on the embedding and on its SEST copy."""

    def __init__(
        self,
        schema: Schema,
        *,
        embedding: Embed = Embed(16, std=1e-4),
        dicefactor: Probability = 0.0,
        dice: Dice = "pairs",
        second_copy: Literal["sest", "same", "none"] = "sest",
        scope: Literal["all", "domain"] = "all",
        reduction: Count = 3,
        gate: Literal["field", "component"] = "field",
        merge: Literal["sum", "concat"] = "sum",
        threshold: Literal["relu", "sigmoid"] = "sigmoid",
        use_fwbi: bool = True,
        use_mlp: bool = True,
        joint: Literal["relu", "linear"] = "relu",
        network: Net = Net((200, 200, 200), dropout=0.5),
    ) -> None:
        if not (use_fwbi or use_mlp):
            raise ValueError("use_fwbi and use_mlp are both off: nothing is left but the linear term")
        super().__init__()
        self.linear = FieldLinear(schema)
        self.embedding = embedding(schema)
        dims = [embedding.size]
        self.sest: nn.Module | None = None
        if second_copy == "sest":
            options: dict[str, Any] = {
                "reduction": reduction,
                "threshold": threshold,
                "merge": merge,
                "components": embedding.size if gate == "component" else None,
            }
            fields = len(schema.fields)
            self.sest = SEST(fields, **options) if scope == "all" else DomainSEST(schema, **options)
            dims.append(embedding.size * (2 if merge == "concat" else 1))
        elif second_copy == "same":
            self.sest = nn.Identity()
            dims.append(embedding.size)
        pooled = [FwBI(schema, dim, dicefactor=dicefactor, dice=dice) for dim in dims if use_fwbi]
        networks = [network(len(schema.fields) * dim) for dim in dims if use_mlp]
        self.fwbi = nn.ModuleList(pooled)
        self.mlp = nn.ModuleList(networks)
        widths = sum(dims) * use_fwbi + sum(mlp.outputs for mlp in networks)
        self.joint = nn.ReLU() if joint == "relu" else nn.Identity()
        self.out = dense(widths, 1, bias=False)

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        e = self.embedding(ids)
        copies = [e] if self.sest is None else [e, self.sest(e)]
        # an ablated part has no modules
        parts = [fwbi(x) for fwbi, x in zip(self.fwbi, copies, strict=False)]
        parts += [mlp(x.flatten(1)) for mlp, x in zip(self.mlp, copies, strict=False)]
        return self.linear(ids) + self.out(self.joint(torch.cat(parts, 1))).squeeze(1)
