"""One training over several processes, called ranks: each takes its share of every batch.

`torchrun --nproc-per-node 2 -m stages.train ...` starts them, on one GPU each or on CPUs. Every rank reads
the same batches in the same order and computes the gradient of its equal share; the sum is the gradient of
the whole batch, so `batch_size` means what it means in one process, and so do the weights that come out, up
to the rounding of sums. What does differ: a rank draws its own dropout masks, and batch norm sees a rank's
share of a batch; its running means are those of rank 0. Every decision is made from the figures of rank 0,
and rank 0 alone writes files. Outside `group` there is one rank, and nothing here costs anything.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pipeline.common.errors import Lost, PipelineError
from pipeline.data.batches import Batch

T = TypeVar("T")
# How long a rank waits for the others, who may be reading or writing files, before it gives up.
TIMEOUT = timedelta(minutes=30)
_SMALL = 2**16  # gradients of at most so many numbers travel together


def ranks() -> int:
    """Return how many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this one."""
    return dist.get_rank() if dist.is_initialized() else 0


@contextmanager
def group(device: torch.device) -> Iterator[torch.device]:
    """Join the ranks that torchrun started, if it did, and yield the device of this one.

    Raises:
        PipelineError: more processes than GPUs, or a device that cannot do it.
        Lost: another rank was lost.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield device
        return
    if str(device) not in ("cpu", "cuda"):
        raise PipelineError(f"several processes train on `device: cpu` or `device: cuda`, not on {device}")
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        if device.index >= torch.cuda.device_count():
            raise PipelineError(
                f"each process needs a GPU of its own and this machine has {torch.cuda.device_count()}: "
                f"give torchrun --nproc-per-node {torch.cuda.device_count()}, or set `device: cpu`"
            )
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield device
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            reason = str(error).splitlines()[0]
            raise Lost(
                f"rank {rank()} lost the others; the message of the one that failed first says why ({reason})"
            ) from error
        raise
    dist.destroy_process_group()


def check(batch_size: int) -> None:
    """Refuse a batch that leaves a rank less than two rows: batch norm cannot train on one.

    Raises:
        PipelineError: it does.
    """
    if ranks() > 1 and batch_size < 2 * ranks():
        raise PipelineError(
            f"a batch of {batch_size} rows is too small for {ranks()} processes: each needs two rows at "
            "least; raise train.batch_size or start fewer"
        )


def own_seed(seed: int) -> int:
    """Return a seed for what should differ from rank to rank; that of rank 0 is `seed` itself."""
    return seed + 1_000_000_007 * rank()


def part_of(count: int) -> range:
    """Return this rank's share of the numbers below `count`: consecutive, equal up to one."""
    return range(count * rank() // ranks(), count * (rank() + 1) // ranks())


def share(batch: Batch) -> tuple[Batch, float]:
    """Return this rank's rows of a batch, and the weight of their mean loss in that of the batch.

    The last batch of an epoch may be too small to share: every rank then computes all of it.
    """
    count = len(batch.label)
    if count < 2 * ranks():
        return batch, 1 / ranks()
    mine = part_of(count)
    return (batch if ranks() == 1 else batch.rows(slice(mine.start, mine.stop))), len(mine) / count


def backward(model: nn.Module, loss: Tensor, weight: float) -> None:
    """Leave the gradient of the weighted sum of all ranks' losses on every rank."""
    if ranks() == 1:
        loss.backward()
        return
    (loss * weight).backward()
    grads = [(p, p.grad) for p in model.parameters() if p.grad is not None]
    for p, grad in grads:
        if grad.is_sparse:
            grad = grad.coalesce()
            indices, values = joined(grad.indices().T.contiguous()), joined(grad.values())
            p.grad = torch.sparse_coo_tensor(indices.T, values, grad.shape, check_invariants=False).coalesce()
    dense = [grad for _, grad in grads if not grad.is_sparse]
    small = [grad for grad in dense if grad.numel() <= _SMALL]
    large = [dist.all_reduce(grad, async_op=True) for grad in dense if grad.numel() > _SMALL]
    if small:
        together = torch.cat([grad.flatten() for grad in small])
        dist.all_reduce(together)
        for grad, summed in zip(small, together.split([grad.numel() for grad in small]), strict=True):
            grad.copy_(summed.view_as(grad))
    for work in large:
        work.wait()


def total(value: Tensor) -> Tensor:
    """Return the sum of a tensor over the ranks."""
    if ranks() > 1:
        value = value.clone()
        dist.all_reduce(value)
    return value


def joined(rows: Tensor) -> Tensor:
    """Return the rows (n, ...) of all ranks in their order; n may differ from rank to rank."""
    if ranks() == 1:
        return rows
    counts = [rows.new_zeros(1, dtype=torch.long) for _ in range(ranks())]
    dist.all_gather(counts, rows.new_tensor([len(rows)], dtype=torch.long))
    longest = int(max(counts))
    padded = torch.cat([rows, rows.new_zeros(longest - len(rows), *rows.shape[1:])])
    every_rank = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(every_rank, padded)
    return torch.cat([some[: int(n)] for some, n in zip(every_rank, counts, strict=True)])


def share_buffers(model: nn.Module) -> None:
    """Give every rank the running means of rank 0, so that all score with one model."""
    if ranks() > 1:
        for buffer in model.buffers():
            if buffer.is_floating_point():
                dist.broadcast(buffer, 0)


def first(call: Callable[[], T]) -> T:
    """Call a function on rank 0; return what it returned, or raise what it raised, on every rank."""
    if ranks() == 1:
        return call()
    outcome: list[T | Exception | None] = [None, None]
    if rank() == 0:
        try:
            outcome[0] = call()
        except Exception as error:  # noqa: BLE001  it is raised again below
            outcome[1] = error
    dist.broadcast_object_list(outcome, 0)
    if outcome[1] is not None:
        raise cast(Exception, outcome[1])
    return cast(T, outcome[0])


def agreed(value: T) -> T:
    """Return rank 0's value on every rank."""
    return first(lambda: value)


def every(value: T) -> list[T]:
    """Return the values of all ranks, in their order."""
    values: list[T] = [value] * ranks()
    if ranks() > 1:
        dist.all_gather_object(values, value)
    return values
