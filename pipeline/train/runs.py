"""A run folder: one configuration of one model, trained on every seed, as files.

`run.json` is the truth about a run and MLflow a view of it, so it contains nothing that another execution
would give another value: no time, no host, no duration.
"""

import functools
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from pipeline.common.errors import Diverged, PipelineError
from pipeline.common.files import digest, seal, write_json, writing
from pipeline.data.batches import Split
from pipeline.data.storage import REPORT, digests, has_column, read_origin
from pipeline.metrics import Array
from pipeline.models import MODELS, build
from pipeline.schema import SPLITS
from pipeline.train import cache, mechanisms, parts, ranks, sharded, warm, workers
from pipeline.train.cache import Trained
from pipeline.train.checkpoint import State
from pipeline.train.code_digest import code_digest
from pipeline.train.course import LogFn
from pipeline.train.device import pick_device, reproducible
from pipeline.train.loop import fit
from pipeline.train.predict import predict
from pipeline.train.refit import REFIT, Refit, both
from pipeline.train.sharded import Tables
from pipeline.train.start import effective_batch_size, penalties

Block = dict[str, Any]
Child = Callable[[str, str, Block], AbstractContextManager[LogFn]]
Job = tuple[Block, int]  # {"model": of the constructor, "train": of fit}, and a seed
Splits = tuple[Split, Split]  # train and valid, on one device
CHECKPOINTS = Path("data/checkpoints")
TABLES = "tables"  # in run.json: how tables were sharded
DEFAULTS = {name: parameter.default for name, parameter in signature(fit).parameters.items()}


@dataclass(frozen=True)
class RunHeader:
    """What decides the result of a run: the first keys of its run.json.

    Attributes:
        stage: `train` for the default configuration, `tune` for the tuned one.
        dataset, model: their names in params.yaml.
        architecture: the model's name in `MODELS`.
        params: {"model": constructor arguments, "train": arguments of fit, "seeds": [...]}.
        input: digest of the folder of encoded rows.
        rows: digest of the rows alone, equal for two dataset entries with the same rows; not part of the key.
        extra: further values that decide the result: `execution_settings`, the search, a warm start.
        start: the package that a warm start begins from.
    """

    stage: Literal["train", "tune"]
    dataset: str
    model: str
    architecture: str
    params: Block
    input: str
    rows: str
    extra: Block = field(default_factory=dict)
    start: Path | None = None

    @classmethod
    def of(
        cls,
        stage: Literal["train", "tune"],
        dataset: str,
        model: str,
        architecture: str,
        params: Block,
        processed: Path,
        **extra: Any,
    ) -> "RunHeader":
        """Describe a run on a folder of encoded rows.

        Raises:
            PipelineError: a file of that folder is missing or was changed, the model needs times, and
                those of this copy of the data were left out, or its warm start is of another model.
        """
        _check_times(dataset, model, architecture, params["model"], processed)
        files = digests(processed)
        others = (REPORT, f"{warm.FOLDER}/")
        rows = {name: content for name, content in files.items() if not name.startswith(others)}
        # a search compares configurations, of which the package has one: it begins anew
        start = warm.package_of(processed, model) if stage == "train" else None
        if start is not None:
            extra = {**extra, "warm_start": warm.identity(start, files, architecture, params["model"])}
        return cls(stage, dataset, model, architecture, params, digest(files), digest(rows), extra, start)

    @property
    def variant(self) -> str:
        """`default` or `tuned`."""
        return {"train": "default", "tune": "tuned"}[self.stage]

    @property
    def tables(self) -> Tables | None:
        """How tables are sharded; None if each process has whole ones."""
        return Tables(**self.extra[TABLES]) if TABLES in self.extra else None

    @property
    def key(self) -> str:
        """The name of the run, wherever it appears: a digest of everything but `rows`."""
        return digest(self._named())

    def to_json(self) -> Block:
        """Return it as it is in run.json."""
        return {"key": self.key, "rows": self.rows, **self._named()}

    def _named(self) -> Block:
        return {
            "stage": self.stage,
            "variant": self.variant,
            "dataset": self.dataset,
            "model": self.model,
            "architecture": self.architecture,
            "params": self.params,
            "input": self.input,
            **self.extra,
        }

    def cache_key(self, arguments: Block, seed: int, device: torch.device) -> Block:
        """Return what decides one training; a streamed split is read in another order."""
        limit = self.extra.get("rows_in_memory")
        rows = self.rows if limit is None else digest([self.rows, limit])
        key = cache.key(self.architecture, arguments, seed, rows, device)
        if "warm_start" in self.extra:
            key["warm_start"] = [self.extra["warm_start"], code_digest(Path(warm.__file__))]
        if TABLES in self.extra:
            key[TABLES] = self.extra[TABLES]
        return key

    def seed_checkpoint(self, seed: int) -> Path:
        """Return the start of the name of a seed's checkpoint; see `train_once`."""
        return CHECKPOINTS / self.key / f"seed-{seed}"


