"""FiiNet's crosses of a large batch, chunk by chunk.

All crosses of a batch have far more elements than its embeddings and its first hidden layer. Above some tens
of megabytes they not only leave the cache: every step asks the system for fresh pages.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pipeline.kernels import applies

CHUNK_ELEMENTS = 2**22  # 16 MiB of float32


def fiinet_deep(self: Any, e: Tensor) -> Tensor:
    """`models.fiinet.FiiNet.deep`: the gradient of each chunk runs its crosses a second time.

    The size of a chunk depends on shapes alone, so that the same seed gives the same bits.
    """
    if not applies(e):  # first: the size of a recorded graph's batch is unknown
        return NotImplemented
    rows = max(1, CHUNK_ELEMENTS // max(1, self.select.crosses * e.shape[2]))
    if len(e) <= rows:
        return NotImplemented
    first, *rest = self.mlp or [nn.Identity()]

    def first_layer(chunk: Tensor) -> Tensor:
        result: Tensor = first(self.select(chunk).flatten(1))
        return result

    if torch.is_grad_enabled():
        parts = [
            checkpoint(first_layer, part, use_reentrant=False, preserve_rng_state=False)
            for part in e.split(rows)
        ]
    else:
        parts = [first_layer(part) for part in e.split(rows)]
    h = torch.cat(parts)
    for layer in rest:
        h = layer(h)
    logit: Tensor = self.out(h).squeeze(1)
    return logit
