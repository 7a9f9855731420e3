"""AutoRec: an autoencoder that fills an item's column of the matrix of users and items.

Paper: Sedhain, Menon, Sanner and Xie, "AutoRec: Autoencoders Meet Collaborative Filtering", WWW 2015
companion, https://doi.org/10.1145/2740908.2742726 (I-AutoRec).

Equation (eq. 1): h_i = tanh(sum_{v in N(i)} (m_v + r_vi w_v) + a), logit = <s_u, h_i> + b_u + b_i + b, with
N(i) the users who met item i in the train rows and r_vi what they said, -1 to 1.

Shapes: ids (B, S) -> users and values of the items' columns (E,) -> h (B, H) -> logit (B,).

Differs from the paper: a logit with logloss in place of a rating with squared error. Besides r, the input
says who has met the item (m), without which a missing value would be a zero. The row's own value is left
out of h, in training as in prediction, so that no row sees its label. The input has dropout, and b_i was
added. A batch has the rows of few items (`grouped`), since an item costs all of its column; `values: grade`
reads the grades behind the labels. `l2_factor` is the multiple of the training's `embedding_l2` that the
tables of users have, each row of which takes part in the hidden layer of every item that the user met.
"""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.data.batches import Batch
from pipeline.layers.answers import Answers
from pipeline.layers.embedding import FieldEmbedding, FieldLinear
from pipeline.layers.mlp import Dropout
from pipeline.layers.neighbours import places, refuse_neighbours, sizes
from pipeline.layers.options import Count, NonNegative, Probability
from pipeline.schema import Field, Schema


class AutoRec(nn.Module):
    """One hidden layer over the users of an item."""

    grouped = "item"

    def __init__(
        self,
        schema: Schema,
        *,
        hidden_size: Count = 500,
        std: NonNegative = 0.01,
        input_dropout: Probability = 0.0,
        dropout: Probability = 0.0,
        l2_factor: NonNegative = 1.0,
        values: Literal["label", "grade"] = "label",
    ) -> None:
        refuse_neighbours(schema, "the model's input are these pairs already")
        (self.users, items), self.schema = sizes(schema), schema
        super().__init__()
        one = Schema((Field("user", self.users),))  # its ids are a user's position in the field, and 1
        self.m, self.w, self.s = (FieldEmbedding(one, hidden_size, std=std) for _ in range(3))
        for layer in (self.m, self.w, self.s):
            layer.l2_factor = l2_factor
        self.a = nn.Parameter(torch.zeros(hidden_size))
        self.linear = FieldLinear(Schema((*one.fields, Field("item", items))))
        self.answers = Answers(schema, input_dropout, values)
        self.dropout = Dropout(dropout)

    def prepare(self, rows: Batch, _train: Callable[[nn.Module], object]) -> None:
        """Record who met what in the train rows, and what they said."""
        self.answers.remember(rows)

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        user, item = places(self.schema, ids)
        h = self.dropout((self.answers(user, item, self.m, self.w) + self.a).tanh())
        s = self.s.slots((user + 1).unsqueeze(1)).squeeze(1)
        b = self.linear(torch.stack([user + 1, item + 1 + self.users], 1))
        return (s * h).sum(1) + b
