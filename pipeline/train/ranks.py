"""One training over several processes (ranks): each computes the gradient of its share of every batch.

`torchrun --nproc-per-node 2 -m stages.train ...` starts them, on one GPU each or on CPUs. Every rank reads
the same batches in the same order; the sum of the ranks' gradients is the gradient of the whole batch. So
`batch_size` means what it means in one process, and the weights are the same up to the rounding of sums.
What differs: each rank draws its own dropout masks, and batch norm sees a rank's share of a batch (its
running means are those of rank 0). Decisions are made from the values of rank 0, and only rank 0 writes
files. Outside `group` there is one rank, and nothing here costs anything.

Why not `DistributedDataParallel`: it expects sparse gradients of `nn.Embedding` alone and fails on those of
lazy tables ("Cannot access storage of SparseTensorImpl", torch 2.13; NCCL sums no sparse tensors at all). It
sends all buffers at every step, the histories and trees of `prepare` included, and to switch that off is
deprecated. What it would save are the last ten lines of `backward`.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pipeline.common.errors import LostRank, PipelineError
from pipeline.data.batches import Batch

T = TypeVar("T")
# How long a rank waits for the others, who may be reading or writing files, before it gives up.
TIMEOUT = timedelta(minutes=30)
# Gradients of at most this many elements travel in one message: one each takes 2 to 9 times as long.
_PACKED_ELEMENTS = 2**16


def count() -> int:
    """Return how many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return this process's rank."""
    return dist.get_rank() if dist.is_initialized() else 0


@contextmanager
def group(device: torch.device, *, always: bool = False) -> Iterator[torch.device]:
    """Join the ranks that torchrun started, if it did, and yield this rank's device.

    Args:
        always: whether a process alone is a group, too, as sharded tables need it.

    Raises:
        PipelineError: more processes than GPUs, or a device other than CPU and GPU.
        LostRank: the connection to another rank broke.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        if always:
            store = dist.HashStore()  # type: ignore[attr-defined]
            dist.init_process_group("gloo", store=store, rank=0, world_size=1)
        try:
            yield device
        finally:
            if always:
                dist.destroy_process_group()
        return
    if str(device) not in ("cpu", "cuda"):
        raise PipelineError(f"several processes train on `device: cpu` or `device: cuda`, not on {device}")
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        if device.index >= torch.cuda.device_count():
            raise PipelineError(
                f"each process needs its own GPU, and this machine has {torch.cuda.device_count()}: "
                f"use torchrun --nproc-per-node {torch.cuda.device_count()}, or set `device: cpu`"
            )
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield device
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            reason = str(error).splitlines()[0]
            raise LostRank(
                f"rank {rank()} lost the other ranks; see the message of the one that failed first ({reason})"
            ) from error
        raise
    dist.destroy_process_group()


def check(batch_size: int) -> None:
    """Raise if a batch leaves a rank fewer than two rows: batch norm cannot train on one.

    Raises:
        PipelineError: it does.
    """
    if count() > 1 and batch_size < 2 * count():
        raise PipelineError(
            f"a batch of {batch_size} rows is too small for {count()} processes: each needs at least two "
            "rows; raise train.batch_size or start fewer processes"
        )


def seed_of_rank(seed: int) -> int:
    """Return a seed for what should differ between ranks (dropout); on rank 0 it is `seed` itself."""
    return seed + 1_000_000_007 * rank()


def own_range(total: int) -> range:
    """Return this rank's share of the numbers below `total`: consecutive, equal up to one."""
    return range(total * rank() // count(), total * (rank() + 1) // count())


def share(batch: Batch) -> tuple[Batch, float]:
    """Return this rank's rows of a batch, and the weight of their mean loss in that of the batch.

    The last batch of an epoch may be too small to share: then every rank computes all of it.
    """
    rows = len(batch.label)
    if rows < 2 * count():
        return batch, 1 / count()
    own = own_range(rows)
    return (batch if count() == 1 else batch.rows(slice(own.start, own.stop))), len(own) / rows


def backward(model: nn.Module, loss: Tensor, weight: float) -> None:
    """Compute the gradient of the weighted sum of all ranks' losses, on every rank."""
    if count() == 1:
        loss.backward()
        return
    (loss * weight).backward()
    grads = [(p, p.grad) for p in model.parameters() if p.grad is not None]
    for p, grad in grads:
        if grad.is_sparse:
            grad = grad.coalesce()
            indices, values = concatenated(grad.indices().T.contiguous()), concatenated(grad.values())
            p.grad = torch.sparse_coo_tensor(indices.T, values, grad.shape, check_invariants=False).coalesce()
    dense = [grad for _, grad in grads if not grad.is_sparse]
    small = [grad for grad in dense if grad.numel() <= _PACKED_ELEMENTS]
    large = [dist.all_reduce(grad, async_op=True) for grad in dense if grad.numel() > _PACKED_ELEMENTS]
    if small:
        packed = torch.cat([grad.flatten() for grad in small])
        dist.all_reduce(packed)
        for grad, summed in zip(small, packed.split([grad.numel() for grad in small]), strict=True):
            grad.copy_(summed.view_as(grad))
    for work in large:
        work.wait()


def total(value: Tensor) -> Tensor:
    """Return the sum of a tensor over the ranks."""
    if count() > 1:
        value = value.clone()
        dist.all_reduce(value)
    return value


def concatenated(rows: Tensor) -> Tensor:
    """Return the rows (n, ...) of all ranks, in the order of the ranks; n may differ between them."""
    if count() == 1:
        return rows
    counts = [rows.new_zeros(1, dtype=torch.long) for _ in range(count())]
    dist.all_gather(counts, rows.new_tensor([len(rows)], dtype=torch.long))
    longest = int(max(counts))
    padded = torch.cat([rows, rows.new_zeros(longest - len(rows), *rows.shape[1:])])
    every_rank = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(every_rank, padded)
    return torch.cat([some[: int(n)] for some, n in zip(every_rank, counts, strict=True)])


def broadcast_buffers(model: nn.Module) -> None:
    """Copy the running means of rank 0 to every rank, so that all score with one model."""
    if count() > 1:
        for buffer in model.buffers():
            if buffer.is_floating_point():
                dist.broadcast(buffer, 0)


def on_rank_0(call: Callable[[], T]) -> T:
    """Call a function on rank 0; return its result, or raise its exception, on every rank."""
    if count() == 1:
        return call()
    outcome: list[T | Exception | None] = [None, None]
    if rank() == 0:
        try:
            outcome[0] = call()
        except Exception as error:  # noqa: BLE001  raised again below, on every rank
            outcome[1] = error
    dist.broadcast_object_list(outcome, 0)
    if outcome[1] is not None:
        raise cast(Exception, outcome[1])
    return cast(T, outcome[0])


def from_rank_0(value: T) -> T:
    """Return rank 0's value on every rank."""
    return on_rank_0(lambda: value)


def gathered(value: T) -> list[T]:
    """Return the values of all ranks, in the order of the ranks."""
    values: list[T] = [value] * count()
    if count() > 1:
        dist.all_gather_object(values, value)
    return values
