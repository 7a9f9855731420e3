"""One of the processes of test_sharded.py: `torchrun --nproc-per-node N tests/sharded_script.py FOLDER WHAT`.

`row_wise` and `table_wise`: they update one sharded table by known gradients, and rank 0 writes its rows to
FOLDER/table. `resumed`: they train with grades, lr steps and dropout, whole and again, stopped and resumed.
"""

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import torch  # noqa: E402
from rows import SCHEMAS, random_split  # noqa: E402
from torch import Tensor  # noqa: E402

from pipeline.common.errors import exit_with_message  # noqa: E402
from pipeline.train import parts, ranks, sharded  # noqa: E402
from pipeline.train.device import reproducible  # noqa: E402
from pipeline.train.loop import fit  # noqa: E402

ROWS, DIM, STEPS, L2, LR = 11, 3, 7, 0.3, 0.5  # rows that two processes cannot share equally
HALVED = 4  # the step from which on the learning rate is half


def initial() -> Tensor:
    return torch.randn(ROWS, DIM, generator=torch.Generator().manual_seed(1))


def step(number: int) -> tuple[Tensor, Tensor]:
    """The ids of a batch (8, 2), some more than once and some rarely, and the gradients of their rows."""
    generator = torch.Generator().manual_seed(100 + number)
    ids = (torch.rand(8, 2, generator=generator) ** 2 * ROWS).long()
    return ids, torch.randn(8, 2, DIM, generator=generator)


def update(out: Path, sharding: sharded.Sharding) -> None:
    blocks = iter(initial().split(4))
    table = sharded.ShardedTable((ROWS, DIM), blocks, sharded.Tables(sharding, LR), ranks.count() - 1)
    table.penalise(L2)
    for number in range(STEPS):
        if number == HALVED:
            table.follow(0.5)
        ids, gradient = (of_batch.chunk(ranks.count())[ranks.rank()] for of_batch in step(number))
        (table(ids) * gradient).sum().backward()
    with parts.writing(out / "table") as file:
        parts.write(file, sharded.weights(torch.nn.ModuleDict({"table": table})))


class Stopped(Exception):
    pass


def train(out: Path, name: str, **more: Any) -> None:
    """Train, and write the weights and the learning curve of rank 0."""
    schema = SCHEMAS["three-domains"]
    options = {"embedding_size": 4, "hidden": [6], "dropout": 0.3, "embedding_dropout": 0.2}
    tables = sharded.Tables("table_wise", 0.1)
    model = sharded.build("deepfm", schema, options, seed=1, tables=tables, embedding_l2=1e-3)
    splits = random_split(schema, 420, seed=1), random_split(schema, 151, seed=5)
    settings = {"epochs": 4, "batch_size": 43, "lr": 0.01, "grades": 0.5, "evaluations_per_epoch": 2}
    settings |= {"patience": 9, "lr_patience": 1, "lr_factor": 0.5, "clip_norm": 0.0}
    state = fit(model, *splits, seed=3, **settings, **more)
    with parts.writing(out / name) as file:
        parts.write(file, sharded.weights(model))
    if ranks.rank() == 0:
        torch.save(state.curve, out / f"{name}.curve")


def resume(out: Path) -> None:
    train(out, "whole")
    seen: list[int] = []

    def log(_row: dict[str, float], step: int) -> None:
        seen.append(step)
        if len(seen) == 5:
            raise Stopped

    try:
        train(out, "stopped", checkpoint=out / "checkpoint", log=log)
    except Stopped:
        train(out, "resumed", checkpoint=out / "checkpoint")


def main() -> None:
    reproducible(1)
    out, what = Path(sys.argv[1]), sys.argv[2]
    with ranks.group(torch.device("cpu"), always=True):
        if what == "resumed":
            resume(out)
        else:
            update(out, what)  # type: ignore[arg-type]


if __name__ == "__main__":
    exit_with_message(main)
