"""FinalMLP: two networks, each with its own gate on the features, and a bilinear fusion.

Paper: Mao et al., "FinalMLP: An Enhanced Two-Stream MLP Model for CTR Prediction", AAAI 2023,
https://arxiv.org/abs/2304.00902.

Equation: g_s = 2 sigmoid(MLP(x_s)) with x_s the context of stream s = 1, 2; o_s = MLP_s(g_s * e) on the
flat embeddings e; logit = b + w_1 . o_1 + w_2 . o_2 + sum_h o_1h^T W_h o_2h over the heads' parts of o_1
and o_2. There is no linear term.

Shapes: ids (B, S) -> e (B, F * D) -> o_1 (B, H), o_2 (B, H') -> logit (B,).

Differs from the paper: a context is chosen fields (`gate1`, `gate2`) or, where the list is empty, one
learnt vector; the fields' context is the embedding itself, where the authors' code learns a second one.
The last layer of a gate starts at zero, so gates start at 1. `hidden2` empty means as `hidden`; `gating`
off is the ablation without gates. Dropout on the embeddings and a transform of them are options.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers.embedding import FieldEmbedding, Transform
from pipeline.layers.mlp import MLP, Activation, dense
from pipeline.schema import Schema


class Gate(nn.Module):
    """2 sigmoid(MLP(context)) * e: a weight for every component of the embeddings."""

    chosen: Tensor

    def __init__(self, schema: Schema, dim: int, context: list[str], width: int) -> None:
        names = [field.name for field in schema.fields]
        for name in context:
            if name not in names:
                raise ValueError(f"the gate's context {name!r} is no field: choose from {', '.join(names)}")
        super().__init__()
        chosen = torch.tensor([names.index(name) for name in context], dtype=torch.long)
        self.register_buffer("chosen", chosen, persistent=False)
        self.context = None if context else nn.Parameter(torch.randn(dim))
        self.hidden = MLP(max(1, len(context)) * dim, [width])
        self.out = dense(width, len(names) * dim)
        nn.init.zeros_(self.out.weight)

    def forward(self, e: Float[Tensor, "B F D"]) -> Float[Tensor, "B W"]:
        x = e.index_select(1, self.chosen).flatten(1) if self.context is None else self.context
        return 2 * self.out(self.hidden(x)).sigmoid() * e.flatten(1)


class FinalMLP(nn.Module):
    """Gates, two streams, fusion."""

    def __init__(
        self,
        schema: Schema,
        *,
        embedding_size: int = 10,
        embedding_std: float = 0.01,
        embedding_dropout: float = 0.0,
        embedding_transform: Transform = "none",
        gating: bool = True,
        gate1: list[str] = [],  # noqa: B006  never changed, only read
        gate2: list[str] = [],  # noqa: B006  never changed, only read
        gate_size: int = 64,
        heads: int = 1,
        hidden: list[int] = [400, 400, 400],  # noqa: B006  never changed, only read
        hidden2: list[int] = [],  # noqa: B006  never changed, only read
        dropout: float = 0.0,
        batch_norm: bool = False,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        self.embedding = FieldEmbedding(
            schema,
            embedding_size,
            dropout=embedding_dropout,
            std=embedding_std,
            transform=embedding_transform,
        )
        flat = len(schema.fields) * embedding_size
        networks = [
            MLP(flat, widths, dropout=dropout, batch_norm=batch_norm, activation=activation)
            for widths in (hidden, hidden2 or hidden)
        ]
        last = [mlp.outputs for mlp in networks]
        if any(width % heads for width in last):
            raise ValueError(f"heads {heads} must divide both streams' last widths, {last[0]} and {last[1]}")
        self.gate = nn.ModuleList(
            Gate(schema, embedding_size, context, gate_size) if gating else nn.Flatten()
            for context in (gate1, gate2)
        )
        self.mlp = nn.ModuleList(networks)
        self.out = dense(sum(last), 1)
        self.weight = nn.Parameter(torch.empty(heads, last[0] // heads, last[1] // heads))
        for matrix in self.weight:
            nn.init.xavier_uniform_(matrix)

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        e = self.embedding(ids)
        o1, o2 = (mlp(gate(e)) for gate, mlp in zip(self.gate, self.mlp, strict=True))
        h1, h2 = (o.unflatten(1, (len(self.weight), -1)) for o in (o1, o2))
        fused = (torch.einsum("bhi,hij->bhj", h1, self.weight) * h2).sum((1, 2))
        return self.out(torch.cat([o1, o2], 1)).squeeze(1) + fused
