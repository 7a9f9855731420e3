"""RankMixer: tokens that exchange their heads, and a network of its own for every token.

Paper: Zhu et al., "RankMixer: Scaling Up Ranking Models in Industrial Recommenders", 2025,
https://arxiv.org/abs/2507.15551.

Equation: the fields' vectors, domain by domain, are one vector, cut into T equal parts; a part makes the
token x_t = W_t part_t + b_t. Then, in every block, S = LN(mix(X) + X) and X' = LN(PFFN(S) + S), where

    mix(X)_h = [x_1^h, ..., x_T^h]      the h-th of the H = T heads of all tokens, side by side
    PFFN(S)_t = W_t2 gelu(W_t1 s_t + b_t1) + b_t2, from D to k D and back;

the mean of the last tokens makes the logit.

Shapes: ids (B, S) -> E (B, F, d) -> X (B, T, D), D = T * head_size -> mean (B, D) -> logit (B,).

Differs from the paper: PFFNs are dense, without the mixture of experts and its routing. The paper groups the
features by hand; here the order is that of the schema's domains. Where T does not divide the length of all
vectors, zeros fill the last part. The paper has some 10^8 to 10^9 weights (T 16, D 768, k 4, 2 blocks); the
defaults here are for logs of up to millions of rows. `dropout`, behind each PFFN, is ours.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers.mlp import Dropout, dense
from pipeline.layers.norm import vector_norm
from pipeline.layers.options import Count, Embed, Probability
from pipeline.schema import Schema


class PerToken(nn.Module):
    """W_t x_t + b_t, a linear layer of its own for every token: (B, T, I) -> (B, T, O)."""

    def __init__(self, tokens: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.stack([dense(inputs, outputs).weight.mT for _ in range(tokens)]))
        self.bias = nn.Parameter(torch.zeros(tokens, outputs))

    def forward(self, x: Float[Tensor, "B T I"]) -> Float[Tensor, "B T O"]:
        return (x.transpose(0, 1) @ self.weight).transpose(0, 1) + self.bias


def mix(x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
    """Give each token one head of every token: with as many heads as tokens, a transposition."""
    return x.unflatten(2, (x.shape[1], -1)).transpose(1, 2).flatten(2)


class RankMixerBlock(nn.Module):
    """LN(PFFN(S) + S) of S = LN(mix(X) + X): (B, T, D) -> (B, T, D)."""

    def __init__(self, tokens: int, size: int, expansion: int, dropout: float) -> None:
        super().__init__()
        self.ln_mix, self.ln = vector_norm(size), vector_norm(size)
        wide = expansion * size
        self.pffn = nn.Sequential(PerToken(tokens, size, wide), nn.GELU(), PerToken(tokens, wide, size))
        self.dropout = Dropout(dropout)

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        s = self.ln_mix(mix(x) + x)
        return self.ln(self.dropout(self.pffn(s)) + s)


class RankMixer(nn.Module):
    """Tokens of the fields, blocks of mixing and networks per token, their mean."""

    def __init__(
        self,
        schema: Schema,
        *,
        embedding: Embed = Embed(16, std=0.1),
        tokens: Count = 4,
        head_size: Count = 8,
        expansion: Count = 4,
        layers: Count = 2,
        dropout: Probability = 0.0,
    ) -> None:
        super().__init__()
        self.embedding = embedding(schema)
        order = torch.tensor([field for domain in schema.domains for field in domain])
        self.register_buffer("order", order, persistent=False)
        part = -(-self.embedding.width // tokens)
        self.filled, size = tokens * part - self.embedding.width, tokens * head_size
        self.tokenize = PerToken(tokens, part, size)
        self.blocks = nn.Sequential(
            *(RankMixerBlock(tokens, size, expansion, dropout) for _ in range(layers))
        )
        self.out = dense(size, 1)

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        e = self.embedding(ids)[:, self.order].flatten(1)
        parts = nn.functional.pad(e, (0, self.filled)).unflatten(1, (len(self.tokenize.bias), -1))
        x = self.blocks(self.tokenize(parts))
        return self.out(x.mean(1)).squeeze(1)
