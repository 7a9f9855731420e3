"""FiiNet: feature crosses of several orders, weighted by a selective kernel network.

Paper: Wang and Li, "A Click-Through Rate Prediction Method Based on Cross-Importance of Multi-Order
Features", 2024, https://arxiv.org/abs/2405.08852; no code of it is public.

Equation: pairs w_ij (e_i * e_j) (eq. 1), triples w_ijk (e_i * e_j * e_k) (eq. 2); the branches are
fused to U, z = mean_k U (eq. 3), s = relu(W1 z) (eq. 4), attention over the branches (eq. 5), V the
attended crosses (eq. 6); logit = linear + MLP(flatten V) (eq. 7-8).

Shapes: ids (B, S) -> E (B, F, D) -> crosses of order o (B, C(F, o), D) -> V (B, C, D) -> logit (B,).

Differs from the paper: its "U = pairs + triples" is defined only for C(F, 2) = C(F, 3); `fusion` is
`concat`  all crosses on one channel axis, as drawn in Figure 4, with one gate per channel: `softmax` over
          the channels (times C, so that gates start around 1) or `sigmoid`;
`project` each branch mapped linearly over the channel axis to `channels`, softmax over branches;
`align`   the crosses of the highest order and the mean of those that each contains, softmax over branches.
`orders` [2] is FiiNet-H, [3] FiiNet-S, `attention=False` FiiNet-SH. `squeeze` max is that of SKNet.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers.accelerated import accelerated
from pipeline.layers.crosses import FieldCrosses, to_one_axis
from pipeline.layers.embedding import FieldLinear
from pipeline.layers.mlp import dense
from pipeline.layers.options import Count, Embed, Net, TwoOrMore
from pipeline.schema import Schema


class FiiNet(nn.Module):
    """Split into crosses, fuse, select, then a network."""

    def __init__(
        self,
        schema: Schema,
        *,
        embedding: Embed = Embed(32, std=0.1),
        orders: Sequence[TwoOrMore] = (2, 3),
        fusion: Literal["concat", "project", "align"] = "concat",
        gate: Literal["softmax", "sigmoid"] = "softmax",
        channels: Count = 32,
        squeeze: Literal["mean", "max"] = "mean",
        reduction: Count = 3,
        attention: bool = True,
        network: Net = Net((400, 400), dropout=0.2),
    ) -> None:
        f = len(schema.fields)
        if not orders or sorted(set(orders)) != [*orders] or orders[0] < 2 or orders[-1] > f:
            raise ValueError(f"orders {[*orders]} must rise from 2 up to at most {f}, the number of fields")
        if len(orders) < 2 and fusion != "concat":
            raise ValueError(f"fusion {fusion} weighs orders against each other: give two or take concat")
        super().__init__()
        self.linear = FieldLinear(schema)
        self.embedding = embedding(schema)
        self.split = nn.ModuleList(FieldCrosses(f, order) for order in orders)
        bring, c = to_one_axis(fusion, f, orders, channels)
        self.bring = nn.ModuleList(bring)
        self.fusion, self.gate, self.squeeze, self.attention = fusion, gate, squeeze, attention
        if attention:
            self.w1 = dense(c, max(1, c // reduction), bias=False)
            axes = 1 if fusion == "concat" else len(orders)
            self.w2 = dense(self.w1.out_features, axes * c, bias=False)
        self.elements = c * embedding.size
        self.mlp = network(self.elements)
        self.out = dense(self.mlp.outputs, 1, bias=False)

    def weights(self, u: Float[Tensor, "B C D"]) -> Float[Tensor, "B R C"]:
        """Attention of each branch and channel; with `concat` there is one branch axis (R = 1)."""
        z = u.mean(2) if self.squeeze == "mean" else u.amax(2)
        scores = self.w2(torch.relu(self.w1(z))).unflatten(1, (-1, u.shape[1]))
        if self.fusion != "concat":
            return scores.softmax(1)
        return scores.softmax(2) * u.shape[1] if self.gate == "softmax" else scores.sigmoid()

    def select(self, e: Float[Tensor, "B F D"]) -> Float[Tensor, "B C D"]:
        """The selective kernel unit: split, fuse, select."""
        branches = [bring(split(e)) for split, bring in zip(self.split, self.bring, strict=True)]
        if self.fusion == "concat":
            branches = [torch.cat(branches, 1)]
        total = sum(branches[1:], branches[0])
        if not self.attention:
            return total
        weights = self.weights(total).unsqueeze(3).unbind(1)
        parts = [weight * branch for weight, branch in zip(weights, branches, strict=True)]
        return sum(parts[1:], parts[0])

    @accelerated("fiinet")
    def deep(self, e: Float[Tensor, "B F D"]) -> Float[Tensor, " B"]:
        """The network on the selected crosses."""
        return self.out(self.mlp(self.select(e).flatten(1))).squeeze(1)

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        e = self.embedding(ids)
        return self.linear(ids) + self.deep(e)
