"""Which shape of its network, and which penalty on it, suits each deep model on a log: one budget for all.

    python -m benchmarks.shapes                  two splits of MovieLens-100K, the deep models of both papers
    python -m benchmarks.shapes --datasets movielens-1m --shapes [200] --layers 1 --penalties decay

Reads the encoded rows of these entries of params.yaml, which differ in the seed of the split alone, and says
how to prepare those that are missing. Every model is trained once on each with all shapes times all
penalties, all else as params.yaml has it, and with its default, if that is none of these. EDCN, whose network
is as wide as its input, has layers of crosses in the place of a shape. A training that is in data/trainings
is not repeated, so splits may be trained side by side, in processes of their own, and printed together
afterwards.

Printed: the AUC of validation rows, mean over the splits, of every candidate; which is the best, and its gain
over the default with the standard error of that gain over rows, clustered by user. As in a search, the
default stays unless the gain is larger than `tune.margin` of its errors. Test rows are not read.
"""

import json
from argparse import ArgumentParser
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.mechanisms import require
from pipeline import metrics
from pipeline.common.errors import PipelineError, exit_with_message
from pipeline.common.text import with_error
from pipeline.config import params
from pipeline.config.params import Params
from pipeline.config.settings import Config
from pipeline.statistics.significance import Estimate, error_of_difference
from pipeline.train import runs
from pipeline.train.runs import Splits
from pipeline.tune.evidence import ValidationRows

Block = dict[str, Any]
MODELS = [
    "nfm",
    "deepfm",
    "xdeepfm",
    "fibinet",
    "flen",
    "edcn",
    "finalmlp",
    "flsest",
    "fiinet",
    "wide_deep",
    "dcn",
]
SHAPES = ([64], [200], [200, 200, 200])
LAYERS = (1, 2, 3)  # of EDCN
PENALTIES = {
    "L2": {"network_l2": 1.0e-3, "network_decay": 0.0},
    "decay": {"network_l2": 0.0, "network_decay": 0.5},
}
SEED = 1


class Candidate(NamedTuple):
    """What a candidate changes in a model's options and in its training."""

    model: Block
    train: Block

    def __str__(self) -> str:
        penalty = next((name for name, values in PENALTIES.items() if values == self.train), str(self.train))
        return f"{next(iter(self.model.values()))} {penalty}"


class Result(NamedTuple):
    """The validation AUC of a candidate, and what is known of it; None if nothing can be."""

    auc: float
    evidence: Estimate | None


class Grid(NamedTuple):
    """What is tried: shapes of a network, or numbers of layers of crosses, times penalties by name."""

    shapes: Sequence[list[int]] = SHAPES
    layers: Sequence[int] = LAYERS
    penalties: Sequence[str] = tuple(PENALTIES)

    def heads(self, option: str) -> dict[str, Candidate]:
        """Return the columns of the table: the candidates of the models that have this option."""
        values: Sequence[Any] = {"hidden": self.shapes, "cross_layers": self.layers}[option]
        found = [Candidate({option: value}, PENALTIES[name]) for value in values for name in self.penalties]
        return {str(each): each for each in found}


def axis(config: Config) -> str:
    """Return the option that is the shape of a model's network.

    Raises:
        PipelineError: it has none.
    """
    for option in ("hidden", "cross_layers"):
        if option in config.model:
            return option
    raise PipelineError(f"{config.architecture} has neither `hidden` nor `cross_layers`")


def candidates(config: Config, grid: Grid) -> dict[str, Candidate]:
    """Return the default of a model, and then the others."""
    option = axis(config)
    default = Candidate(
        {option: config.model[option]}, {key: config.train.fit[key] for key in PENALTIES["L2"]}
    )
    return {str(default): default} | grid.heads(option)


def measure(dataset: str, splits: Splits, name: str, settings: Params, grid: Grid) -> dict[str, Result]:
    """Train every candidate of a model on one split."""
    config, folder, valid = settings.config(dataset, name), Path("data/processed", dataset), splits[1]
    rows, found = ValidationRows.of("auc", valid, folder), dict[str, Result]()
    for label, candidate in candidates(config, grid).items():
        model = {**config.model, **candidate.model}
        arguments = {"model": model, "train": {**config.train.fit, **candidate.train}}
        header = runs.RunHeader.of("train", dataset, name, config.architecture, arguments, folder)
        trained = runs.train_once(header, splits, arguments, SEED, checkpoint=header.seed_checkpoint(SEED))
        scores = runs.predicted(header, model, SEED, trained, valid)
        evidence = rows.evidence([scores])
        assert evidence is None or isinstance(evidence, Estimate)
        found[label] = Result(metrics.auc(rows.label, scores), evidence)
    default, *_ = found
    told = ", ".join(f"{name} {result.auc:.4f}" for name, result in found.items())
    print(f"{dataset} {name} (default: {default}): {told}", flush=True)
    return found


def line(name: str, heads: Iterable[str], found: list[dict[str, Result]], margin: float) -> str:
    """Return the row of a model: the mean AUC of each candidate, and which one it should have."""
    auc = {each: float(np.mean([split[each].auc for split in found])) for each in found[0]}
    default, best = next(iter(auc)), max(auc, key=lambda each: auc[each])
    cells = [f"{auc[each]:.4f}" for each in heads]
    cells.append(f"{default}: {auc[default]:.4f}")
    if best == default:
        return f"| {name} | {' | '.join(cells)} | stays |"
    pairs = [(split[best].evidence, split[default].evidence) for split in found]
    errors = [error_of_difference(one, other) if one and other else np.inf for one, other in pairs]
    gain, error = auc[best] - auc[default], float(np.sqrt(np.square(errors).sum())) / len(errors)
    verdict = f"**{best}**" if gain > margin * error else f"stays; {best}"
    return f"| {name} | {' | '.join(cells)} | {verdict} {with_error(gain, error)} |"


def main() -> None:
    """Train and print the table."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--datasets", nargs="+", default=["movielens-100k-s1", "movielens-100k-s2"])
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--shapes", nargs="+", type=json.loads, default=SHAPES, metavar="[200]")
    parser.add_argument("--layers", nargs="+", type=int, default=LAYERS)
    parser.add_argument("--penalties", nargs="+", choices=PENALTIES, default=list(PENALTIES))
    options = parser.parse_args()
    grid, settings = Grid(options.shapes, options.layers, options.penalties), params.load()
    require(options.datasets, settings)
    configs = {name: settings.config(options.datasets[0], name) for name in options.models}
    axes = {name: axis(config) for name, config in configs.items()}
    train = configs[options.models[0]].train
    found: dict[str, list[dict[str, Result]]] = {}
    for dataset in options.datasets:
        folder = Path("data/processed", dataset)
        splits = runs.Resources(folder, train.device, train.threads, train.rows_in_memory).load()
        for name in options.models:
            found.setdefault(name, []).append(measure(dataset, splits, name, settings, grid))
    for option in dict.fromkeys(axes.values()):
        heads = grid.heads(option)
        print(f"\n| model | {' | '.join(heads)} | default | should have |")
        print("|---|" + "---:|" * len(heads) + "---|---|")
        for name, of_splits in found.items():
            if axes[name] == option:
                print(line(name, heads, of_splits, configs[name].tune.margin))


if __name__ == "__main__":
    exit_with_message(main)
