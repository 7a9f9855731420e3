"""FNN: a network on the weights and vectors that a factorization machine learnt first.

Paper: Zhang, Du and Wang, "Deep Learning over Multi-field Categorical Data: A Case Study on User
Response Prediction", ECIR 2016, https://arxiv.org/abs/1601.02376.

Equation: z_i = (w_i, v_i) summed over the values of field i, z = (w0, z_1, ..., z_F), logit = MLP(z);
w0, w and v start as those of a trained machine w0 + sum_i w_i x_i + sum_{i<j} <v_i, v_j> x_i x_j, and
are trained on with the network.

Shapes: ids (B, S) -> z (B, 1 + F * (1 + D)) -> logit (B,).

Differs from the paper: the machine is trained by the common loop with the network's settings, up to
its best epoch on the validation rows, and with the same dropout on its embeddings; `pretrain=False`
leaves it out. A transform of the v_i, the machine's at first, and batch norm are options.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.data.batches import Batch
from pipeline.layers.embedding import FieldEmbedding, Transform
from pipeline.layers.fm import FactorizationMachine
from pipeline.layers.mlp import MLP, Activation, dense
from pipeline.schema import Schema


class FNN(nn.Module):
    """MLP on (w0, z_1, ..., z_F)."""

    def __init__(
        self,
        schema: Schema,
        *,
        embedding_size: int = 10,
        embedding_std: float = 0.01,
        embedding_dropout: float = 0.0,
        embedding_transform: Transform = "none",
        pretrain: bool = True,
        hidden: list[int] = [200, 300, 100],  # noqa: B006  never changed, only read
        dropout: float = 0.5,
        batch_norm: bool = False,
        activation: Activation = "tanh",
    ) -> None:
        super().__init__()
        options: dict[str, Any] = {
            "dropout": embedding_dropout,
            "std": embedding_std,
            "transform": embedding_transform,
        }
        self.w0 = nn.Parameter(torch.zeros(()))
        self.w = FieldEmbedding(schema, 1, std=0.0)
        self.v = FieldEmbedding(schema, embedding_size, **options)
        self.mlp = MLP(
            1 + len(schema.fields) * (1 + embedding_size),
            hidden,
            dropout=dropout,
            batch_norm=batch_norm,
            activation=activation,
        )
        self.out = dense(self.mlp.outputs, 1)
        self.pretrain = pretrain
        self.machine = (schema, embedding_size, options)

    @torch.no_grad()
    def start_from(self, machine: FactorizationMachine) -> None:
        """Take over what a trained machine knows."""
        self.w0.copy_(machine.linear.bias)
        self.w.table.copy_(machine.linear.table)
        self.v.load_state_dict(machine.embedding.state_dict())

    def prepare(self, rows: Batch, train: Callable[[nn.Module], Any]) -> None:
        """Train a machine and start from it."""
        if self.pretrain:
            schema, size, options = self.machine
            machine = FactorizationMachine(schema, size, **options).to(rows.ids.device)
            train(machine)
            self.start_from(machine)

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        z = torch.cat([self.w(ids), self.v(ids)], 2).flatten(1)
        z = torch.cat([self.w0.expand(ids.shape[0], 1), z], 1)
        return self.out(self.mlp(z)).squeeze(1)
