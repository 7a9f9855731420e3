"""MaskNet: the input of every layer is multiplied by a mask computed from the instance.

Paper: Wang, She and Zhang, "MaskNet: Introducing Feature-Wise Multiplication to CTR Ranking Models by
Instance-Guided Mask", DLP-KDD 2021, https://arxiv.org/abs/2102.07619.

Equation (eq. 5-10): V_mask = W_d2 relu(W_d1 V_emb + b_d1) + b_d2, always of the embedding;
a MaskBlock is V_out = relu(LN(W (V_mask * V_in))).
`serial`    the first block's V_in is LN_EMB(V_emb), a later one's is the previous block's output;
`parallel`  every block's V_in is LN_EMB(V_emb); their concatenated outputs are the input of an MLP.

Shapes: ids (B, S) -> E (B, F, D) -> outputs of the blocks (B, block_size each) -> logit (B,).

Differs from the paper: serial blocks may be followed by an MLP, too (`hidden: []` is the paper's). LN_EMB has
one gain and bias for all fields and is shared by all blocks. `aggregation` is the paper's reduction ratio r:
the mask's inner layer has r times the width of what is masked. `dropout` acts in the MLP, `block_dropout`
behind each block (FuxiCTR has one rate for both). Embeddings are initialised with a larger
deviation, since tiny ones vanish in the epsilon of LN.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers.mechanism import Mechanism
from pipeline.layers.mlp import Dropout, dense
from pipeline.layers.norm import vector_norm
from pipeline.layers.options import Count, Embed, Net, Positive, Probability
from pipeline.schema import Schema


class MaskBlock(nn.Module):
    """relu(LN(W (V_mask * V_in))) and the two layers of V_mask."""

    def __init__(
        self, embedding: int, inputs: int, outputs: int, aggregation: float, dropout: float = 0.0
    ) -> None:
        super().__init__()
        width = max(1, round(aggregation * inputs))
        self.mask = nn.Sequential(dense(embedding, width), nn.ReLU(), dense(width, inputs))
        self.v_mask = Mechanism("mask", 1.0)
        self.w = dense(inputs, outputs, bias=False)
        self.ln = nn.LayerNorm(outputs)
        self.dropout = Dropout(dropout)

    def forward(self, v_emb: Float[Tensor, "B E"], v_in: Float[Tensor, "B I"]) -> Float[Tensor, "B H"]:
        return self.dropout(torch.relu(self.ln(self.w(self.v_mask(self.mask(v_emb)) * v_in))))


class MaskNet(nn.Module):
    """MaskBlocks in series or in parallel, and an MLP."""

    def __init__(
        self,
        schema: Schema,
        *,
        embedding: Embed = Embed(10, std=0.1),
        structure: Literal["serial", "parallel"] = "parallel",
        blocks: Count = 3,
        block_size: Count = 32,
        block_dropout: Probability = 0.0,
        aggregation: Positive = 2.0,
        network: Net = Net((400, 400)),
    ) -> None:
        super().__init__()
        self.embedding = embedding(schema)
        self.ln_emb = vector_norm(embedding.size)
        self.serial = structure == "serial"
        size = self.embedding.width
        later = block_size if self.serial else size
        inputs = [size] + [later] * (blocks - 1)
        self.blocks = nn.ModuleList(
            MaskBlock(size, width, block_size, aggregation, block_dropout) for width in inputs
        )
        self.mlp = network(block_size if self.serial else blocks * block_size)
        self.out = dense(self.mlp.outputs, 1)

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        e = self.embedding(ids)
        v_emb, v = e.flatten(1), self.ln_emb(e).flatten(1)
        if self.serial:
            for block in self.blocks:
                v = block(v_emb, v)
        else:
            v = torch.cat([block(v_emb, v) for block in self.blocks], 1)
        return self.out(self.mlp(v)).squeeze(1)
