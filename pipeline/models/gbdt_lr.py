"""GBDT+LR: a logistic regression on the leaves of boosted trees.

Paper: He et al., "Practical Lessons from Predicting Clicks on Ads at Facebook", ADKDD 2014,
https://doi.org/10.1145/2648584.2648589.

Equation: logit = w0 + sum_i w_i x_i + sum_t u_{t, leaf_t(r)}: for each tree t the weight of the leaf that
the row falls into; the trees are grown on r, two numbers per field.

Shapes: ids (B, S) -> r (B, 2 F) -> leaves (T, L, B) -> logit (B,).

Differs from the paper: its inputs are numbers, these are categories, which `layers/rates.py` encodes as the
CTR and the count of each value in the train rows. Rows are scored with the rates of all train rows; trees are
grown on out-of-fold rates, since rates that include a row's own click leak its label. With
`held_out="both"` the weights are trained on out-of-fold rates too: better where values are rare, but then a
train row is encoded differently in training and in scoring. The paper trains the regression on later rows;
here it has the trees' rows. The values have weights w_i beside those of the leaves (`ids=False`: leaves
alone, as in the paper). The optimizer is Adam with L2.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.data.batches import Batch
from pipeline.layers.embedding import FieldLinear
from pipeline.layers.forest import Forest, boost
from pipeline.layers.neighbours import refuse_neighbours
from pipeline.layers.options import Count, Positive, TwoOrMore
from pipeline.layers.rates import ClickRates
from pipeline.schema import Schema


class GBDTLR(nn.Module):
    """One weight per leaf, one per id, and a bias."""

    warm = False  # the weights belong to the leaves of one forest: see train/warm.py

    def __init__(
        self,
        schema: Schema,
        *,
        trees: Count = 100,
        leaves: TwoOrMore = 12,
        tree_lr: Positive = 0.1,
        smoothing: Positive = 20.0,
        held_out: Literal["trees", "both"] = "trees",
        ids: bool = True,
    ) -> None:
        if not ids:
            refuse_neighbours(schema, "without `ids` the model has no weights for them")
        super().__init__()
        self.rates = ClickRates(schema, smoothing)
        self.forest = Forest(trees, leaves)
        self.u = nn.Parameter(torch.zeros(trees, leaves))
        self.linear = FieldLinear(schema) if ids else None
        self.bias = None if ids else nn.Parameter(torch.zeros(()))
        self.tree_lr, self.held_out = tree_lr, held_out

    def prepare(self, rows: Batch, _train: Callable[[nn.Module], Any]) -> None:
        """Count the clicks and grow the trees on out-of-fold rates."""
        self.rates.count(rows.ids, rows.label)
        parts = [self.rates(ids, out_of_fold=True) for ids in rows.ids.split(2**16)]
        trees, leaves = self.u.shape
        booster = boost(torch.cat(parts), rows.label, trees=trees, leaves=leaves, lr=self.tree_lr)
        self.forest.load_booster(booster)

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        r = self.rates(ids, out_of_fold=self.training and self.held_out == "both")
        leaves = self.forest(r).flatten(0, 1)
        values = self.bias if self.linear is None else self.linear(ids)
        return values + self.u.flatten() @ leaves.to(self.u.dtype)
