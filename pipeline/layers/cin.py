"""The compressed interaction network of xDeepFM."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.layers.accelerated import accelerated
from pipeline.layers.mlp import dense


class CIN(nn.Module):
    """X^k_h = sum_{i,j} W^k_hij (X^{k-1}_i * X^0_j), X^0 = E; every channel is pooled, p^k_h = sum_d X^k_hd.

    Source: Lian et al., "xDeepFM", KDD 2018, https://arxiv.org/abs/1803.05170, eq. 6 and 7.

    Shapes: (B, F, D) -> X^k (B, H_k, D) -> (B, outputs).

    Args:
        fields: F.
        sizes: H_k of each layer.
        split_half: the next layer gets the first half of a layer's channels, and only the second half is
            pooled; of the last layer all are pooled.
        relu: apply it to the channels of every layer.

    Raises:
        ValueError: no layer, or an odd size that would have to be halved.
    """

    def __init__(self, fields: int, sizes: Sequence[int], *, split_half: bool, relu: bool) -> None:
        if not sizes or (split_half and any(size % 2 for size in sizes[:-1])):
            raise ValueError(f"cin {[*sizes]} must have a size, and even ones but the last with split_half")
        super().__init__()
        forwarded = [size // 2 if split_half else size for size in sizes[:-1]]
        pairs = zip([fields, *forwarded], sizes, strict=True)
        self.w = nn.ModuleList(dense(h * fields, size, bias=False) for h, size in pairs)
        self.split_half, self.relu = split_half, relu
        self.outputs = sum(sizes) - (sum(forwarded) if split_half else 0)

    @accelerated("cin")
    def forward(self, e: Float[Tensor, "B F D"]) -> Float[Tensor, "B K"]:
        x, pooled = e, []
        for k, layer in enumerate(self.w, 1):
            w = layer.get_parameter("weight").unflatten(1, (-1, e.shape[1]))
            x = torch.einsum("khf,bhd,bfd->bkd", w, x, e)
            x = torch.relu(x) if self.relu else x
            x, p = x.chunk(2, 1) if self.split_half and k < len(self.w) else (x, x)
            pooled.append(p.sum(2))
        return torch.cat(pooled, 1)
