"""A selective kernel unit over feature crosses of several orders."""

from collections.abc import Sequence
from math import comb
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.layers.crosses import FieldCrosses, Fusion, to_one_axis
from pipeline.layers.excitation import Excitation
from pipeline.layers.mechanism import Mechanism
from pipeline.layers.mlp import dense


class SelectiveKernel(nn.Module):
    """Split into crosses, fuse, select: E (B, F, D) -> V (B, C, D).

    Source: FiiNet eq. 1-6, https://arxiv.org/abs/2405.08852. `models/fiinet.py` says what the options mean.

    Attributes:
        channels: C.
        crosses: how many there are of all orders, of which each has D elements.

    Raises:
        ValueError: the options do not fit each other or the number of fields.
    """

    def __init__(
        self,
        fields: int,
        *,
        orders: Sequence[int],
        fusion: Fusion,
        pool: Literal["mean", "sum"],
        channels: int,
        squeeze: Literal["mean", "max"],
        reduction: int,
        second_layer: Literal["relu", "sigmoid", "none"],
        separate: bool,
        gate: Literal["softmax", "sigmoid"],
        attention: bool,
    ) -> None:
        if not orders or sorted(set(orders)) != [*orders] or orders[0] < 2 or orders[-1] > fields:
            raise ValueError(
                f"orders {[*orders]} must rise from 2 up to at most {fields}, the number of fields"
            )
        gates = separate or fusion == "concat"
        if len(orders) < 2 and attention and not gates:
            raise ValueError(
                f"orders {[*orders]}: fusion {fusion} weighs the orders against each other, and there is "
                "one; give two, or separate: true"
            )
        if fusion == "pooled" and separate and gate == "softmax":
            raise ValueError(
                "fusion pooled has one channel, whose softmax is 1: with separate take gate sigmoid"
            )
        super().__init__()
        self.split = nn.ModuleList(FieldCrosses(fields, order) for order in orders)
        crosses = [comb(fields, order) for order in orders]
        bring, c = to_one_axis(fusion, fields, orders, channels, mean=pool == "mean")
        self.bring = nn.ModuleList(bring)
        self.fusion, self.squeeze, self.separate = fusion, squeeze, separate
        self.excite = nn.ModuleList()  # of all that is squeezed: U, or each branch
        self.attend: nn.Module | None = None  # [A; B]
        if attention and gates:
            sizes = [c]
            if separate:
                sizes = crosses if fusion == "concat" else [c] * len(orders)
            self.excite.extend(Excitation(size, reduction, gate) for size in sizes)
            self.gates = nn.ModuleList(Mechanism("gate", neutral=1.0) for _ in sizes)
        elif attention:
            layer: nn.Module
            if second_layer == "none":
                w1 = dense(c, max(1, c // reduction), bias=False)
                layer, width = nn.Sequential(w1, nn.ReLU()), w1.out_features
            else:
                layer, width = Excitation(c, reduction, second_layer), c
            self.excite.append(layer)
            self.attend = dense(width, len(orders) * c, bias=False)
            self.attention = Mechanism("attention", neutral="uniform")  # over the branches
        self.channels, self.crosses = c, sum(crosses)

    def weights(self, branches: list[Float[Tensor, "B _ D"]]) -> list[Float[Tensor, "B _"]]:
        """Attention or gates of each branch's channels (eq. 3-5)."""
        squeezed = branches if self.attend is None else [total(branches)]
        z = [x.mean(2) if self.squeeze == "mean" else x.amax(2) for x in squeezed]
        s = [excite(x) for excite, x in zip(self.excite, z, strict=True)]
        if self.attend is None:
            return [gates(x) for gates, x in zip(self.gates, s, strict=True)]
        a: Float[Tensor, "B R C"] = self.attend(s[0]).unflatten(1, (len(branches), -1)).softmax(1)
        return list(self.attention(a).unbind(1))

    def forward(self, e: Float[Tensor, "B F D"]) -> Float[Tensor, "B C D"]:
        branches = [bring(split(e)) for split, bring in zip(self.split, self.bring, strict=True)]
        if self.fusion == "concat" and not self.separate:
            branches = [torch.cat(branches, 1)]
        if self.excite:
            weights = self.weights(branches)
            branches = [w.unsqueeze(2) * branch for w, branch in zip(weights, branches, strict=True)]
        return torch.cat(branches, 1) if self.fusion == "concat" else total(branches)


def total(branches: list[Float[Tensor, "B C D"]]) -> Float[Tensor, "B C D"]:
    """Their sum."""
    return sum(branches[1:], branches[0])
