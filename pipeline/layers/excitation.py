"""Reweighting of fields by their content: squeeze, excite, threshold."""

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.layers.accelerated import accelerated
from pipeline.layers.mechanism import Mechanism
from pipeline.layers.mlp import dense
from pipeline.schema import Schema

Final = Literal["relu", "sigmoid", "softmax"]


class Excitation(nn.Module):
    """Two bias-free layers over channels: sigma2(W2 relu(W1 z)), of width max(1, C // reduction).

    Weights start Xavier uniform, except where half of the units would be dead for good: under a final relu
    W2 starts with the absolute values, and so does W1 if z is never negative. The equation is the same; a
    unit whose input is negative for every row would get no gradient and stay at zero.

    Shapes: (B, C) -> (B, outputs). Source: FLSEST eq. 2 and 6, after SENET.

    Args:
        channels: C.
        reduction: r.
        final: sigma2; `softmax` is over the channels and times C, so that its mean is 1.
        outputs: C by default.
        nonnegative: whether z is a mean of absolute values.
    """

    def __init__(
        self,
        channels: int,
        reduction: int,
        final: Final = "relu",
        *,
        outputs: int | None = None,
        nonnegative: bool = False,
    ) -> None:
        super().__init__()
        width = max(1, channels // reduction)
        self.w1 = dense(channels, width, bias=False)
        self.w2 = dense(width, channels if outputs is None else outputs, bias=False)
        with torch.no_grad():
            if nonnegative:
                self.w1.weight.abs_()
            if final == "relu":
                self.w2.weight.abs_()
        self.final = {"relu": torch.relu, "sigmoid": torch.sigmoid, "softmax": scaled_softmax}[final]

    def forward(self, z: Float[Tensor, "B C"]) -> Float[Tensor, "B K"]:
        return self.final(self.w2(torch.relu(self.w1(z))))


def scaled_softmax(x: Float[Tensor, "B C"]) -> Float[Tensor, "B C"]:
    """Softmax times C."""
    return x.softmax(1) * x.shape[1]


class SENET(nn.Module):
    """Squeeze and excitation: V = a * e with a = relu(W2 relu(W1 mean_k e)).

    Source: Huang, Zhang and Zhang, "FiBiNET", RecSys 2019, https://arxiv.org/abs/1905.09433, eq. 2-4.
    Shapes: (B, F, D) -> (B, F, D).

    Args:
        fields: F.
        reduction: r.
        residual: V = e + a * e, for a model that reads V alone: gates start near zero, as mean_k e does.
    """

    def __init__(self, fields: int, *, reduction: int = 3, residual: bool = False) -> None:
        super().__init__()
        self.reweight = Excitation(fields, reduction)
        self.residual = residual
        self.gates = Mechanism("gate", neutral=0.0 if residual else 1.0)

    @accelerated("excitation")
    def forward(self, e: Float[Tensor, "B F D"]) -> Float[Tensor, "B F D"]:
        m = e * self.gates(self.reweight(e.mean(2))).unsqueeze(2)
        return e + m if self.residual else m


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
        components: D, for one reweighting gate a component (a_i in R^k, below eq. 7) instead of one a field.
        residual: V = e + eta + M; see `SENET`.
    """

    def __init__(
        self,
        fields: int,
        *,
        reduction: int = 3,
        threshold: Literal["relu", "sigmoid"] = "sigmoid",
        merge: Literal["sum", "concat"] = "sum",
        components: int | None = None,
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.reweight = Excitation(fields, reduction, outputs=fields * (components or 1))
        self.threshold = Excitation(fields, reduction, final=threshold, nonnegative=True)
        self.merge, self.residual = merge, residual
        self.gates, self.thresholds = Mechanism("gate", neutral=0.0), Mechanism("threshold", neutral=0.0)

    def forward(self, e: Float[Tensor, "B F D"]) -> Float[Tensor, "B F K"]:
        m = e * self.gates(self.reweight(e.mean(2))).unflatten(1, (e.shape[1], -1))
        size = e.abs()
        z = size.mean(2)
        lam = (z * self.thresholds(self.threshold(z))).unsqueeze(2)
        eta = e.sign() * torch.relu(size - lam)
        v = eta + m if self.merge == "sum" else torch.cat([m, eta], 2)
        return e + v if self.residual else v


class DomainSEST(nn.Module):
    """SEST on the fields of each general feature domain, with separate weights, as in the authors' code.

    Shapes: (B, F, D) -> (B, F, D), or (B, F, 2D) with `merge="concat"`; fields in schema order.

    Args:
        schema: the fields and their domains.
        options: of `SEST`.
    """

    order: Tensor
    back: Tensor

    def __init__(self, schema: Schema, **options: Any) -> None:
        super().__init__()
        self.sizes = [len(domain) for domain in schema.domains]
        self.domains = nn.ModuleList(SEST(size, **options) for size in self.sizes)
        # the permutation that sorts fields by domain, and its inverse
        order = torch.tensor([field for domain in schema.domains for field in domain])
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("back", order.argsort(), persistent=False)

    def forward(self, e: Float[Tensor, "B F D"]) -> Float[Tensor, "B F K"]:
        parts = e.index_select(1, self.order).split(self.sizes, 1)
        v = torch.cat([sest(part) for sest, part in zip(self.domains, parts, strict=True)], 1)
        return v.index_select(1, self.back)
