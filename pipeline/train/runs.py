"""A run folder: one configuration of one model, trained on every seed, as files.

`run.json` is the truth about a run and MLflow a view of it, so it holds nothing that a second
execution would give another value: no time, no host, no duration.
"""

import functools
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from inspect import signature
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save
from torch import nn

from pipeline.common.files import digest, sha256, write_json, writing
from pipeline.data.batches import Split
from pipeline.data.storage import REPORT, digests
from pipeline.layers.embedding import FieldEmbedding, FieldLinear
from pipeline.models import build
from pipeline.schema import SPLITS
from pipeline.train import cache, ranks, workers
from pipeline.train.cache import Trained
from pipeline.train.device import pick_device, reproducible
from pipeline.train.loop import LogFn, fit

Block = dict[str, Any]
Child = Callable[[str, str, Block], AbstractContextManager[LogFn]]
Parts = tuple[Split, Split]  # train and valid, on one device
CHECKPOINTS = Path("data/checkpoints")
LAZY_ROWS: int = signature(fit).parameters["lazy_rows"].default


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
        processed: the folder of encoded rows; its digest, `input`, is part of the key. That of the rows
            alone, `rows`, is the same for two items that have the same rows.
        more: further values that decide the result, such as the search space.

    Raises:
        PipelineError: a file of that folder is missing or was changed.
    """
    rows = digests(processed)
    head = {
        "stage": stage,
        "variant": {"train": "default", "tune": "tuned"}[stage],
        "dataset": dataset,
        "model": model,
        "architecture": architecture,
        "params": params,
        "input": digest({**rows, REPORT: sha256(processed / REPORT)}),
        **more,
    }
    return {"key": digest(head), "rows": digest(rows), **head}


def execution_settings(parts: Parts, rows_in_memory: int) -> Block:
    """Return what decides the result beside the params, for `header`: nothing where a training is as usual.

    The order of a streamed part is not that of a whole one, and several processes round and drop out in
    their own way; neither may go on from the other's checkpoint.
    """
    streamed = any(part.stream_to is not None for part in parts)
    return ({"rows_in_memory": rows_in_memory} if streamed else {}) | (
        {"processes": ranks.count()} if ranks.count() > 1 else {}
    )


@dataclass(frozen=True)
class Resources:
    """Where a training finds its rows and how it computes.

    Attributes:
        processed: the folder of encoded rows.
        device, threads: of each process.
        processes: among which the seeds of a run are shared; None for as many as pay here.
    """

    processed: Path
    device: str
    threads: int
    rows_in_memory: int
    processes: int | None = 1

    def load(self, device: torch.device | None = None) -> Parts:
        """Make trainings of this process repeatable; return train and valid rows, on the device."""
        cache.enabled()  # a wrong CTR_STORE is told before anything else
        reproducible(self.threads)
        train, valid = (
            Split.load(
                self.processed, part, device or pick_device(self.device), rows_in_memory=self.rows_in_memory
            )
            for part in SPLITS[:2]
        )
        return train, valid

    def ahead(
        self, head: Block, params: Block, parts: Parts, seeds: Sequence[int]
    ) -> AbstractContextManager[workers.Wait]:
        """Start workers for the seeds that are not in the store; see `workers.ahead`."""
        train, _ = parts
        missing = [
            seed
            for seed in dict.fromkeys(seeds)
            if not cache.has(_cache_key(head, params, seed, train.device))
        ]
        count = self.processes or workers.worthwhile_processes(
            threads=self.threads,
            device=train.device.type,
            passes=len(train) * params["train"]["epochs"],
            nbytes=sum(part.ids.nbytes for part in parts if part.stream_to is None),
        )
        place = {**asdict(self), "processed": str(self.processed)}
        job = {"head": head, "params": params, "place": place}
        return workers.prefetch_seeds(job, missing, min(count, len(missing)))


def train_once(
    head: Block,
    parts: Parts,
    params: Block,
    seed: int,
    *,
    checkpoint: Path,
    log: LogFn | None = None,
    progress: str | None = None,
) -> Trained:
    """Build and fit one model on one seed, or take the training from the store.

    Args:
        head: of run.json; says the architecture and the digest of the rows, and nothing else that counts.
        params: {"model": ..., "train": ...}.
        checkpoint: its name gets a digest of all that decides the training, so that one which is killed
            goes on from its own bits alone.
        log: hears the same in both cases, and may end the training by what it raises.
    """
    train, valid = parts
    what = _cache_key(head, params, seed, train.device)
    kept = cache.get(what)
    if kept is not None:
        if progress is not None:
            print(f"{progress}: trained before, taken from {cache.FOLDER}", flush=True)
        if log is not None:
            for row in kept.state.curve:
                log(row, int(row["step"]))
        return kept
    network = build(head["architecture"], train.schema, params["model"], seed=seed).to(train.device)
    if progress is not None:
        for remark in remarks(network, parts, head.get("rows_in_memory", 0), params["train"]):
            _print_once(remark)
    state = fit(
        network,
        train,
        valid,
        seed=seed,
        log=log,
        checkpoint=checkpoint.with_name(f"{checkpoint.name}-{digest(what)}.pt"),
        progress=progress,
        **params["train"],
    )
    trained = Trained.of(network, state)
    cache.put(what, trained)
    return trained


def remarks(network: nn.Module, parts: Parts, rows_in_memory: int, settings: Block) -> list[str]:
    """Say what is not as usual in a training, a line each: a part that is streamed, tables that are lazy.

    Args:
        settings: of `fit`.
    """
    least = settings.get("lazy_rows", LAZY_ROWS)
    lines = [
        f"{name} part streamed: {len(part):,} rows are more than rows_in_memory ({rows_in_memory:,})"
        for name, part in zip(SPLITS, parts, strict=False)
        if part.stream_to is not None
    ]
    layers = [layer for layer in network.modules() if isinstance(layer, FieldEmbedding | FieldLinear)]
    sizes = sorted({len(layer.table) for layer in layers if len(layer.table) >= least}, reverse=True)
    if sizes:
        rows = " and ".join(f"{size:,}" for size in sizes)
        lines.append(f"tables of {rows} rows trained row by row (lazy_rows {least:,})")
    return lines


@functools.cache
def _print_once(line: str) -> None:
    """Print a line the first time; it holds for all seeds and trials of a process."""
    print(line, flush=True)


def train_trial(
    head: Block,
    parts: Parts,
    params: Block,
    seed: int,
    *,
    logs: Sequence[LogFn],
    checkpoint: Path,
    progress: str,
) -> None:
    """Train one trial of a search, telling every one of `logs`; only its own checkpoint stays."""
    for old in checkpoint.parent.glob("trial-*.pt"):
        if not old.name.startswith(f"{checkpoint.name}-"):
            old.unlink()

    def log(row: dict[str, float], step: int) -> None:
        for each in logs:
            each(row, step)

    train_once(head, parts, params, seed, log=log, checkpoint=checkpoint, progress=progress)


def train_seeds(
    head: Block,
    params: Block,
    parts: Parts,
    seeds: Sequence[int],
    child: Child,
    out: Path,
    setup: Resources,
) -> Block:
    """Train on every seed, write `seed-<s>.safetensors` to `out`, return run.json's remaining values.

    A killed run goes on from its checkpoints; they are removed by `finish`, once run.json is there. Seeds
    may be trained in several processes: it changes nothing but the time.
    """
    results, weights = [], 0
    with setup.ahead(head, params, parts, seeds) as wait:
        for seed in seeds:
            name = f"seed-{seed}"
            with child(name, f"{head['key']}/{name}", params) as log:
                wait(seed)
                trained = train_once(
                    head,
                    parts,
                    params,
                    seed,
                    log=log,
                    checkpoint=seed_checkpoint(head, seed),
                    progress=f"{head['model']} {head['variant']} {name}",
                )
            with writing(out / f"{name}.safetensors") as file:
                file.write(save(trained.tensors))
            state, weights = trained.state, trained.weights
            results.append({"seed": seed, "best": state.curve[state.best], "curve": state.curve})
            print(describe(head, results[-1]), flush=True)
    return {"seeds": results, "weights": weights}


def seed_checkpoint(head: Block, seed: int) -> Path:
    """Return the first part of the name of a seed's checkpoint; see `train_once`."""
    return CHECKPOINTS.joinpath(head["key"], f"seed-{seed}")


def _cache_key(head: Block, params: Block, seed: int, device: torch.device) -> Block:
    """Say which training that is; the order of a streamed part is another one."""
    rows = digest([head["rows"], head["rows_in_memory"]]) if "rows_in_memory" in head else head["rows"]
    return cache.key(head["architecture"], params, seed, rows, device)


def train_ahead(head: Block, params: Block, seeds: Sequence[int], place: Block) -> Iterator[int]:
    """Train seeds in a worker, for the run to find in the store or at their last checkpoints; yield each.

    Args:
        place: the fields of `Setup`.
    """
    parts = Resources(**{**place, "processed": Path(place["processed"])}).load()
    for seed in seeds:
        train_once(head, parts, params, seed, checkpoint=seed_checkpoint(head, seed))
        yield seed


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
