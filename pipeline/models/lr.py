"""LR: logistic regression.

Paper: McMahan et al., "Ad Click Prediction: a View from the Trenches", KDD 2013,
https://doi.org/10.1145/2487575.2488200.

Equation: logit = w0 + sum_i w_i x_i. A multi-valued field adds the weights of all its values.

Shapes: ids (B, S) -> logit (B,).

Differs from the paper: the optimizer is Adam with L2, not FTRL-Proximal.
"""

from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers.embedding import FieldLinear
from pipeline.schema import Schema


class LR(nn.Module):
    """One weight per id, and a bias."""

    def __init__(self, schema: Schema) -> None:
        super().__init__()
        self.linear = FieldLinear(schema)

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        return self.linear(ids)
