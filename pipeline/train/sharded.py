"""Tables larger than a process: TorchRec shards them over the ranks of a training.

`build` makes a model whose tables, those of every `FieldEmbedding` and `FieldLinear` and no others, are
`ShardedTable`s; the model is the same otherwise, its first weights have the same bits, and `fit` trains it.
Each rank holds a part of the rows of all tables (`row_wise`) or all rows of some (`table_wise`), with the
state of their optimizer, and the rows of a batch travel.

TorchRec updates a table in the backward pass, by row-wise Adagrad (on CPUs FBGEMM has no Adam): one second
moment a row, the mean square of its gradient summed over all steps. So a table has a learning rate of its
own, which falls with that of the training. L2 is that of `adam.Adam` for a lazy table, added to the gradient.
What a table updated in the backward pass cannot have, a norm of all gradients to clip and an average of the
weights, `check` refuses.

Source: Ivchenko et al., "TorchRec: a PyTorch Domain Library for Recommendation Systems", RecSys 2022,
https://doi.org/10.1145/3523227.3547387.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline import models
from pipeline.common.errors import PipelineError
from pipeline.layers.embedding import FieldEmbedding, FieldLinear
from pipeline.layers.tables import held
from pipeline.models import MODELS
from pipeline.schema import EMPTY, Schema
from pipeline.train import ranks
from pipeline.train.parts import Rows

Block = dict[str, Any]
Sharding = Literal["row_wise", "table_wise"]
MULTIPLE = 4  # of which FBGEMM wants the width of a table
INSTALL = (
    "pip install --no-deps fbgemm-gpu-cpu==1.8.0 torchrec==1.8.0 tensordict torchmetrics lightning-utilities "
    "pyre-extensions typing-inspect mypy-extensions iopath portalocker pyvers orjson"
)
WITHOUT = ("average_epochs", "clip_norm")  # arguments of `fit` that have to be 0


@dataclass(frozen=True)
class Tables:
    """How tables are sharded, as run.json has it.

    Attributes:
        sharding: rows in equal ranges, or all of a table on one rank.
        lr: of the rows, by row-wise Adagrad.
    """

    sharding: Sharding
    lr: float


class ShardedTable(nn.Module):
    """A table (V, D) of which this rank holds some rows: ids (B, S) -> rows (B, S, D).

    All ranks call it alike, each with ids of its own; the row of an empty slot is zero. Its state is this
    rank's part: rows, and what their optimizer keeps of them.

    Args:
        shape: V and D.
        blocks: all rows, some at a time, the same on every rank; others than the own are not kept.
        tables: how it is sharded.
        rank: of a whole table.

    Attributes:
        l2: strength of the penalty: see `penalise`.
        first, counts: the number of the first own row; how many rows each rank has.
    """

    _collection: Any

    def __init__(
        self, shape: tuple[int, int], blocks: Iterator[Float[Tensor, "R D"]], tables: Tables, rank: int
    ) -> None:
        super().__init__()
        self.shape, self.l2 = torch.Size(shape), 0.0
        rows, dim = shape
        padded = -(-dim // MULTIPLE) * MULTIPLE
        # the mean square of a row counts what fills it up, too
        self._lr = tables.lr * math.sqrt(dim / padded)
        with torch.random.fork_rng(devices=[]):  # it draws rows of its own
            collection = _sharded(rows, padded, tables.sharding, rank, self._lr)
        # hidden: its parameters are of a kind that no other part of the training knows
        self.__dict__["_collection"] = collection
        (stored,) = collection.state_dict().values()
        shards = stored.local_shards()
        own = shards[0].tensor if shards else torch.empty(0, padded)
        self.counts = ranks.gathered(len(own))
        self.first = sum(self.counts[: ranks.rank()])
        _fill(own, self.first, blocks)
        moments = [
            shard.tensor
            for state in collection.fused_optimizer.state_dict()["state"].values()
            for value in state.values()
            for shard in value.local_shards()
        ]
        assert len(moments) == len(shards), "row-wise Adagrad has one moment a row"
        # parameters, since floating buffers are those of rank 0 everywhere
        self.shard = nn.Parameter(own, requires_grad=False)
        self.moment = nn.Parameter(moments[0] if moments else torch.empty(0), requires_grad=False)
        self.seen = nn.Parameter(torch.empty(0), requires_grad=False)
        self.steps = nn.Parameter(torch.zeros(1, dtype=torch.int64), requires_grad=False)

    def penalise(self, l2: float) -> None:
        """Set the strength of the penalty, before the first step."""
        self.l2 = l2
        self.seen = nn.Parameter(torch.zeros(len(self.shard) if l2 else 0), requires_grad=False)

    def by_row(self) -> tuple[str, ...]:
        """Return the names of what has a value or more for each row."""
        return ("shard", "moment", "seen") if self.l2 else ("shard", "moment")

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
        rows: Tensor = self._collection(wanted)["id"].values()[:, : self.shape[1]]
        if self.l2 and self.training and torch.is_grad_enabled():
            rows = _penalised(rows, self._strength(flat))
        return rows.view(*ids.shape, -1) * (ids != EMPTY).unsqueeze(-1)

    @torch.no_grad()
    def _strength(self, ids: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
        """Return each place's part of the penalty of its id, l2 t / n_i: n_i of the t steps had it.

        As in `Adam`. An id pays once, however often the ranks' rows have it.
        """
        self.steps.add_(1)
        everywhere, counts = ranks.concatenated(ids), ranks.concatenated(ids.new_tensor([len(ids)]))
        rows, place, times = everywhere.unique(return_inverse=True, return_counts=True)
        mine = (rows >= self.first) & (rows < self.first + len(self.seen))
        own = rows[mine] - self.first
        self.seen[own] += 1
        strength = torch.zeros(len(rows))
        strength[mine] = self.l2 * self.steps / self.seen[own]
        start = int(counts[: ranks.rank()].sum())
        found: Tensor = (ranks.total(strength) / times)[place[start : start + len(ids)]]
        return found

    def follow(self, share: float) -> None:
        """Set the learning rate to a share of what it was at first."""
        optimizer = self._collection.fused_optimizer
        for group in optimizer.param_groups:
            group["lr"] = self._lr * share
        optimizer.step()  # hands it over; the rows are updated in the backward pass

    def nbytes(self) -> int:
        """Return the size of this rank's rows and of their optimizer's state."""
        return sum(each.nbytes for each in (self.shard, self.moment, self.seen))


def build(
    architecture: str,
    schema: Schema,
    options: Block,
    *,
    seed: int,
    tables: Tables,
    embedding_l2: float = 0.0,
    linear_l2: float = 0.0,
) -> nn.Module:
    """Construct a model with sharded tables and the first weights that `models.build` draws.

    All ranks of `ranks.group(..., always=True)` call it alike.

    Args:
        embedding_l2, linear_l2: of the rows; see `adam.parameter_groups`.

    Raises:
        PipelineError: TorchRec is not installed, or the model needs whole tables.
    """
    if hasattr(MODELS[architecture], "prepare"):
        raise PipelineError(
            f"{architecture} learns from the train rows before its first step and needs whole tables for it: "
            "set `tables: whole` under `train`"
        )
    try:
        import torchrec  # noqa: F401
    except ImportError as error:
        raise PipelineError(
            f"sharded tables need TorchRec ({error}); on CPUs install it by `{INSTALL}` (docs/scale.md)"
        ) from None
    number = count()
    with held(lambda shape, blocks: ShardedTable(shape, blocks, tables, next(number) % ranks.count())):
        model = models.build(architecture, schema, options, seed=seed)
    layers = [each for each in model.modules() if isinstance(each, FieldEmbedding | FieldLinear)]
    if any(not field.slots for layer in layers for field in layer.schema.fields):
        raise PipelineError("neighbour fields need a whole table: set `tables: whole` under `train`")
    for layer in layers:
        if isinstance(layer, FieldEmbedding):
            layer.table.penalise(layer.l2_factor * embedding_l2)
        else:
            layer.table.penalise(linear_l2)
    return model


def check(settings: Block, device: torch.device, *, warm: bool = False) -> None:
    """Raise if a training cannot have sharded tables as it is configured.

    Args:
        settings: arguments of `fit`.
        warm: whether it begins with the weights of a package.

    Raises:
        PipelineError: it cannot.
    """
    given = [f"{key}: {settings[key]:g}" for key in WITHOUT if settings[key]]
    if given:
        raise PipelineError(
            f"train: {', '.join(given)} cannot be had with sharded tables, whose rows are updated in the "
            f"backward pass: set {'both' if len(given) > 1 else 'it'} to 0, or `tables: whole`"
        )
    if settings["l2_tables"] == "whole":
        raise PipelineError(
            "train: l2_tables: whole cannot be had with sharded tables, of which the rows of a batch alone "
            "are updated: set `l2_tables: batch`, or `tables: whole`"
        )
    if device.type != "cpu":
        raise PipelineError(f"sharded tables are trained on CPUs, not on {device}: set `device: cpu`")
    if warm:
        raise PipelineError(
            "a training that begins with the weights of a package (encode.warm_start) needs whole tables: "
            "set `tables: whole`"
        )


def sharded_tables(model: nn.Module) -> dict[str, ShardedTable]:
    """Return the sharded tables of a model by their dotted names."""
    return {name: each for name, each in model.named_modules() if isinstance(each, ShardedTable)}


def is_sharded(model: nn.Module) -> bool:
    """Whether a model has sharded tables, so that all ranks have to call it equally often."""
    return any(isinstance(each, ShardedTable) for each in model.modules())


def follow(model: nn.Module, share: float) -> None:
    """Let the learning rates of sharded tables fall with that of the training: to a share of the first."""
    for table in sharded_tables(model).values():
        table.follow(share)


def weights(model: nn.Module) -> dict[str, Tensor | Rows]:
    """Return the weights by the names that the plain model has for them, for `parts.write`."""
    tables = sharded_tables(model)
    kept = complete(model, model.state_dict())
    return {
        name: value
        for name, value in kept.items()
        if name in tables or not name.startswith(tuple(f"{table}." for table in tables))
    }


def size(model: nn.Module) -> int:
    """Return the number of trained parameters, on whatever rank."""
    tables = sharded_tables(model).values()
    inside = {id(p) for table in tables for p in table.parameters()}
    others = sum(p.numel() for p in model.parameters() if id(p) not in inside)
    return others + sum(table.shape.numel() for table in tables)


def complete(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor | Rows]:
    """Return a `state_dict` for `parts.write`: tables by their names, without what fills them up."""
    found: dict[str, Tensor | Rows] = dict(state)
    for name, table in sharded_tables(model).items():
        for key in table.by_row():
            found[f"{name}.{key}"] = Rows(state[f"{name}.{key}"], table.counts)
        found[name] = Rows(state[f"{name}.shard"][:, : table.shape[1]], table.counts)
        del found[f"{name}.shard"]
    return found


def own(model: nn.Module, file: Any, prefix: str) -> dict[str, Tensor]:
    """Return this rank's `state_dict` from a file that has what `complete` returned.

    Args:
        file: `safetensors.safe_open`.
        prefix: of the names in it.
    """
    state = {key: torch.zeros_like(value) for key, value in model.state_dict().items()}
    tables = sharded_tables(model)
    parts = {f"{name}.{key}": name for name, table in tables.items() for key in table.by_row()}
    for key, value in state.items():
        if key not in parts:
            value.copy_(file.get_tensor(prefix + key))
            continue
        table = tables[parts[key]]
        name = parts[key] if key.endswith(".shard") else key
        if not len(value):
            continue
        rows = file.get_slice(prefix + name)[table.first : table.first + len(value)]
        (value[:, : table.shape[1]] if value.dim() == 2 else value).copy_(rows)
    return state


@torch.no_grad()
def _fill(own: Float[Tensor, "R P"], first: int, blocks: Iterator[Float[Tensor, "N D"]]) -> None:
    """Keep the own rows of a table, from the `first` on; what fills them up is zero."""
    own.zero_()
    at = 0
    for block in blocks:
        start, end = max(at, first), min(at + len(block), first + len(own))
        if start < end:
            own[start - first : end - first, : block.shape[1]] = block[start - at : end - at]
        at += len(block)


class _Penalised(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, strength: Tensor) -> Tensor:
        ctx.save_for_backward(rows, strength)
        return rows.view_as(rows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        rows, strength = ctx.saved_tensors
        return grad.addcmul(rows, strength.unsqueeze(1)), None


def _penalised(rows: Float[Tensor, "N D"], strength: Float[Tensor, " N"]) -> Float[Tensor, "N D"]:
    """Return the rows; their gradient has the penalty's `strength` times the row added to it."""
    found: Tensor = _Penalised.apply(rows, strength)  # type: ignore[no-untyped-call]
    return found


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