def _check_times(dataset: str, model: str, architecture: str, options: Block, processed: Path) -> None:
    timed = architecture in MODELS and getattr(MODELS[architecture], "timed", False)
    timed |= options.get("neighbour_times") == "earlier"
    doubt = (read_origin(processed) or {}).get("doubtful_times")
    if timed and doubt and not has_column(processed, "train", "time"):
        raise PipelineError(f"{model} needs timestamps, which {dataset} does not have: {doubt}")


def execution_settings(
    splits: Splits, rows_in_memory: int, *, refit: bool = False, tables: Block | None = None
) -> Block:
    """Return what decides the result besides the params, for `RunHeader.extra`; usually nothing.

    The order of a streamed split is not that of a resident one, several processes round and drop out in
    their own way, and sharded tables have another optimizer; none may resume from the other's checkpoint.
    `refit` adds trainings.

    Args:
        tables: arguments of `sharded.Tables`.
    """
    streamed = any(split.streamed for split in splits)
    found: Block = {"rows_in_memory": rows_in_memory} if streamed else {}
    found |= {"processes": ranks.count()} if ranks.count() > 1 else {}
    found |= {TABLES: tables} if tables else {}
    return found | ({REFIT: True} if refit else {})


@dataclass(frozen=True)
class Resources:
    """Where a training finds its rows, and what it computes with.

    Attributes:
        processed: the folder of encoded rows.
        device, threads: of each process.
        rows_in_memory: longer splits are streamed.
        processes: how many train the seeds of a run in parallel; None for as many as are worthwhile.
    """

    processed: Path
    device: str
    threads: int
    rows_in_memory: int
    processes: int | None = 1

    def load(self, device: torch.device | None = None) -> Splits:
        """Make the trainings of this process repeatable; return the train and valid splits on the device."""
        cache.enabled()  # a wrong CTR_STORE is reported before anything else
        reproducible(self.threads)
        train, valid = (
            Split.load(
                self.processed, name, device or pick_device(self.device), rows_in_memory=self.rows_in_memory
            )
            for name in SPLITS[:2]
        )
        return train, valid

    def count(self, splits: Splits, epochs: int) -> int:
        """Return how many processes train in parallel at most."""
        return self.processes or workers.worthwhile_processes(
            threads=self.threads,
            device=splits[0].device.type,
            passes=len(splits[0]) * epochs,
            nbytes=sum(split.ids.nbytes for split in splits if not split.streamed),
        )

    def prefetch(
        self, header: RunHeader, jobs: Sequence[Job], splits: Splits
    ) -> AbstractContextManager[workers.Wait]:
        """Start workers for the jobs that are not in the cache; see `workers.prefetch`.

        What it yields is called with the number of a job before that one begins.
        """
        device = splits[0].device
        missing = [
            number
            for number, (arguments, seed) in enumerate(jobs)
            if not cache.contains(header.cache_key(arguments, seed, device))
        ]
        epochs = min((arguments["train"]["epochs"] for arguments, _ in jobs), default=0)
        # the processes that share a table are those of torchrun
        count = 1 if header.tables else min(self.count(splits, epochs), len(missing))
        train = partial(train_ahead, header, jobs, self)
        return workers.prefetch(train, partial(train, splits=splits), missing, count)


