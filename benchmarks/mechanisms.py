"""Do the mechanisms of the models live on real data, and what are they worth?

    python -m benchmarks.mechanisms --dataset movielens-100k --splits 5 [--models afm gdcn ...]

Reads the encoded rows of the entries `<dataset>-s1`, `-s2`, ... of params.yaml, which differ in the seed of
the split alone, and says how to prepare those that are missing. Every model is trained once on each with the
defaults of params.yaml (some 20 minutes a split on two cores for all); a training that is in data/trainings
is not repeated. Two tables come out, means over the splits, on validation rows alone:

spread     of what each mechanism weighs with, on the first 4096 rows: see `pipeline/train/mechanisms.py`
worth      the AUC with the mechanisms of a model, with all of them frozen at their means over rows, and
           with all removed (factors 1, thresholds 0, attention uniform), without training again; and the
           two losses with 95 % interval and p by the corrected resampled t-test of Nadeau and Bengio

The best epoch was chosen on the same validation rows with the mechanism, which favours it a little. A model
that has learnt to rely on a mechanism loses more without it than one that was trained without it.
"""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.common.errors import PipelineError, exit_with_message
from pipeline.common.text import with_interval
from pipeline.config import params
from pipeline.config.params import Params
from pipeline.evaluate.mechanisms import AUCS, FIGURES
from pipeline.models import build
from pipeline.statistics.significance import corrected_resampled_t
from pipeline.train import mechanisms, runs

Block = dict[str, Any]
MODELS = ["fiinet", "flsest", "fibinet", "fm-senet", "fm-sest", "afm", "autoint", "masknet", "finalmlp"]
MODELS += ["edcn", "gdcn", "din"]
VARIANTS = {"fm-senet": ("fm", {"embedding_transform": "senet", "embedding_std": 0.1})}  # not in params.yaml
SEED = 1


def require(datasets: list[str], settings: Params) -> None:
    """Check that the rows of all entries are there.

    Raises:
        PipelineError: an entry is not in params.yaml, or was not prepared.
    """
    for dataset in datasets:
        settings.entry(dataset)
    missing = [name for name in datasets if not Path("data/processed", name, "schema.json").exists()]
    if missing:
        stages = " && ".join(
            f"python -m stages.{stage} --dataset $d" for stage in ("download", "preprocess", "split")
        )
        raise PipelineError(
            f"data/processed holds no {', '.join(missing)}; prepare them by\n"
            f"for d in {' '.join(missing)}; do {stages} || break; done"
        )


def measure(dataset: str, name: str, settings: Params) -> tuple[Block | None, float]:
    """Train a model on one split; return what its mechanisms measure, and validation over train rows."""
    base, changes = VARIANTS.get(name, (name, {}))
    config = settings.config(dataset, base)
    processed = Path("data/processed", dataset)
    arguments = {"model": {**config.model, **changes}, "train": config.train.fit}
    resources = runs.Resources(
        processed, config.train.device, config.train.threads, config.train.rows_in_memory
    )
    splits = resources.load()
    header = runs.RunHeader.of("train", dataset, name, config.architecture, arguments, processed)
    checkpoint = header.seed_checkpoint(SEED)
    trained = runs.train_once(header, splits, arguments, SEED, checkpoint=checkpoint, progress=name)
    train, valid = splits
    model = build(config.architecture, valid.schema, arguments["model"], seed=0)
    return runs.measure_mechanisms(model, trained, splits), len(valid) / len(train)


def spread_rows(name: str, measured: list[Block]) -> list[str]:
    """Return a line per mechanism of a model: its figures, mean over the splits."""
    lines = []
    for key, first in measured[0]["weights"].items():
        values = {f: np.mean([m["weights"][key][f] for m in measured]) for f in FIGURES}
        over_rows = f"{values['std_over_rows']:.3g}" if first["per_row"] else "-"
        cells = [f"{values['mean']:.4g}", f"{values['std']:.3g}", over_rows]
        cells += [f"{values['std_over_channels']:.3g}", f"{values['share_of_zeros']:.1%}"]
        lines.append(f"| {name} | {key} ({first['kind']}) | {' | '.join(cells)} |")
    return lines


def worth_row(name: str, measured: list[Block], ratio: float) -> str:
    """Return the line of a model: AUC in the three states, and what freezing and removing lose."""
    auc = {state: [m["auc"][state] for m in measured] for state in AUCS}
    cells = [f"{np.mean(values):.4f}" for values in auc.values()]
    for state in ("frozen", "removed"):
        losses = [a - b for a, b in zip(auc["with"], auc[state], strict=True)]
        if len(losses) < 2:
            cells.append(f"{losses[0]:+.4f} (one split: no test)")
            continue
        test = corrected_resampled_t(losses, ratio)
        cells.append(f"{with_interval(test)}, p {test['p']:.3f}")
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    """Train, measure and print the tables."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="movielens-100k")
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--models", nargs="+", default=MODELS)
    options = parser.parse_args()
    settings = params.load()
    datasets = [f"{options.dataset}-s{number}" for number in range(1, options.splits + 1)]
    require(datasets, settings)
    found: dict[str, list[Block]] = {}
    ratio = 0.0
    for dataset in datasets:
        for name in options.models:
            measured, ratio = measure(dataset, name, settings)
            if measured is None:
                raise PipelineError(f"{name} has no mechanism with its defaults: take it from --models")
            found.setdefault(name, []).append(measured)
            auc = ", ".join(f"{state} {value:.4f}" for state, value in measured["auc"].items())
            print(f"{dataset} {name}: AUC {auc}", *mechanisms.remarks(measured), sep="\n  ", flush=True)
    print("\n| model | mechanism | mean | std | over rows | over channels | zeros |\n|---|---|" + "---:|" * 5)
    for name, blocks in found.items():
        print(*spread_rows(name, blocks), sep="\n")
    print("\n| model | AUC with | frozen | removed | with - frozen | with - removed |\n|---|" + "---:|" * 5)
    for name, blocks in found.items():
        print(worth_row(name, blocks, ratio))


if __name__ == "__main__":
    exit_with_message(main)
