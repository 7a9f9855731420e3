"""FNN: a network on the weights and vectors of a pre-trained factorization machine.

Paper: Zhang, Du and Wang, "Deep Learning over Multi-field Categorical Data: A Case Study on User
Response Prediction", ECIR 2016, https://arxiv.org/abs/1601.02376.

Equation: z_i = (w_i, v_i) summed over the values of field i, z = (w0, z_1, ..., z_F), logit = MLP(z);
w0, w and v are initialised from a trained FM, w0 + sum_i w_i x_i + sum_{i<j} <v_i, v_j> x_i x_j, and then
trained with the network.

Shapes: ids (B, S) -> z (B, 1 + F * (1 + D)) -> logit (B,).

Differs from the paper: the FM is trained by the common loop with the network's settings, up to its best epoch
on the validation rows, and with the same dropout on its embeddings; `pretrain=False` skips it. So it trains
twice, each time with the whole budget of epochs (`trainings`), as the paper does and no other model here. A
transform of the v_i is first learnt in the FM.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.data.batches import Batch
from pipeline.layers.embedding import FieldEmbedding
from pipeline.layers.fm import FactorizationMachine
from pipeline.layers.mlp import dense
from pipeline.layers.options import Embed, Net
from pipeline.schema import Schema


class FNN(nn.Module):
    """MLP on (w0, z_1, ..., z_F)."""

    def __init__(
        self,
        schema: Schema,
        *,
        embedding: Embed = Embed(10),
        pretrain: bool = True,
        network: Net = Net((200, 300, 100), dropout=0.5, activation="tanh"),
    ) -> None:
        super().__init__()
        self.w0 = nn.Parameter(torch.zeros(()))
        self.w = FieldEmbedding(schema, 1, std=0.0)
        self.v = embedding(schema)
        self.mlp = network(1 + self.w.width + self.v.width)
        self.out = dense(self.mlp.outputs, 1)
        self.pretrain, self.trainings = pretrain, 2 if pretrain else 1
        self.warm = not pretrain  # the FM's weights would replace an earlier package's: see train/warm.py
        self.fm_options = (schema, embedding)

    @torch.no_grad()
    def start_from(self, fm: FactorizationMachine) -> None:
        """Copy the parameters of a trained FM."""
        self.w0.copy_(fm.linear.bias)
        self.w.table.copy_(fm.linear.table)
        if self.w.given is not None and fm.linear.given is not None:
            self.w.given.load_state_dict(fm.linear.given.state_dict())
        self.v.load_state_dict(fm.embedding.state_dict())

    def prepare(self, rows: Batch, train: Callable[[nn.Module], Any]) -> None:
        """Train an FM and start from it."""
        if self.pretrain:
            fm = FactorizationMachine(*self.fm_options).to(rows.ids.device)
            train(fm)
            self.start_from(fm)

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        z = torch.cat([self.w(ids), self.v(ids)], 2).flatten(1)
        z = torch.cat([self.w0.expand(ids.shape[0], 1), z], 1)
        return self.out(self.mlp(z)).squeeze(1)
