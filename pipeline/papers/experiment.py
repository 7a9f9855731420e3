"""What an exhibit needs, trained: each model on each dataset, as published and as ours."""

import json
import shutil
from collections.abc import Container, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from pipeline import metrics
from pipeline.common.errors import PipelineError, error_context
from pipeline.config.params import Params
from pipeline.config.settings import Condition, Config
from pipeline.data.storage import has_column
from pipeline.evaluate.predictions import Holdout
from pipeline.metrics import Array
from pipeline.models import MODELS, build
from pipeline.papers.exhibit import Block, Exhibit, Row, Sweep
from pipeline.statistics.significance import Estimate, clusters, estimate
from pipeline.train import mechanisms, runs
from pipeline.train.cache import Trained
from pipeline.train.predict import predict
from pipeline.train.runs import Resources, RunHeader, Splits
from pipeline.tune import study
from pipeline.tune.study import View

ATTENTION = "select.attend"  # FiiNet's mechanism begins so
MEGABYTE = 1e6


@dataclass(frozen=True)
class Cell:
    """One model on one split of one dataset in one condition.

    Attributes:
        row: of the exhibit.
        value: position in the sweep; None without one.
        dataset: the entry.
        valid: mean validation AUC of the seeds.
        auc, logloss: of each seed on the test rows.
        estimate: of the test AUC, with its error.
        weights: how many the model has.
        capped: how many of the trainings ended at the last of `epochs`, still getting better.
        dead: how many of them have a network whose output is the same for every row.
    """

    row: Row
    condition: Condition
    value: int | None
    dataset: str
    valid: float
    auc: list[float]
    logloss: list[float]
    estimate: Estimate
    weights: int
    capped: int
    dead: int = 0

    @property
    def megabytes(self) -> float:
        """Of its float32 weights."""
        return 4 * self.weights / MEGABYTE


def datasets(exhibit: Exhibit, values: Block, *, others: bool = False) -> dict[str, list[str]]:
    """Return the entries among `datasets` of params.yaml that an exhibit can show, by log.

    Entries of one log differ by their split alone. One whose own name says that it is another task (another
    label rule) is another log, under its own name.

    Args:
        others: whether entries that the paper did not use are shown, too.

    Raises:
        PipelineError: there is none.
    """
    logs: dict[str, list[str]] = {}
    for name in values["datasets"]:
        entry = values["data"][name]
        if others or entry["source"] in exhibit.sources:
            kind = json.dumps([entry[key] for key in ("source", "download", "preprocess", "encode")])
            logs.setdefault(kind, []).append(name)
    if not logs:
        fit = [name for name, entry in values["data"].items() if entry["source"] in exhibit.sources]
        add = f"add one, such as `datasets: [{fit[0]}]`" if fit else "`data` has no entry of them either"
        raise PipelineError(
            f"{exhibit.name} is about {', '.join(exhibit.sources)}, and `datasets` in params.yaml names no "
            f"entry with such a source: {add}; or see it on yours by `paper: {{other_datasets: true}}`"
        )
    return {names[0]: names for names in logs.values()}


def conditions(exhibit: Exhibit, settings: Params) -> list[Condition]:
    """Return those of `paper.conditions` in which an exhibit can be shown.

    Raises:
        PipelineError: there is none.
    """
    asked = settings.paper.conditions
    if found := [each for each in asked if each != "tuned" or not (exhibit.sweep or exhibit.attention)]:
        return found
    kind = "of attention" if exhibit.attention else "over the values of an option"
    told = f"{exhibit.name} is a figure {kind}, which needs `published` or `default`"
    raise PipelineError(f"params.yaml: paper.conditions: {told}")


def absent(exhibit: Exhibit, values: Block, names: Sequence[str]) -> dict[str, str]:
    """Return the rows that cannot be trained on some datasets, by their labels, and why, before any is."""
    timeless = [name for name in names if not has_column(Path("data/processed", name), "train", "time")]
    file = Params(values, every_entry=False)
    why = f"it needs time stamps, and the rows of {' and '.join(timeless)} have none"
    return {
        row.label: why
        for row in exhibit.rows
        if timeless and getattr(MODELS[file.config(names[0], row.model).architecture], "timed", False)
    }


