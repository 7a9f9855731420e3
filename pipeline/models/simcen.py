"""SimCEN: an MLP over three views of the fields; their vectors gate two views made of products.

Paper: Li et al., "SimCEN: Simple Contrast-enhanced Network for CTR Prediction", ACM MM 2024,
https://openreview.net/forum?id=pJHu4hDlLX.

Equation: of the fields' vectors e_i and their products p_ij = e_i^T W e_j the views are u = [e_1, ..., e_F],
v_1 = P_1 [p_ij, i <= j] and v_2 = P_2 [p_ij, i >= j]. A layer is

    [u, v_1, v_2] <- A [u, v_1, v_2] + a,   g = sigmoid(G u + c) / tau   (tau a vector),
    v_k <- g * v_k + v_k, from the second layer on + n_k + v_k as it was before   (n_k a vector),

then batch norm, activation and dropout, view by view. At the end v_k <- v_k + dropout(u), and
logit = w . [u, v_1, v_2] + b. It is trained by L + alpha mean_r l_r, with the views at unit length in

    l_r = -log(exp((u_r . v_1r + u_r . v_2r) / 2t) / sum_s exp(v_1r . v_2s / t) + 1e-5), s the batch's rows.

Shapes: ids (B, S) -> E (B, F, D) -> views (B, 3, F * D) -> (B, 3, H) per layer -> logit (B,).

Differs from the paper: this follows its abstract and the authors' code; the equations were not available.
`hidden` are the widths of a single view (there 160, stated as 480 for all three); where a layer changes the
width, v_k as it was before is left out, as in that code's second network. Batch norm, on for four of the five
datasets in the authors' logs, is off by default, and `dropout` is one rate for all views (there one each).
`first_activation` and `second_activation` are those of v_1 and v_2. `contrast` is alpha, 0 for the logloss
alone, and `temperature` is t (there .2 to .3, and 2 on one dataset). The rows s are those of a rank's share.
"""

from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers.loss import Loss
from pipeline.layers.mlp import Dropout, dense
from pipeline.layers.options import Embed, Net, NonNegative, Positive, Probability
from pipeline.layers.views import GatedViews, ViewActivation, contrast, with_contrast
from pipeline.schema import Schema


class SimCEN(nn.Module):
    """Gated layers over the vectors and two sets of their products, then a linear map."""

    upper: Tensor
    lower: Tensor

    def __init__(
        self,
        schema: Schema,
        *,
        embedding: Embed = Embed(16),
        network: Net = Net((160, 160, 160), dropout=0.2),
        first_activation: ViewActivation = "mish",
        second_activation: ViewActivation = "gelu",
        through_dropout: Probability = 0.1,
        contrast: NonNegative = 0.01,
        temperature: Positive = 0.2,
    ) -> None:
        super().__init__()
        self.alpha, self.temperature = contrast, temperature
        self.embedding = embedding(schema)
        f, width = len(schema.fields), self.embedding.width
        for name, (i, j) in (("upper", torch.triu_indices(f, f)), ("lower", torch.tril_indices(f, f))):
            self.register_buffer(name, i * f + j, persistent=False)
        self.w = dense(embedding.size, embedding.size, bias=False)
        self.p1, self.p2 = (dense(len(self.upper), width, bias=False) for _ in range(2))
        widths, activations = [width, *network.hidden], (first_activation, second_activation)
        self.layers = nn.Sequential(
            *(GatedViews(*pair, network, activations, first=not i) for i, pair in enumerate(pairwise(widths)))
        )
        self.through = Dropout(through_dropout)
        self.out = dense(3 * widths[-1], 1)

    def views(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, "B K H"]:
        """Return u, v_1 and v_2 at the end."""
        e = self.embedding(ids)
        p = (self.w(e) @ e.mT).flatten(1)
        v1, v2 = self.p1(p.index_select(1, self.upper)), self.p2(p.index_select(1, self.lower))
        u, v = self.layers(torch.stack([e.flatten(1), v1, v2], 1)).tensor_split([1], 1)
        return torch.cat([u, v + self.through(u)], 1)

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        return self.out(self.views(ids).flatten(1)).squeeze(1)

    def heads(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, "H B"]:
        """Return z, the logit, and z + l; without contrast z alone."""
        views = self.views(ids)
        z = self.out(views.flatten(1)).squeeze(1)
        return torch.stack([z, z + contrast(views, self.temperature)] if self.alpha else [z])

    def loss(self, heads: Float[Tensor, "H B"], label: Float[Tensor, " B"]) -> Loss:
        return with_contrast(heads, label, self.alpha)
