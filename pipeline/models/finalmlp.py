"""FinalMLP: two networks, each with a feature gate, and a bilinear fusion.

Paper: Mao et al., "FinalMLP: An Enhanced Two-Stream MLP Model for CTR Prediction", AAAI 2023,
https://arxiv.org/abs/2304.00902.

Equation: g_s = 2 sigmoid(MLP(x_s)) with x_s the context of stream s = 1, 2; o_s = MLP_s(g_s * e) on the
flat embeddings e; logit = b + w_1 . o_1 + w_2 . o_2 + sum_h o_1h^T W_h o_2h over the heads' parts of o_1
and o_2.

Shapes: ids (B, S) -> e (B, F * D) -> o_1 (B, H), o_2 (B, H') -> logit (B,).

Differs from the paper: a context is the fields listed in `gate1` or `gate2` or, if the list is empty, one
learnt vector; fields are read from the shared embedding, where the authors' code learns a second one. The
last layer of a gate is initialised at zero, so that gates start at 1; the learnt vector at N(0, 1), theirs at
zero, where nothing but the gate's bias would learn. An empty `hidden2` means the widths of
`hidden`; `gating` off is the ablation without gates.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers.mechanism import Mechanism
from pipeline.layers.mlp import MLP, dense
from pipeline.layers.options import Count, Embed, Net
from pipeline.schema import Schema


class Gate(nn.Module):
    """2 sigmoid(MLP(context)) * e: a weight for every component of the embeddings."""

    chosen: Tensor

    def __init__(self, schema: Schema, dim: int, context: Sequence[str], width: int) -> None:
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
        self.g = Mechanism("gate", 1.0, per_row=bool(context))

    def forward(self, e: Float[Tensor, "B F D"]) -> Float[Tensor, "B W"]:
        x = e.index_select(1, self.chosen).flatten(1) if self.context is None else self.context
        g = 2 * self.out(self.hidden(x)).sigmoid()
        return self.g(torch.atleast_2d(g)) * e.flatten(1)


class FinalMLP(nn.Module):
    """Gates, two streams, fusion."""

    def __init__(
        self,
        schema: Schema,
        *,
        embedding: Embed = Embed(10),
        gating: bool = True,
        gate1: Sequence[str] = (),
        gate2: Sequence[str] = (),
        gate_size: Count = 64,
        heads: Count = 1,
        network: Net = Net(),
        hidden2: Sequence[Count] = (),
    ) -> None:
        super().__init__()
        self.embedding = embedding(schema)
        width = self.embedding.width
        networks = [network(width), network(width, hidden2 or network.hidden)]
        last = [mlp.outputs for mlp in networks]
        if any(width % heads for width in last):
            raise ValueError(f"heads {heads} must divide both streams' last widths, {last[0]} and {last[1]}")
        self.gate = nn.ModuleList(
            Gate(schema, embedding.size, context, gate_size) if gating else nn.Flatten()
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
