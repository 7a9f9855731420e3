"""Wide & Deep: a linear model of ids and their crosses beside a network on embeddings.

Paper: Cheng et al., "Wide & Deep Learning for Recommender Systems", DLRS 2016,
https://arxiv.org/abs/1606.07792.

Equation: logit = w_wide . [x, phi(x)] + w_deep . a + b, with phi the cross products of x (each is 1
where all its values are there) and a the network's last layer, on the concatenated embeddings.

Shapes: ids (B, S) -> wide (B,), deep (B, F * D) -> (B,) -> logit (B,).

Differs from the paper: the paper chooses its crosses by hand; here `crosses` > 0 takes all pairs of
fields, hashed to so many buckets that all pairs share (0: none). All values of a bag are crossed with
all values of the other fields, none with another value of its own bag; a cross with an empty slot is
empty. One optimizer for both parts (the paper: FTRL with L1 for wide, AdaGrad for deep). Dropout, on
the embeddings too, a transform of them and batch norm are options.
"""

from itertools import combinations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers.embedding import FieldEmbedding, FieldLinear, Transform
from pipeline.layers.mlp import MLP, Activation, dense
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
    """Both parts add to one logit; they share no weight.

    Args:
        crosses: hash buckets of the crosses; 0 leaves them out.
    """

    def __init__(
        self,
        schema: Schema,
        *,
        embedding_size: int = 32,
        embedding_std: float = 0.01,
        embedding_dropout: float = 0.0,
        embedding_transform: Transform = "none",
        crosses: int = 0,
        hidden: list[int] = [1024, 512, 256],  # noqa: B006  never changed, only read
        dropout: float = 0.0,
        batch_norm: bool = False,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        self.linear = FieldLinear(schema)
        self.phi = None
        if crosses:
            self.phi = HashedCrosses(schema, crosses)
            self.crossed = FieldEmbedding(Schema((Field("crosses", crosses),)), 1, std=0.0)
        self.embedding = FieldEmbedding(
            schema,
            embedding_size,
            dropout=embedding_dropout,
            std=embedding_std,
            transform=embedding_transform,
        )
        width = len(schema.fields) * embedding_size
        self.mlp = MLP(width, hidden, dropout=dropout, batch_norm=batch_norm, activation=activation)
        self.out = dense(self.mlp.outputs, 1, bias=False)

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        wide = self.linear(ids)
        if self.phi is not None:
            wide = wide + self.crossed.slots(self.phi(ids)).sum((1, 2))
        a = self.mlp(self.embedding(ids).flatten(1))
        return wide + self.out(a).squeeze(1)
