"""A run folder: one configuration of one model, trained on every seed, as files.

`run.json` is the truth about a run and MLflow a view of it, so it holds nothing that a second
execution would give another value: no time, no host, no duration.
"""

import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

from safetensors.torch import save
from torch import nn

from pipeline import parallel
from pipeline.data import Split
from pipeline.files import digest, folder_digest, write_json, writing
from pipeline.training import Log, State, fit
from pipeline.zoo import build

Block = dict[str, Any]
Child = Callable[[str, str, Block], AbstractContextManager[Log]]
CHECKPOINTS = Path("data/checkpoints")


def header(
    stage: Literal["train", "tune"],
    dataset: str,
    model: str,
    architecture: str,
    params: Block,
    processed: Path,
    **more: Any,
) -> Block:
    """Return the head of `run.json`: what decides the result, and the key that names it.

    Args:
        stage: `train` for the default configuration, `tune` for the searched one.
        model: its name in the report.
        architecture: its name in `MODELS`.
        params: {"model": constructor arguments, "train": fit arguments, "seeds": [...]}.
        processed: the folder of encoded rows; its digest is part of the key.
        more: further values that decide the result, such as the search space.
    """
    head = {
        "stage": stage,
        "variant": {"train": "default", "tune": "tuned"}[stage],
        "dataset": dataset,
        "model": model,
        "architecture": architecture,
        "params": params,
        "input": folder_digest(processed),
        **more,
    }
    return {"key": digest(head), **head}


def special(train: Split, valid: Split, rows_in_memory: int) -> Block:
    """Return what decides the result beside the params, for `header`: nothing where a training is as usual.

    The order of a streamed part is not that of a whole one, and several processes round and drop out in
    their own way; neither may go on from the other's checkpoint.
    """
    streamed = train.stream_to is not None or valid.stream_to is not None
    return ({"rows_in_memory": rows_in_memory} if streamed else {}) | (
        {"processes": parallel.ranks()} if parallel.ranks() > 1 else {}
    )


def checkpoint(key: str, name: str) -> Path:
    """Return where the training of that name goes on from when it was killed."""
    return CHECKPOINTS / key / f"{name}.pt"


def train_once(
    model: str,
    parts: tuple[Split, Split],
    params: Block,
    seed: int,
    *,
    log: Log | None = None,
    checkpoint: Path | None = None,
    progress: str | None = None,
) -> tuple[nn.Module, State]:
    """Build and fit one model on one seed; `parts` are train and valid, on the device to use."""
    train, valid = parts
    network = build(model, train.schema, params["model"], seed=seed).to(train.device)
    state = fit(
        network, train, valid, seed=seed, log=log, checkpoint=checkpoint, progress=progress, **params["train"]
    )
    return network, state


def train_trial(
    model: str,
    parts: tuple[Split, Split],
    params: Block,
    seed: int,
    *,
    logs: Sequence[Log],
    checkpoint: Path,
    progress: str,
) -> None:
    """Train one trial of a search, telling every one of `logs`; only its own checkpoint stays."""
    for old in set(checkpoint.parent.glob("trial-*.pt")) - {checkpoint}:
        old.unlink()

    def log(row: dict[str, float], step: int) -> None:
        for each in logs:
            each(row, step)

    train_once(model, parts, params, seed, log=log, checkpoint=checkpoint, progress=progress)


def train_seeds(
    head: Block, params: Block, parts: tuple[Split, Split], seeds: Sequence[int], child: Child, out: Path
) -> Block:
    """Train on every seed, write `seed-<s>.safetensors` to `out`, return run.json's remaining values.

    A killed run goes on from its checkpoints; they are removed by `finish`, once run.json is there.
    """
    results, weights = [], 0
    for seed in seeds:
        name = f"seed-{seed}"
        with child(name, f"{head['key']}/{name}", params) as log:
            network, state = train_once(
                head["architecture"],
                parts,
                params,
                seed,
                log=log,
                checkpoint=checkpoint(head["key"], name),
                progress=f"{head['model']} {head['variant']} {name}",
            )
        tensors = {key: value.cpu().contiguous() for key, value in network.state_dict().items()}
        with writing(out / f"{name}.safetensors") as file:
            file.write(save(tensors))
        weights = sum(p.numel() for p in network.parameters())
        results.append({"seed": seed, "best": state.curve[state.best], "curve": state.curve})
        print(describe(head, results[-1]), flush=True)
    return {"seeds": results, "weights": weights}


def finish(out: Path, run: Block) -> None:
    """Write run.json, the sign that the folder is complete, and drop the checkpoints."""
    write_json(out / "run.json", run)
    shutil.rmtree(CHECKPOINTS / run["key"], ignore_errors=True)


def describe(head: Block, result: Block) -> str:
    """One line on a finished seed, for people."""
    best = result["best"]
    return (
        f"{head['dataset']} {head['model']} ({head['variant']}) seed {result['seed']}: "
        f"valid AUC {best['valid_auc']:.4f}, logloss {best['valid_logloss']:.4f} "
        f"at epoch {best['epoch']:g} of {result['curve'][-1]['epoch']:g}"
    )