def run(
    exhibit: Exhibit,
    values: Block,
    names: Sequence[str],
    left_out: Container[str],
    processes: int | None,
    view: View,
) -> Iterator[Cell]:
    """Train, or take from the cache, the cells of an exhibit on some datasets; yield each when it is done.

    Args:
        values: of params.yaml.
        names: dataset entries.
        left_out: labels of rows without cells, those that are `absent`.
        processes: among which the seeds are trained; None for as many as are worthwhile.
        view: shows the trials of searches.
    """
    shown = conditions(exhibit, Params(values, every_entry=False))
    for name in names:
        for condition in shown:
            for row in (row for row in exhibit.rows if row.label not in left_out):
                sweep = exhibit.sweep
                for value in range(len(sweep.values)) if sweep else [None]:
                    config = configured(exhibit, values, name, row, condition, value)
                    yield _cell(name, row, condition, value, config, processes, view)


def told(exhibit: Exhibit, cell: Cell) -> str:
    """Return a line on what has been found."""
    value = "" if exhibit.sweep is None or cell.value is None else f" {exhibit.sweep.names[cell.value]}"
    return f"{cell.dataset} {cell.row.label}{value} ({cell.condition}): test AUC {np.mean(cell.auc):.4f}"


def configured(
    exhibit: Exhibit, values: Block, dataset: str, row: Row, condition: Condition, value: int | None = None
) -> Config:
    """Return the settings of a cell: the entry's, or in their place what the paper trained with.

    Args:
        value: position in the sweep.

    Raises:
        PipelineError: they shard tables.
    """
    entry = deepcopy(values["data"][dataset])
    if condition == "published":
        entry["settings"] = exhibit.settings(entry["source"])
    elif exhibit.ours is not None:
        entry["settings"].setdefault("model", {}).setdefault(row.model, {}).update(exhibit.ours.options)
    if exhibit.sweep is not None and value is not None:
        _set(entry["settings"], exhibit.sweep, row.model, value)
    changed = {**values, "datasets": [dataset], "data": {dataset: entry}}  # no other entry is asked for
    if condition != "tuned":  # nothing is searched, and these settings may lie outside the axes
        entry["settings"].pop("tune", None)
        changed["tune"] = {**values["tune"], "space": {}}
    config = Params(changed, every_entry=False).config(dataset, row.model)
    config.train.require_whole_tables("a paper's table or figure")
    return config


def _set(settings: Block, sweep: Sweep, model: str, value: int) -> None:
    """Give an option one of its values, for one model, and take it off the search space."""
    block, option = sweep.option.split(".")
    target = settings.setdefault(block, {})
    (target.setdefault(model, {}) if block == "model" else target)[option] = sweep.values[value]


def _cell(
    dataset: str,
    row: Row,
    condition: Condition,
    value: int | None,
    config: Config,
    processes: int | None,
    view: View,
) -> Cell:
    processed = Path("data/processed", dataset)
    train = config.train
    resources = Resources(processed, train.device, train.threads, train.rows_in_memory, processes)
    splits = resources.load()
    with error_context(config.where()):
        if condition == "tuned":
            found = study.run(
                header := study.describe(dataset, row.model, config, splits, processed),
                config, splits, resources, view,
            )  # fmt: skip
            options = found.options
        else:
            options, header = _untuned(dataset, row, config, splits, train.seeds)
        trained = list(
            _trained(header, options, splits, train.seeds, resources, f"{row.label} ({condition})")
        )
    holdout = Holdout.load(processed, splits[0].device, rows_in_memory=train.rows_in_memory)
    network = build(config.architecture, splits[0].schema, options["model"], seed=0)
    scores, dead = [], 0
    for one in trained:
        scores.append(_scores(network, one, holdout))
        dead += bool(mechanisms.dead_networks(network, splits[1]))
    label = holdout.label
    group = holdout.group if clusters(label, holdout.group) is not None else None
    curves = [one.state.curve[one.state.best] for one in trained]
    shutil.rmtree(runs.CHECKPOINTS / header.key, ignore_errors=True)
    return Cell(
        row,
        condition,
        value,
        dataset,
        float(np.mean([row["valid_auc"] for row in curves])),
        [metrics.auc(label, score) for score in scores],
        [metrics.logloss(label, score) for score in scores],
        estimate(label, scores, group),
        trained[0].weights,
        sum(runs.capped(one.state.curve, one.state.best, options["train"]) for one in trained),
        dead,
    )


