"""Reweighting of fields by their content: squeeze, excite, threshold."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.layers.accelerated import accelerated
from pipeline.layers.mlp import dense
from pipeline.schema import Schema


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


class SENET(nn.Module):
    """Squeeze and excitation: V = a * e with a = relu(W2 relu(W1 mean_k e)).

    Source: Huang, Zhang and Zhang, "FiBiNET", RecSys 2019, https://arxiv.org/abs/1905.09433, eq. 2-4.
    Shapes: (B, F, D) -> (B, F, D).
    """

    def __init__(self, fields: int, *, reduction: int = 3) -> None:
        super().__init__()
        self.reweight = Excitation(fields, reduction)

    @accelerated("excitation")
    def forward(self, e: Float[Tensor, "B F D"]) -> Float[Tensor, "B F D"]:
        return e * self.reweight(e.mean(2)).unsqueeze(2)


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


class DomainSEST(nn.Module):
    """SEST on the fields of each general feature domain (FLSEST, section 3.3), with separate weights.

    Shapes: (B, F, D) -> (B, F, D), or (B, F, 2D) with `merge="concat"`; fields in schema order.
    """

    order: Tensor
    back: Tensor

    def __init__(
        self,
        schema: Schema,
        *,
        reduction: int = 3,
        threshold: Literal["relu", "sigmoid"] = "sigmoid",
        merge: Literal["sum", "concat"] = "sum",
    ) -> None:
        super().__init__()
        self.sizes = [len(domain) for domain in schema.domains]
        self.domains = nn.ModuleList(
            SEST(size, reduction=reduction, threshold=threshold, merge=merge) for size in self.sizes
        )
        # the permutation that sorts fields by domain, and its inverse
        order = torch.tensor([field for domain in schema.domains for field in domain])
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("back", order.argsort(), persistent=False)

    def forward(self, e: Float[Tensor, "B F D"]) -> Float[Tensor, "B F K"]:
        parts = e.index_select(1, self.order).split(self.sizes, 1)
        v = torch.cat([sest(part) for sest, part in zip(self.domains, parts, strict=True)], 1)
        return v.index_select(1, self.back)
