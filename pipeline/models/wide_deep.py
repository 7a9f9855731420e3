"""Wide & Deep: a linear model of ids and crosses beside a network on embeddings.

Paper: Cheng et al., "Wide & Deep Learning for Recommender Systems", DLRS 2016,
https://arxiv.org/abs/1606.07792.

Equation: logit = w_wide . [x, phi(x)] + w_deep . a + b, with phi the cross products of x (1 if all of a
cross's values are present) and a the last layer of the network on the concatenated embeddings.

Shapes: ids (B, S) -> wide (B,), deep (B, F * D) -> (B,) -> logit (B,).

Differs from the paper: its crosses are hand-picked; here `crosses` > 0 takes all pairs of fields, hashed into
that many buckets, which all pairs share (0: no crosses). Every value of a multi-valued field is crossed with
every value of the other fields, but not with values of its own; a cross with an empty slot is empty. Both
parts have one optimizer (the paper: FTRL with L1 for wide, AdaGrad for deep).
"""

from itertools import combinations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers.embedding import FieldEmbedding, FieldLinear
from pipeline.layers.mlp import dense
from pipeline.layers.options import CountOrZero, Embed, Net
from pipeline.schema import EMPTY, Field, Schema

# bucket = (i * LEFT + j * RIGHT) mod PRIME mod buckets: exact in 64 bits, as all are below 2^31
LEFT, RIGHT, PRIME = 1_640_531_527, 805_459_861, 2**31 - 1


class HashedCrosses(nn.Module):
    """phi: each pair of values of two fields as one id in 1..buckets, or EMPTY.

    Shapes: ids (B, S) -> (B, C), C pairs of slots.
    """

    first: Tensor
    second: Tensor

    def __init__(self, schema: Schema, buckets: int) -> None:
        super().__init__()
        field = schema.field_of_slot
        pairs = [pair for pair in combinations(range(schema.slots), 2) if field[pair[0]] != field[pair[1]]]
        first, second = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).T.contiguous()
        self.register_buffer("first", first, persistent=False)
        self.register_buffer("second", second, persistent=False)
        self.buckets = buckets

    def forward(self, ids: Int[Tensor, "B S"]) -> Int[Tensor, "B C"]:
        ids = ids.long()
        i, j = ids[:, self.first], ids[:, self.second]
        bucket = 1 + (i * LEFT + j * RIGHT) % PRIME % self.buckets
        return bucket.masked_fill((i == EMPTY) | (j == EMPTY), EMPTY)


class WideDeep(nn.Module):
    """Both parts add up to one logit; they share no parameters.

    Args:
        crosses: number of hash buckets; 0 for no crosses.
    """

    def __init__(
        self,
        schema: Schema,
        *,
        embedding: Embed = Embed(32),
        crosses: CountOrZero = 0,
        network: Net = Net((1024, 512, 256)),
    ) -> None:
        super().__init__()
        self.linear = FieldLinear(schema)
        self.phi = None
        if crosses:
            self.phi = HashedCrosses(schema, crosses)
            self.crossed = FieldEmbedding(Schema((Field("crosses", crosses),)), 1, std=0.0)
        self.embedding = embedding(schema)
        self.mlp = network(self.embedding.width)
        self.out = dense(self.mlp.outputs, 1, bias=False)

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        wide = self.linear(ids)
        if self.phi is not None:
            wide = wide + self.crossed.slots(self.phi(ids)).sum((1, 2))
        a = self.mlp(self.embedding(ids).flatten(1))
        return wide + self.out(a).squeeze(1)
