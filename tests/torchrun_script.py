"""One of the ranks of test_parallel.py: `torchrun --nproc-per-node 2 tests/torchrun_script.py FOLDER CASE`.

Each rank writes what it ended with to FOLDER/<name>-<rank>.pt.
"""

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import torch  # noqa: E402
from rows import SCHEMAS, random_split  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from pipeline.common import errors  # noqa: E402
from pipeline.common.errors import Diverged, PipelineError, exit_with_message  # noqa: E402
from pipeline.models import build  # noqa: E402
from pipeline.train import loop, ranks  # noqa: E402
from pipeline.train.device import reproducible  # noqa: E402
from pipeline.train.loop import fit  # noqa: E402
from pipeline.train.predict import predict  # noqa: E402

SCHEMA = SCHEMAS["three-domains"]
TRAIN, VALID = random_split(SCHEMA, 420, seed=1), random_split(SCHEMA, 151, seed=5)
SMALL: dict[str, Any] = {"embedding_size": 4, "hidden": [6], "dropout": 0.0}
MODELS: dict[str, dict[str, Any]] = {
    "lr": {},
    # its gradients are as small as its vectors, and the loss in float32: not as small as Adam's epsilon
    "fm": {"embedding_size": 4, "embedding_std": 0.1},
    "deepfm": SMALL,
    "fnn": SMALL,
    "gbdt_lr": {"trees": 5, "leaves": 4},
    "din": {**SMALL, "attention_hidden": [4]},
}
# an odd size whose last batch has 33 rows; one whose last has three, too few for two ranks; one that is
# a single row more than whole batches; all rows at once
SIZES = [43, 139, 419, 1000]
FIT: dict[str, Any] = {
    "seed": 3,
    "epochs": 3,
    "lr": 0.01,
    "embedding_l2": 1e-3,
    "network_l2": 1e-3,
    "evaluations_per_epoch": 2,
    "patience": 9,
    "monitor": "logloss",
}
# what has a state: dropout of both kinds, batch norm
STATEFUL = {"embedding_size": 4, "hidden": [6], "dropout": 0.3, "embedding_dropout": 0.2, "batch_norm": True}


def train(name: str, size: int, **more: Any) -> dict[str, Any]:
    """Train; return the weights, the curve and the predictions.

    In float64: where a gradient is zero but for the rounding of its sum, Adam makes a step of it.
    """
    model = build(name, SCHEMA, MODELS[name], seed=1).double()
    train, valid = (replace(part, label=part.label.double()) for part in (TRAIN, VALID))
    state = fit(model, train, valid, **{**FIT, "batch_size": size, **more})
    return {"weights": model.state_dict(), "curve": state.curve, "scores": predict(model, VALID)}


def train_stateful(**more: Any) -> dict[str, Any]:
    model = build("deepfm", SCHEMA, STATEFUL, seed=1)
    state = fit(model, TRAIN, VALID, **{**FIT, "batch_size": 64, "epochs": 4, **more})
    return {"weights": model.state_dict(), "curve": state.curve}


class Bag(nn.Module):
    """A linear model whose table has sparse gradients, and a parameter that no gradient reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(SCHEMA.vocabulary_size, 3, sparse=True)
        self.large = nn.Parameter(torch.linspace(-1, 1, 2**17))
        self.unused = nn.Parameter(torch.zeros(2))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.table(ids).sum((1, 2)) + self.large[ids.long() * 1000].sum(1)


def gradients(rows: int) -> dict[str, Any]:
    """The gradients of one batch."""
    torch.manual_seed(7)
    model = Bag()
    batch = next(iter(TRAIN.batches(rows)))
    share, weight = ranks.share(batch)
    loss = F.binary_cross_entropy_with_logits(model(share.ids), share.label)
    ranks.backward(model, loss, weight)
    table = model.table.weight.grad
    assert table is not None and table.is_sparse and model.unused.grad is None
    return {"table": table.to_dense(), "large": model.large.grad, "rows": int(table.coalesce()._nnz())}


class Pruned(Exception):
    """Stands for what a pruner raises."""


def stop_at(evaluation: int) -> loop.LogFn:
    seen = []

    def log(row: dict[str, float], _step: int) -> None:
        seen.append(row)
        if len(seen) == evaluation:
            raise Pruned

    return log


def ends(call: Any) -> str:
    """The name of what a call raises."""
    try:
        call()
    except (Pruned, Diverged) as error:
        return type(error).__name__
    return "no exception"


def everything(folder: Path) -> None:
    rank = ranks.rank()
    result: dict[str, Any] = {}
    ended: list[str] = []
    for name in MODELS:
        for size in SIZES if name in ("lr", "fm", "deepfm") else SIZES[:1]:
            result[f"{name}-{size}"] = train(name, size)
    for rows in (5, 43, 3):
        result[f"gradients-{rows}"] = gradients(rows)
    log = stop_at(2) if rank == 0 else None
    ended.append(ends(lambda: train("fm", 43, log=log)))
    ended.append(ends(lambda: train("fm", 43, lr=1e30)))
    result["whole"] = train_stateful()
    checkpoint = folder / "checkpoint.pt"
    log = stop_at(3) if rank == 0 else None
    ended.append(ends(lambda: train_stateful(checkpoint=checkpoint, log=log)))
    result["resumed"] = train_stateful(checkpoint=checkpoint)
    torch.save((ranks.count(), ended, result), folder / f"everything-{rank}.pt")


def die(_folder: Path) -> None:
    """Rank 1 is gone in the middle of a training, as if killed."""

    def log(_row: dict[str, float], _step: int) -> None:
        pass

    if ranks.rank() == 1:
        parallel_backward, left = ranks.backward, iter(range(5))

        def backward(*args: Any) -> None:
            if next(left, None) is None:
                os._exit(3)
            parallel_backward(*args)

        ranks.backward = backward
    train("fm", 43, log=log)


def small(_folder: Path) -> None:
    train("fm", 3)


def alone(_folder: Path) -> None:
    """Rank 1 meets an error that rank 0 does not, and does not come to where rank 0 waits."""
    errors.RANK_DELAY_SECONDS = 0
    if ranks.rank() == 1:
        raise PipelineError("only rank 1 knows")
    ranks.gathered(0)


def main() -> None:
    reproducible(1)
    folder, case = Path(sys.argv[1]), sys.argv[2]
    with ranks.group(torch.device(sys.argv[3] if len(sys.argv) > 3 else "cpu")):
        {"everything": everything, "die": die, "small": small, "alone": alone}[case](folder)


if __name__ == "__main__":
    exit_with_message(main)
