"""Tables larger than a process: TorchRec shards them over the ranks of a training.

`shard` replaces the table of every `FieldEmbedding` and `FieldLinear`, the only doors to a table, by a
`ShardedTable`; the model is the same otherwise, and `fit` trains it. Each rank holds a part of the rows of
all tables (`row_wise`) or all rows of some (`table_wise`), with the state of their optimizer, and the rows of
a batch travel.

TorchRec updates a table in the backward pass, by row-wise Adagrad (on CPUs FBGEMM has no Adam): one second
moment a row, summed over all steps. So a table has a learning rate of its own, which does not decay with that
of the training. Not applied to it: L2, the average of the weights, and the clipping of gradients. `fit`
writes no checkpoint of such a model.
`whole` gathers the weights for one process, which reads them into the plain model.

Source: Ivchenko et al., "TorchRec: a PyTorch Domain Library for Recommendation Systems", RecSys 2022,
https://doi.org/10.1145/3523227.3547387.
"""

from typing import Any, Literal

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.common.errors import PipelineError
from pipeline.layers.embedding import FieldEmbedding, FieldLinear
from pipeline.schema import EMPTY, Schema
from pipeline.train import ranks

Sharding = Literal["row_wise", "table_wise"]
MULTIPLE = 4  # of which FBGEMM wants the width of a table


class ShardedTable(nn.Module):
    """A table (V, D) of which this rank holds some rows: ids (B, S) -> rows (B, S, D).

    All ranks call it alike, each with ids of its own; the row of an empty slot is zero. Its state is this
    rank's part: rows, and what their optimizer keeps of them.

    Args:
        table: all rows, the same on every rank; not kept.
        sharding: rows in equal ranges, or all of them on one rank.
        rank: of a whole table.
        lr: of the rows.
    """

    _collection: Any

    def __init__(self, table: Float[Tensor, "V D"], sharding: Sharding, rank: int, lr: float) -> None:
        super().__init__()
        self.shape = table.shape
        rows, dim = table.shape
        padded = -(-dim // MULTIPLE) * MULTIPLE
        self._owner = rank if sharding == "table_wise" else None
        collection = _sharded(rows, padded, sharding, rank, lr)
        # hidden: its parameters are of a kind that no other part of the training knows
        self.__dict__["_collection"] = collection
        (stored,) = collection.state_dict().values()
        shards = stored.local_shards()
        first = sum(shard.metadata.shard_offsets[0] for shard in shards)
        own = shards[0].tensor if shards else torch.empty(0, padded)
        with torch.no_grad():
            own[:, :dim] = table[first : first + len(own)]
            own[:, dim:] = 0.0
        self.shard = nn.Parameter(own, requires_grad=False)
        moments = [
            shard.tensor
            for state in collection.fused_optimizer.state_dict()["state"].values()
            for value in state.values()
            for shard in value.local_shards()
        ]
        self.moments = nn.ParameterList([nn.Parameter(one, requires_grad=False) for one in moments])

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, "B S D"]:
        """Look up the rows, wherever they are."""
        if not torch.is_inference_mode_enabled():
            return self._rows(ids)
        with torch.inference_mode(False), torch.no_grad():  # which FBGEMM does not know
            return self._rows(ids.clone())

    def _rows(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, "B S D"]:
        from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

        flat = ids.reshape(-1).long()
        wanted = KeyedJaggedTensor(["id"], flat, lengths=torch.ones(len(flat), dtype=torch.int32))
        rows: Tensor = self._collection(wanted)["id"].values()
        rows = rows.view(*ids.shape, -1)[..., : self.shape[1]]
        return rows * (ids != EMPTY).unsqueeze(-1)

    def nbytes(self) -> int:
        """Return the size of this rank's rows and of their optimizer's state."""
        return sum(kept.nbytes for kept in (self.shard, *self.moments))

    def whole(self) -> Float[Tensor, "V D"] | None:
        """Return all rows on rank 0, None on the others; all ranks call it."""
        own = self.shard.detach()
        counts = ranks.gathered(len(own))
        if ranks.count() == 1:
            return own[:, : self.shape[1]].clone()
        longest = max(counts)
        padded = torch.cat([own, own.new_zeros(longest - len(own), own.shape[1])])
        parts = [torch.empty_like(padded) for _ in counts] if ranks.rank() == 0 else None
        dist.gather(padded, parts, dst=0)
        if parts is None:
            return None
        rows = torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])
        return rows[:, : self.shape[1]].contiguous()


