"""Feature crosses of one order, and how crosses of several orders share one channel axis."""

from collections.abc import Sequence
from itertools import combinations
from math import comb

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.layers.mlp import dense


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
    """The mean of the crosses of `order` fields in each cross of `to` fields: (B, C, D) -> (B, K, D)."""

    inside: Tensor

    def __init__(self, fields: int, order: int, to: int) -> None:
        super().__init__()
        inside = [
            [float(set(low) <= set(high)) / comb(to, order) for low in combinations(range(fields), order)]
            for high in combinations(range(fields), to)
        ]
        self.register_buffer("inside", torch.tensor(inside), persistent=False)

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
    fusion: str, fields: int, orders: Sequence[int], channels: int
) -> tuple[list[nn.Module], int]:
    """Return, for each order, the map of its crosses onto the channel axis they are fused on, and its length.

    Args:
        fusion: `concat`, crosses as they are, to be concatenated; `project`, to `channels` by a linear map;
            `align`, to the crosses of the highest order.
        fields: F.
        orders: rising.
        channels: used by `project` alone.
    """
    sizes = [comb(fields, order) for order in orders]
    if fusion == "project":
        return [Project(size, channels) for size in sizes], channels
    if fusion == "align":
        return [*(Align(fields, order, orders[-1]) for order in orders[:-1]), nn.Identity()], sizes[-1]
    return [nn.Identity() for _ in orders], sum(sizes)
