"""GBDT+LR: a logistic regression on the leaves of boosted trees.

Paper: He et al., "Practical Lessons from Predicting Clicks on Ads at Facebook", ADKDD 2014,
https://doi.org/10.1145/2648584.2648589.

Equation: logit = w0 + sum_i w_i x_i + sum_t u_{t, leaf_t(r)}: of each tree t the weight of the leaf that
the row ends in; the trees see r, two numbers a field.

Shapes: ids (B, S) -> r (B, 2 F) -> leaves (T, L, B) -> logit (B,).

Differs from the paper: its inputs are numbers, these are categories. `layers/rates.py` makes numbers of
them, the click rate of each value and its count in the train rows. Rows are scored by the rates of all
train rows; the trees grow on rates that leave a row's own fold out, since with its own click in them they
tell its label. `held_out="both"` leaves it out where the weights are trained, too: better where values
are rare, but a train row then looks different in training and in scoring. The paper goes on training the
regression on later rows; here it has the trees' rows. The weights w_i of the values stand beside those
of the leaves (`ids=False`: leaves alone, as in the paper). Adam and L2 train them.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.data.batches import Batch
from pipeline.layers.embedding import FieldLinear
from pipeline.layers.forest import Forest, boost
from pipeline.layers.rates import ClickRates
from pipeline.schema import Schema


class GBDTLR(nn.Module):
    """A weight per leaf, a weight per id and a bias."""

    def __init__(
        self,
        schema: Schema,
        *,
        trees: int = 100,
        leaves: int = 12,
        tree_lr: float = 0.1,
        smoothing: float = 20.0,
        held_out: Literal["trees", "both"] = "trees",
        ids: bool = True,
    ) -> None:
        super().__init__()
        self.rates = ClickRates(schema, smoothing)
        self.forest = Forest(trees, leaves)
        self.u = nn.Parameter(torch.zeros(trees, leaves))
        self.linear = FieldLinear(schema) if ids else None
        self.bias = None if ids else nn.Parameter(torch.zeros(()))
        self.tree_lr, self.held_out = tree_lr, held_out

    def prepare(self, rows: Batch, _train: Callable[[nn.Module], Any]) -> None:
        """Count the clicks and grow the trees, on rates that leave a row's own fold out."""
        self.rates.count(rows.ids, rows.label)
        parts = [self.rates(ids, out_of_fold=True) for ids in rows.ids.split(2**16)]
        trees, leaves = self.u.shape
        self.forest.take(boost(torch.cat(parts), rows.label, trees=trees, leaves=leaves, lr=self.tree_lr))

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        r = self.rates(ids, out_of_fold=self.training and self.held_out == "both")
        leaves = self.forest(r).flatten(0, 1)
        values = self.bias if self.linear is None else self.linear(ids)
        return values + self.u.flatten() @ leaves.to(self.u.dtype)