def shard(model: nn.Module, schema: Schema, sharding: Sharding, lr: float) -> None:
    """Shard the tables of a model in place, inside `ranks.group` or in a single process of a group.

    Args:
        model: the same on every rank.
        lr: of the rows, by row-wise Adagrad.

    Raises:
        PipelineError: TorchRec is not installed, or the model needs a whole table.
    """
    try:
        import torchrec  # noqa: F401
    except ImportError as error:
        raise PipelineError(
            f"sharded tables need TorchRec ({error}): docs/scale.md says how to install it"
        ) from None
    layers = [each for each in model.modules() if isinstance(each, FieldEmbedding | FieldLinear)]
    if any(not field.slots for field in schema.fields):
        raise PipelineError("neighbour fields need a whole table: they cannot be sharded")
    for number, layer in enumerate(layers):
        table = layer.table
        assert isinstance(table, nn.Parameter)
        del layer.table
        layer.table = ShardedTable(table.detach(), sharding, number % ranks.count(), lr)


def is_sharded(model: nn.Module) -> bool:
    """Whether a model has sharded tables, so that all ranks have to call it equally often."""
    return any(isinstance(each, ShardedTable) for each in model.modules())


def whole(model: nn.Module) -> dict[str, Tensor]:
    """Return the state of the plain model on rank 0, nothing on the others; all ranks call it."""
    state, tables = model.state_dict(), dict[str, Tensor]()
    for name, each in model.named_modules():
        if isinstance(each, ShardedTable):
            rows = each.whole()
            state = {key: value for key, value in state.items() if not key.startswith(f"{name}.")}
            tables |= {} if rows is None else {name: rows}
    return {**state, **tables} if ranks.rank() == 0 else {}


def _sharded(rows: int, dim: int, sharding: Sharding, rank: int, lr: float) -> Any:
    """Return TorchRec's collection of one sharded table, whose gradients are summed over the ranks."""
    from torchrec.distributed import comm_ops, sharding_plan
    from torchrec.distributed.embedding import EmbeddingCollectionSharder
    from torchrec.distributed.types import ShardingEnv
    from torchrec.modules.embedding_configs import EmbeddingConfig
    from torchrec.modules.embedding_modules import EmbeddingCollection
    from torchrec.optim.apply_optimizer_in_backward import apply_optimizer_in_backward
    from torchrec.optim.rowwise_adagrad import RowWiseAdagrad

    comm_ops.set_gradient_division(False)  # ours are weighted already: see `ranks.backward`
    config = EmbeddingConfig(num_embeddings=rows, embedding_dim=dim, name="table", feature_names=["id"])
    collection = EmbeddingCollection(tables=[config], device=torch.device("meta"))
    apply_optimizer_in_backward(RowWiseAdagrad, collection.parameters(), {"lr": lr})
    how = (
        sharding_plan.row_wise(compute_kernel="fused")
        if sharding == "row_wise"
        else sharding_plan.table_wise(rank=rank, compute_kernel="fused")
    )
    sharder, count = EmbeddingCollectionSharder(), dist.get_world_size()
    plan = sharding_plan.construct_module_sharding_plan(
        collection, {"table": how}, sharder=sharder, local_size=count, world_size=count, device_type="cpu"
    )
    env = ShardingEnv.from_process_group(dist.group.WORLD)
    return sharder.shard(collection, plan, env, torch.device("cpu"))