def train_ahead(
    header: RunHeader,
    jobs: Sequence[Job],
    resources: Resources,
    numbers: Iterable[int],
    *,
    splits: Splits | None = None,
) -> Iterator[int]:
    """Train jobs for a run to find in the cache, or at their last checkpoints; yield each when done.

    Args:
        splits: the rows; None in a worker, which loads them.
    """
    splits = splits or resources.load()
    for number in numbers:
        arguments, seed = jobs[number]
        with suppress(Diverged):  # the run meets it, too, and says so
            train_once(header, splits, arguments, seed, checkpoint=header.seed_checkpoint(seed))
        yield number


def train_again(
    header: RunHeader,
    splits: Splits,
    arguments: Block,
    seed: int,
    first: Trained,
    rows: Split,
    **shown: Any,
) -> Trained:
    """Repeat a seed's training on other rows; see `refit`.

    Args:
        first: the training.
        rows: what `refit.both` returns.
        shown: `log` and `progress` of `train_once`.
    """
    refit = Refit(rows, first.state.curve[: first.state.best + 1])
    checkpoint = header.seed_checkpoint(seed)
    return train_once(header, splits, arguments, seed, checkpoint=checkpoint, refit=refit, **shown)


def train_once(
    header: RunHeader,
    splits: Splits,
    arguments: Block,
    seed: int,
    *,
    checkpoint: Path,
    log: LogFn | None = None,
    progress: str | None = None,
    refit: Refit | None = None,
) -> Trained:
    """Build and fit one model on one seed, or take the training from the cache.

    Args:
        header: gives the architecture and the digest of the rows.
        arguments: {"model": of the constructor, "train": of fit}; a trial of a search has its own.
        checkpoint: start of its name; a digest of everything that decides the training is added, so that a
            killed one resumes from its own bits alone.
        log: called identically for a cached training; an exception from it stops the training.
        refit: see `fit`.
    """
    train, valid = splits
    key = header.cache_key(arguments, seed, train.device) | ({"refit": refit.curve} if refit else {})
    tables = header.tables
    cached = cache.get(key) if tables is None else None
    if cached is not None:
        if progress is not None:
            told = f"trained already, by another process of this stage or in an earlier one ({cache.FOLDER})"
            print(f"{progress}: {told}", flush=True)
        if log is not None:
            for row in cached.state.curve:
                log(row, int(row["step"]))
        return cached
    name = f"{checkpoint.name}-{digest(key)}"
    if tables is None:
        network = build(header.architecture, train.schema, arguments["model"], seed=seed)
    else:
        network = _sharded(header, train if refit is None else refit.rows, arguments, seed, tables)
    if header.start is not None:
        warm.begin(network, header.start)
        train = warm.rehearsed(train, header.start)
    network.to(train.device)
    if progress is not None:
        for remark in remarks(splits, header.extra.get("rows_in_memory", 0), arguments["train"], tables):
            _print_once(remark)
    state = fit(
        network,
        train,
        valid,
        seed=seed,
        log=log,
        checkpoint=checkpoint.with_name(f"{name}.pt" if tables is None else f"{name}.safetensors"),
        progress=progress,
        refit=refit,
        **arguments["train"],
    )
    if tables is not None:
        return _gathered(network, state, valid, checkpoint.with_name(f"{name}-weights.safetensors"))
    trained = Trained.of(network, state)
    cache.put(key, trained)
    return trained


def _sharded(header: RunHeader, train: Split, arguments: Block, seed: int, tables: Tables) -> nn.Module:
    """Build a model with sharded tables, if its training on these rows can have them."""
    settings = {**DEFAULTS, **arguments["train"]}
    sharded.check(settings, train.device, warm=header.start is not None)
    of_all = "embedding_l2", "linear_l2", "network_l2", "network_decay", "l2_rows"
    l2 = penalties(len(train), *(settings[key] for key in of_all))
    return sharded.build(
        header.architecture,
        train.schema,
        arguments["model"],
        seed=seed,
        tables=tables,
        embedding_l2=l2.embedding_l2,
        linear_l2=l2.linear_l2,
    )


