"""FiiNet: feature crosses of several orders, weighted by a selective kernel network.

Paper: Wang and Li, "A Click-Through Rate Prediction Method Based on Cross-Importance of Multi-Order
Features", 2024, https://arxiv.org/abs/2405.08852; no code of it is public.

Equation: pairs w_ij (e_i * e_j) (eq. 1) and triples w_ijk (e_i * e_j * e_k) (eq. 2), brought to one channel
axis as the branches U~ and U^; U = U~ + U^, z = mean_k U (eq. 3), s = sigma2(W2 relu(W1 z)) (eq. 4),
[a; b] = softmax over the branches of [A; B] s (eq. 5), V = a U~ + b U^ (eq. 6);
logit = linear + MLP(flatten V) (eq. 7-8).

Shapes: ids (B, S) -> E (B, F, D) -> crosses of order o (B, C(F, o), D) -> V (B, C, D) -> logit (B,).

Differs from the paper: it does not say what a channel is, and "U = pairs + triples" is defined only for
C(F, 2) = C(F, 3), unless channels are fields, or there is one. `fusion` is
`field`   each field with all crosses it takes part in, as U = [e_1 .. e_f] and Z = [z_1 .. z_f] have it.
          All symbols of eq. 3-6 have their printed sizes; below eq. 6, though, C is the number of crosses;
`pooled`  eq. 1 and 2 as literal sums: one channel;
`align`   the crosses of the highest order, and the mean of those that each contains;
`project` each branch mapped linearly over the channel axis to `channels`;
`concat`  all crosses on one axis, as below eq. 6 and in Figure 4. Nothing is left to add or to choose from:
          V = s U, where sigma2 is `gate`, a softmax over the channels (times C: gates start at 1) or sigmoid.
`field` and `pooled` sum, as printed; `pool=mean` is the same function with w so small that, on few rows, L2
keeps all crosses at zero. sigma2 is not named: `second_layer` is relu, as in FiBiNET's SENET, or sigmoid;
`none` omits W2, as SKNet does.
`separate` reads "two different scale weight matrices to weight the split [...] information separately and
then sum": each branch has its own eq. 3-4 with sigma2 `gate`, V = s~ U~ + s^ U^, and eq. 5 is omitted. Both
A and B are kept, though a + b = 1. w starts at 1, embeddings at N(0, std^2), W2 under relu with absolute
values (`layers/excitation.py`), where the paper has Xavier for all: of a table of V rows, a std of sqrt(2 /
(V + D)). FiiNet-S is `orders` [3], -H [2], -SH `attention=False`; since eq. 5 weighs nothing in one order,
the first two need `separate` or `concat`, and are to be compared with that. Weight decay is training's L2.
"""

from collections.abc import Sequence
from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers.accelerated import accelerated
from pipeline.layers.crosses import Fusion
from pipeline.layers.embedding import FieldLinear
from pipeline.layers.mlp import dense
from pipeline.layers.options import Count, Embed, Net, TwoOrMore
from pipeline.layers.selective_kernel import SelectiveKernel
from pipeline.schema import Schema


class FiiNet(nn.Module):
    """Split into crosses, fuse, select, then a network."""

    def __init__(
        self,
        schema: Schema,
        *,
        embedding: Embed = Embed(32, std=0.1),
        orders: Sequence[TwoOrMore] = (2, 3),
        fusion: Fusion = "field",
        pool: Literal["mean", "sum"] = "sum",
        channels: Count = 32,
        squeeze: Literal["mean", "max"] = "mean",
        reduction: Count = 3,
        second_layer: Literal["relu", "sigmoid", "none"] = "relu",
        separate: bool = False,
        gate: Literal["softmax", "sigmoid"] = "softmax",
        attention: bool = True,
        network: Net = Net((400, 400), dropout=0.2),
    ) -> None:
        super().__init__()
        self.linear = FieldLinear(schema)
        self.embedding = embedding(schema)
        self.select = SelectiveKernel(
            len(schema.fields),
            orders=orders, fusion=fusion, pool=pool, channels=channels, squeeze=squeeze, reduction=reduction,
            second_layer=second_layer, separate=separate, gate=gate, attention=attention,
        )  # fmt: skip
        self.mlp = network(self.select.channels * embedding.size)
        self.out = dense(self.mlp.outputs, 1, bias=False)

    @accelerated("fiinet")
    def deep(self, e: Float[Tensor, "B F D"]) -> Float[Tensor, " B"]:
        """The network on the selected crosses."""
        return self.out(self.mlp(self.select(e).flatten(1))).squeeze(1)

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        e = self.embedding(ids)
        return self.linear(ids) + self.deep(e)
