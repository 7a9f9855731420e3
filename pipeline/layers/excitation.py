"""Reweighting fields by what they hold: squeeze, excite, threshold."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.layers.mlp import dense


class Excitation(nn.Module):
    """Two bias-free layers over the fields: sigma(W2 relu(W1 z)), of width max(1, F // reduction).

    Shapes: (B, F) -> (B, F). Source: FLSEST eq. 2 and 6, after SENET.
    """

    def __init__(self, fields: int, reduction: int, final: Literal["relu", "sigmoid"] = "relu") -> None:
        super().__init__()
        width = max(1, fields // reduction)
        self.w1 = dense(fields, width, bias=False)
        self.w2 = dense(width, fields, bias=False)
        self.final = torch.relu if final == "relu" else torch.sigmoid

    def forward(self, z: Float[Tensor, "B F"]) -> Float[Tensor, "B F"]:
        return self.final(self.w2(torch.relu(self.w1(z))))


class SEST(nn.Module):
    """Squeeze-excitation and soft threshold.

    Source: Chen, He and Zhou, "FLSEST", 2026, https://doi.org/10.15837/ijccc.2026.1.7069, section
    3.3. Reweight: M = e * relu(W2 relu(W1 mean_k e)) (eq. 5-7). Threshold: z = mean_k |e|,
    lambda = z * sigma2(W4 relu(W3 z)), eta = sign(e) max(|e| - lambda, 0) (eq. 1-4).

    Shapes: (B, F, D) -> (B, F, D), or (B, F, 2D) with `merge="concat"`.

    Args:
        fields: F.
        reduction: r of both excitations.
        threshold: sigma2. With `sigmoid` lambda stays below the mean of |e|; with `relu` it is
            unbounded and can remove a field altogether.
        merge: `sum` is eq. 8 as printed; `concat` is what its text and the authors' code do.
    """

    def __init__(
        self,
        fields: int,
        *,
        reduction: int = 3,
        threshold: Literal["relu", "sigmoid"] = "sigmoid",
        merge: Literal["sum", "concat"] = "sum",
    ) -> None:
        super().__init__()
        self.reweight = Excitation(fields, reduction)
        self.threshold = Excitation(fields, reduction, final=threshold)
        self.merge = merge

    def forward(self, e: Float[Tensor, "B F D"]) -> Float[Tensor, "B F K"]:
        m = e * self.reweight(e.mean(2)).unsqueeze(2)
        size = e.abs()
        z = size.mean(2)
        lam = (z * self.threshold(z)).unsqueeze(2)
        eta = e.sign() * torch.relu(size - lam)
        return eta + m if self.merge == "sum" else torch.cat([m, eta], 2)