def _gathered(network: nn.Module, state: State, valid: Split, path: Path) -> Trained:
    """Write the weights of a model with sharded tables for one process to read; all ranks call it."""
    with parts.writing(path) as file:
        parts.write(file, sharded.weights(network))
    # all ranks score all rows, so that they look up equally often
    measured = mechanisms.measure(network, valid)
    return Trained(state, {}, sharded.size(network), path, measured)


def remarks(splits: Splits, rows_in_memory: int, settings: Block, tables: Tables | None = None) -> list[str]:
    """Return a line for whatever is unusual in a training: streamed splits, tables, smaller batches.

    Args:
        settings: arguments of `fit`.
    """
    train = splits[0]
    ids, least = train.schema.rows, settings.get("lazy_rows", DEFAULTS["lazy_rows"])
    lines = [
        f"{name} split streamed: {len(split):,} rows are more than rows_in_memory ({rows_in_memory:,})"
        for name, split in zip(SPLITS, splits, strict=False)
        if split.streamed
    ]
    if tables is not None:
        lines.append(
            f"tables of {ids:,} ids sharded over {ranks.count()} processes ({tables.sharding}), updated by "
            f"row-wise Adagrad with lr {tables.lr:g}"
        )
    elif ids >= least:
        lines.append(f"with {ids:,} ids, tables get sparse updates (lazy_rows {least:,})")
    size, steps = settings.get("batch_size", DEFAULTS["batch_size"]), settings.get("min_steps_per_epoch", 0)
    smaller = effective_batch_size(len(train), size, steps)
    if smaller < size:
        lines.append(f"batches of {smaller} rows (batch_size {size:,}, min_steps_per_epoch {steps:,})")
    return lines


@functools.cache
def _print_once(line: str) -> None:
    """Print a line that applies to all seeds and trials of a process only for the first of them."""
    print(line, flush=True)


def train_seeds(
    header: RunHeader,
    arguments: Block,
    splits: Splits,
    seeds: Sequence[int],
    child: Child,
    out: Path,
    resources: Resources,
) -> Block:
    """Train on every seed, write `seed-<s>.safetensors` to `out`, return run.json's remaining values.

    A killed run resumes from its checkpoints; `finish` removes them, once run.json is written. Seeds may be
    trained by several processes: it changes nothing but the time.
    """
    results, again, weights = [], [], 0
    rows = _refit_rows(header, splits, resources)
    # with sharded tables no process has a whole model
    network = (
        None if header.tables else build(header.architecture, splits[1].schema, arguments["model"], seed=0)
    )
    with resources.prefetch(header, [(arguments, seed) for seed in seeds], splits) as wait:
        for number, seed in enumerate(seeds):
            name = f"seed-{seed}"
            with child(name, f"{header.key}/{name}", arguments) as log:
                wait(number)
                trained = train_once(
                    header,
                    splits,
                    arguments,
                    seed,
                    log=log,
                    checkpoint=header.seed_checkpoint(seed),
                    progress=f"{header.model} {header.variant} {name}",
                )
            with writing(out / f"{name}.safetensors") as file:
                trained.write(file)
            state, weights = trained.state, trained.weights
            ended = capped(state.curve, state.best, arguments["train"])
            result = {"seed": seed, "best": state.curve[state.best], "capped": ended, "curve": state.curve}
            measured = trained.measured if network is None else measure_mechanisms(network, trained, splits)
            dead = [] if network is None else mechanisms.dead_networks(network, splits[1])
            result |= {"mechanisms": measured} if measured else {}
            results.append(result | ({"dead_networks": dead} if dead else {}))
            print(describe(header, result), *mechanisms.remarks(measured, dead), sep="\n  ", flush=True)
            if rows is not None:
                again.append(_refit(header, arguments, splits, seed, trained, rows, child, out))
    more: Block = {REFIT: again} if again else {}
    more |= {"trainings": n} if (n := getattr(network, "trainings", 1)) > 1 else {}
    return {"seeds": results, "weights": weights, **more}


