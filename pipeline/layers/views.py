"""SimCEN's views of a row: layers in which the first gates the other two, and what contrasts them.

Source: Li et al., "SimCEN", ACM MM 2024, https://openreview.net/forum?id=pJHu4hDlLX, as in the authors' code.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from pipeline.layers.loss import Loss, of_mean
from pipeline.layers.mechanism import Mechanism
from pipeline.layers.mlp import ACTIVATIONS, Dropout, dense
from pipeline.layers.options import Net

ViewActivation = Literal["relu", "leaky_relu", "mish", "gelu"]
VIEW_ACTIVATIONS: dict[ViewActivation, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "mish": nn.Mish,
    "gelu": nn.GELU,
}
EPSILON = 1e-5  # bounds the loss of a row, whose share of a large batch is small however close its views are


class GatedViews(nn.Module):
    """A linear layer of all views u, v_1 and v_2, then g * v_k + v_k with gates g of u alone.

    g = sigmoid(G u + c) / tau with a vector tau. A layer that is not the first adds n_k, a vector learnt from
    U(0, 1), and v_k as it was before. Each view then has its batch norm, activation and dropout.

    Shapes: (B, 3, I) -> (B, 3, H).

    Args:
        inputs: I, of a view.
        width: H, of a view; if it is not I, v_k as it was before is left out.
        network: batch norm, dropout, and the activation of u.
        activations: of v_1 and v_2.
        first: whether it is the first layer.
    """

    def __init__(
        self,
        inputs: int,
        width: int,
        network: Net,
        activations: tuple[ViewActivation, ViewActivation],
        *,
        first: bool,
    ) -> None:
        super().__init__()
        self.a, self.gate = dense(3 * inputs, 3 * width), dense(width, width)
        self.tau, self.gates = nn.Parameter(torch.ones(width)), Mechanism("gate", 0.0)
        self.noise = None if first else nn.Parameter(torch.rand(2, width))
        self.residual = not first and inputs == width
        norm = nn.BatchNorm1d if network.batch_norm else nn.Identity
        kinds = ACTIVATIONS[network.activation], *(VIEW_ACTIVATIONS[name] for name in activations)
        self.ends = nn.ModuleList(
            nn.Sequential(norm(width), kind(), Dropout(network.dropout)) for kind in kinds
        )

    def forward(self, x: Float[Tensor, "B K I"]) -> Float[Tensor, "B K H"]:
        u, v = self.a(x.flatten(1)).unflatten(1, (3, -1)).tensor_split([1], 1)
        g = self.gates(torch.sigmoid(self.gate(u.squeeze(1))) / self.tau)
        v = g.unsqueeze(1) * v + v
        if self.noise is not None:
            v = v + self.noise
        if self.residual:
            v = v + x[:, 1:]
        views = torch.cat([u, v], 1).unbind(1)
        return torch.stack([end(view) for end, view in zip(self.ends, views, strict=True)], 1)


def contrast(views: Float[Tensor, "B K H"], temperature: float) -> Float[Tensor, " B"]:
    """-log(exp((u_r . v_1r + u_r . v_2r) / 2t) / sum_s exp(v_1r . v_2s / t) + 1e-5) of every row r.

    The views are at unit length, and s are the rows of the batch, r among them. In float32 whatever the
    precision of the views, as every loss is.
    """
    with torch.autocast(views.device.type, enabled=False):
        u, v1, v2 = normalize(views.float(), dim=2).unbind(1)
        own = (u * (v1 + v2)).sum(1) / (2 * temperature)
        others = (v1 @ v2.T / temperature).logsumexp(1)
        return -torch.log(torch.exp(own - others) + EPSILON)


def with_contrast(heads: Float[Tensor, "H B"], label: Float[Tensor, " B"], alpha: float) -> Loss:
    """L(z, y) + alpha mean_r l_r of the heads z and z + l; L(z, y) of z alone."""
    loss, logit = of_mean(heads[:1], label)
    return loss + alpha * (heads[-1] - logit).mean(), logit
