"""Feature crosses of one order, and how crosses of several orders share one channel axis."""

from collections.abc import Sequence
from itertools import combinations
from math import comb
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.layers.mlp import dense

Fusion = Literal["field", "align", "project", "pooled", "concat"]


class FieldCrosses(nn.Module):
    """All crosses of one order, w_c times the product of its fields: (B, F, D) -> (B, C, D).

    Source: FiiNet eq. 1-2, https://arxiv.org/abs/2405.08852. Computed by slices, as in the paper: field i
    times the crosses of one order less of the fields after it, which are the last in lexicographic order.
    """

    def __init__(self, fields: int, order: int) -> None:
        super().__init__()
        self.starts = [
            [comb(fields, n - 1) - comb(fields - 1 - i, n - 1) for i in range(fields - n + 1)]
            for n in range(2, order + 1)
        ]
        self.weight = nn.Parameter(torch.ones(comb(fields, order), 1))

    def forward(self, e: Float[Tensor, "B F D"]) -> Float[Tensor, "B C D"]:
        product = e
        for starts in self.starts:
            product = torch.cat([e[:, i : i + 1] * product[:, s:] for i, s in enumerate(starts)], 1)
        return self.weight * product


class Align(nn.Module):
    """Sum or average crosses of `order` fields for each set of `to` fields: (B, C, D) -> (B, K, D).

    Those that lie inside the set or, if `to` is less than `order`, contain it. With `to` 1 a channel is a
    field with the crosses it takes part in; with `to` 0 there is one channel, with all crosses.
    """

    inside: Tensor

    def __init__(self, fields: int, order: int, to: int, *, mean: bool = True) -> None:
        super().__init__()
        crosses = [set(cross) for cross in combinations(range(fields), order)]
        inside = torch.tensor(
            [
                [float(cross <= set(some) or cross >= set(some)) for cross in crosses]
                for some in combinations(range(fields), to)
            ]
        )
        if mean:
            inside /= inside.sum(1, keepdim=True)
        self.register_buffer("inside", inside, persistent=False)

    def forward(self, crosses: Float[Tensor, "B C D"]) -> Float[Tensor, "B K D"]:
        return torch.einsum("kc,bcd->bkd", self.inside, crosses)


class Project(nn.Module):
    """A linear map over the channel axis: (B, C, D) -> (B, K, D)."""

    def __init__(self, channels: int, to: int) -> None:
        super().__init__()
        self.weight = dense(channels, to, bias=False).weight

    def forward(self, crosses: Float[Tensor, "B C D"]) -> Float[Tensor, "B K D"]:
        return torch.einsum("kc,bcd->bkd", self.weight, crosses)


def to_one_axis(
    fusion: Fusion, fields: int, orders: Sequence[int], channels: int, *, mean: bool
) -> tuple[list[nn.Module], int]:
    """Return, for each order, the map of its crosses onto the channel axis they are fused on, and its length.

    Args:
        fusion: `concat`, crosses as they are, to be concatenated; `project`, to `channels` by a linear map;
            `align`, to the crosses of the highest order; `field`, to the fields; `pooled`, to one channel.
        fields: F.
        orders: rising.
        channels: used by `project` alone.
        mean: whether `field` and `pooled` average or sum; `align` averages.
    """
    sizes = [comb(fields, order) for order in orders]
    if fusion == "concat":
        return [nn.Identity() for _ in orders], sum(sizes)
    if fusion == "project":
        return [Project(size, channels) for size in sizes], channels
    to = {"pooled": 0, "field": 1, "align": orders[-1]}[fusion]
    mean = mean or fusion == "align"
    maps = (nn.Identity() if order == to else Align(fields, order, to, mean=mean) for order in orders)
    return list[nn.Module](maps), comb(fields, to)