def follow_rank_0(
    header: RunHeader, arguments: Block, splits: Splits, seeds: Sequence[int], resources: Resources
) -> None:
    """Train what rank 0 trains with `train_seeds`, which alone reports and writes it."""
    rows = _refit_rows(header, splits, resources)
    for seed in seeds:
        trained = train_once(header, splits, arguments, seed, checkpoint=header.seed_checkpoint(seed))
        if rows is not None:
            train_again(header, splits, arguments, seed, trained, rows)


def _refit_rows(header: RunHeader, splits: Splits, resources: Resources) -> Split | None:
    """Return train and validation rows if every seed is to be trained again on them."""
    return both(resources.processed, *splits) if header.extra.get(REFIT) else None


def _refit(
    header: RunHeader,
    arguments: Block,
    splits: Splits,
    seed: int,
    first: Trained,
    rows: Split,
    child: Child,
    out: Path,
) -> Block:
    """Train a seed again on train and validation rows; write its weights, return its entry in run.json."""
    name = f"{REFIT}-{seed}"
    with child(name, f"{header.key}/{name}", {**arguments, "rows": "train + valid"}) as log:
        progress = f"{header.model} {header.variant} {name}"
        again = train_again(header, splits, arguments, seed, first, rows, log=log, progress=progress)
    with writing(out / f"{name}.safetensors") as file:
        again.write(file)
    last = again.state.curve[-1]
    who = f"{header.dataset} {header.model} ({header.variant}) seed {seed}"
    print(f"{who}: again on train + validation rows, {last['epoch']:g} epochs", flush=True)
    return {"seed": seed, "best": last, "curve": again.state.curve}


def measure_mechanisms(model: nn.Module, trained: Trained, splits: Splits) -> Block | None:
    """Return how a trained model's mechanisms do on the validation rows: see `mechanisms.measure`.

    Args:
        model: of the same architecture; it gets the trained weights.
    """
    _, valid = splits
    model.load_state_dict(trained.tensors)
    return mechanisms.measure(model.to(valid.device), valid)


def predicted(header: RunHeader, options: Block, seed: int, trained: Trained, rows: Split) -> Array:
    """Return the click probabilities (N,) that a training predicts for rows.

    Args:
        options: of the model's constructor.
    """
    network = build(header.architecture, rows.schema, options, seed=seed)
    network.load_state_dict(trained.tensors)
    scores: Array = predict(network.to(rows.device), rows).float().cpu().numpy()
    return scores


def capped(curve: Sequence[dict[str, float]], best: int, settings: Block) -> bool:
    """Whether `epochs` ended a training and not its patience: longer, it might have become better.

    Args:
        curve, best: evaluations, and which of them was the best.
        settings: arguments of `fit`.
    """
    epochs, patience = (settings.get(key, DEFAULTS[key]) for key in ("epochs", "patience"))
    return bool(curve[-1]["epoch"] >= epochs and len(curve) - 1 - best < patience)


def finish(out: Path, run: Block) -> None:
    """Write run.json, seal the folder, which marks it as complete, and remove the checkpoints."""
    write_json(out / "run.json", run)
    seal(out)
    shutil.rmtree(CHECKPOINTS / run["key"], ignore_errors=True)


def describe(header: RunHeader, result: Block) -> str:
    """Describe a finished seed in one line."""
    best = result["best"]
    cap = " (all of `epochs` used: more might be better)" if result.get("capped") else ""
    return (
        f"{header.dataset} {header.model} ({header.variant}) seed {result['seed']}: "
        f"valid AUC {best['valid_auc']:.4f}, logloss {best['valid_logloss']:.4f} "
        f"at epoch {best['epoch']:g}, the best of {result['curve'][-1]['epoch']:g}{cap}"
    )