def _untuned(
    dataset: str, row: Row, config: Config, splits: Splits, seeds: list[int]
) -> tuple[Block, RunHeader]:
    """Return {"model": ..., "train": ...} as configured, and the header of a run with it."""
    options = {"model": config.model, "train": config.train.fit}
    extra = runs.execution_settings(splits, config.train.rows_in_memory)
    params, processed = {**options, "seeds": seeds}, Path("data/processed", dataset)
    return options, RunHeader.of("train", dataset, row.model, config.architecture, params, processed, **extra)


def _trained(
    header: RunHeader, options: Block, splits: Splits, seeds: Sequence[int], resources: Resources, name: str
) -> Iterator[Trained]:
    with resources.prefetch(header, [(options, seed) for seed in seeds], splits) as wait:
        for number, seed in enumerate(seeds):
            wait(number)
            checkpoint = header.seed_checkpoint(seed)
            progress = f"{header.dataset} {name} seed-{seed}"
            yield runs.train_once(header, splits, options, seed, checkpoint=checkpoint, progress=progress)


def _scores(network: nn.Module, trained: Trained, holdout: Holdout) -> Array:
    network.load_state_dict(trained.tensors)
    scores: Array = predict(network.to(holdout.split.device), holdout.split).double().cpu().numpy()
    return scores


def attention(
    exhibit: Exhibit, values: Block, dataset: str, condition: Condition, processes: int | None
) -> Block:
    """Return the mean attention over the validation rows before and after training, of the first seed.

    Returns:
        `before` and `after`: by order of the crosses (2, 3, ...), a list over the channels; `channels`: the
            field of each, None where a channel is no field; `source` of the entry; `capped`: whether training
            ended at the last of `epochs`, still getting better.
    """
    (row,) = exhibit.rows
    config = configured(exhibit, values, dataset, row, condition)
    processed, train = Path("data/processed", dataset), config.train
    resources = Resources(processed, train.device, train.threads, train.rows_in_memory, processes)
    splits = resources.load()
    seed = train.seeds[0]
    options, header = _untuned(dataset, row, config, splits, [seed])
    (trained,) = _trained(header, options, splits, [seed], resources, row.label)
    network = build(config.architecture, splits[0].schema, options["model"], seed=seed).to(splits[0].device)
    network.eval()
    before = _mean_attention(network, splits)
    network.load_state_dict(trained.tensors)
    orders = options["model"].get("orders", [2, 3])
    shutil.rmtree(runs.CHECKPOINTS / header.key, ignore_errors=True)
    after = _mean_attention(network, splits)
    fields = [field.name for field in splits[0].schema.fields]
    about = {
        "source": values["data"][dataset]["source"],
        "capped": runs.capped(trained.state.curve, trained.state.best, options["train"]),
        "channels": fields if after.shape[1] == len(fields) else None,
    }
    return about | {
        when: {str(order): [float(v) for v in of] for order, of in zip(orders, found, strict=True)}
        for when, found in (("before", before), ("after", after))
    }


def _mean_attention(network: nn.Module, splits: Splits) -> Array:
    """Return the mean over the rows, (branches, channels)."""
    found = mechanisms.observed(network, splits[1])
    assert len(found) == 1, f"one attention, not {list(found)}"
    mean: Array = next(iter(found.values())).mean(0)
    return mean.reshape(len(mean), -1)
