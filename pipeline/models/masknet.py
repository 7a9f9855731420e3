"""MaskNet: every layer is multiplied by a mask that the instance itself has made.

Paper: Wang, She and Zhang, "MaskNet: Introducing Feature-Wise Multiplication to CTR Ranking Models by
Instance-Guided Mask", DLP-KDD 2021, https://arxiv.org/abs/2102.07619.

Equation (eq. 5-10): V_mask = W_d2 relu(W_d1 V_emb + b_d1) + b_d2, always of the embedding;
a MaskBlock is V_out = relu(LN(W (V_mask * V_in))).
`serial`    the first block's V_in is LN_EMB(V_emb), a later one's is the output of the block before;
`parallel`  every block's V_in is LN_EMB(V_emb); their outputs, concatenated, enter an MLP.

Shapes: ids (B, S) -> E (B, F, D) -> outputs of the blocks (B, block_size each) -> logit (B,).

Differs from the paper: the MLP may follow the serial blocks, too (`hidden: []` there is the paper's).
The fields share the gain and bias of LN_EMB, which the blocks share. `aggregation` is its reduction
ratio r: the mask's inner layer has r times the width of what is masked. Embeddings start wider, as
tiny ones drown in the epsilon of LN. Dropout and batch norm are options.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers.embedding import FieldEmbedding, Transform
from pipeline.layers.mlp import MLP, Activation, dense
from pipeline.layers.norm import vector_norm
from pipeline.schema import Schema


class MaskBlock(nn.Module):
    """relu(LN(W (V_mask * V_in))) with the mask's two layers."""

    def __init__(self, embedding: int, inputs: int, outputs: int, aggregation: float) -> None:
        super().__init__()
        width = max(1, round(aggregation * inputs))
        self.mask = nn.Sequential(dense(embedding, width), nn.ReLU(), dense(width, inputs))
        self.w = dense(inputs, outputs, bias=False)
        self.ln = nn.LayerNorm(outputs)

    def forward(self, v_emb: Float[Tensor, "B E"], v_in: Float[Tensor, "B I"]) -> Float[Tensor, "B H"]:
        return torch.relu(self.ln(self.w(self.mask(v_emb) * v_in)))


class MaskNet(nn.Module):
    """MaskBlocks one after the other, or side by side."""

    def __init__(
        self,
        schema: Schema,
        *,
        embedding_size: int = 10,
        embedding_std: float = 0.1,
        embedding_dropout: float = 0.0,
        embedding_transform: Transform = "none",
        structure: Literal["serial", "parallel"] = "parallel",
        blocks: int = 3,
        block_size: int = 32,
        aggregation: float = 2.0,
        hidden: list[int] = [400, 400],  # noqa: B006  never changed, only read
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
        self.ln_emb = vector_norm(embedding_size)
        self.serial = structure == "serial"
        size = len(schema.fields) * embedding_size
        later = block_size if self.serial else size
        inputs = [size] + [later] * (blocks - 1)
        self.blocks = nn.ModuleList(MaskBlock(size, width, block_size, aggregation) for width in inputs)
        self.mlp = MLP(
            block_size if self.serial else blocks * block_size,
            hidden,
            dropout=dropout,
            batch_norm=batch_norm,
            activation=activation,
        )
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
