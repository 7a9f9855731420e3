"""What each step from ids alone to neighbours, grades and averaged weights is worth, and all blended.

    python -m benchmarks.steps                                      five splits of MovieLens-100K, three seeds
    python -m benchmarks.steps --datasets movielens-1m --seeds 1    one split
    python -m benchmarks.steps --datasets movielens-1m-x1 --only deepfm deepfm-neighbours deepfm-some

Reads the encoded rows of these entries of params.yaml, and says how to prepare those that are missing. Each
step is DeepFM (or AutoRec) with the settings of params.yaml for the entry and what `STEPS` changes; the first
ones change one thing at a time. Nothing is chosen here but the epochs of a training, by validation rows; a
refit repeats a training on train and validation rows. A training that is in data/trainings is not repeated.

Printed for each step: AUC of validation rows, AUC and logloss of test rows, each the mean over splits of
the mean over seeds; the difference from `deepfm`, with 95 % interval and p by the corrected resampled t-test
where there are several splits; CPU seconds of the trainings that were not in the cache. Blends are means of
logits over the seeds of a step, then over steps, and so differ from DeepFM by its seeds as well: `deepfm,
blended` stands beside them. `--picture docs/steps.png` draws the differences of several splits.
"""

import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.special import expit, logit

from benchmarks.mechanisms import require
from pipeline import metrics
from pipeline.common.errors import exit_with_message
from pipeline.common.text import with_interval
from pipeline.config import params
from pipeline.config.params import Params
from pipeline.data.batches import Split
from pipeline.evaluate.plot_style import COLOURS, GREY, SLATE, save, styled, titled_figure
from pipeline.models import build
from pipeline.statistics.significance import Test, corrected_resampled_t
from pipeline.train import runs
from pipeline.train.cache import Trained
from pipeline.train.predict import predict
from pipeline.train.refit import both

Block = dict[str, Any]
Array = np.ndarray[Any, Any]
GRADES, SOME, NONE = 0.75, 0.3, {"average_epochs": 0.0}
# the training of MovieLens-100K, for a model that needs it where an entry has another
OWN = {"lr": 0.003, "embedding_l2": 1e-4, "linear_l2": 4e-5, "network_l2": 1e-3, "l2_rows": 72_000}
OWN |= {"average_epochs": 1.0, "lr_patience": 0, "patience": 4}
# a step: an entry of `model`, and what it changes among the arguments of `fit`
STEPS: dict[str, tuple[str, Block]] = {
    "deepfm-plain": ("deepfm", NONE),
    "deepfm": ("deepfm", {}),
    "deepfm-plain-grades": ("deepfm", {**NONE, "grades": GRADES}),
    "deepfm-plain-neighbours": ("deepfm-neighbours", NONE),
    "deepfm-grades": ("deepfm", {"grades": GRADES}),
    "deepfm-neighbours": ("deepfm-neighbours", {}),
    "deepfm-all": ("deepfm-neighbours", {"grades": GRADES}),
    "deepfm-some": ("deepfm-neighbours", {"grades": SOME}),
    "fm": ("fm", {}),
    "fm-neighbours": ("fm-neighbours", {}),
    "fm-all": ("fm-neighbours", {"grades": GRADES}),
    "fcn": ("fcn", {}),
    "qnn": ("qnn", {}),
    "qnn-neighbours": ("qnn-neighbours", {}),
    "autorec": ("autorec", {}),
    "autorec-grades": ("autorec-grades", {"grades": GRADES}),
    "autorec-own": ("autorec-grades", {**OWN, "grades": GRADES}),
}
BLENDS = {
    "deepfm, blended": ["deepfm"],
    "labels alone": ["deepfm-neighbours", "autorec"],
    "two": ["deepfm-all", "autorec-grades"],
    "two, 1m": ["deepfm-some", "autorec-own"],
    "three, 1m": ["deepfm-some", "qnn-neighbours", "autorec-own"],
    "three": ["deepfm-all", "autorec-grades", "fm-all"],
    "three, x1": ["deepfm-neighbours", "deepfm-some", "qnn-neighbours"],
    "four, x1": ["deepfm-neighbours", "deepfm-some", "qnn-neighbours", "autorec-own"],
}
AGAIN = " + valid"  # a refit
# of the picture: a step, its words, what it reads besides ids
SHOWN = {
    "deepfm-plain": ("DeepFM, last weights", "ids"),
    "deepfm": ("DeepFM, averaged weights", "ids"),
    "deepfm-grades": ("DeepFM + grades", "grades"),
    "deepfm-neighbours": ("DeepFM + neighbours", "neighbours"),
    "deepfm-all": ("DeepFM + both", "neighbours, grades"),
    "fm-all": ("FM + both", "neighbours, grades"),
    "autorec": ("AutoRec", "neighbours"),
    "autorec-grades": ("AutoRec, grades", "neighbours, grades"),
    "two": ("DeepFM + both, AutoRec, blended", "neighbours, grades"),
    "two + valid": ("the same, on train + validation", "neighbours, grades"),
}
Result = dict[str, list[Array]]  # by step: the logits (N,) of each seed


class Dataset:
    """The rows of an entry, and what the steps gave on them.

    Attributes:
        valid, test: logits by step, of each seed.
        seconds: of the CPU, by step.
        ratio: test over train rows.
    """

    def __init__(self, name: str, settings: Params) -> None:
        config = settings.config(name, "deepfm")
        self.name, self.settings, self.folder = name, settings, Path("data/processed", name)
        device, threads, limit = config.train.device, config.train.threads, config.train.rows_in_memory
        self.splits = runs.Resources(self.folder, device, threads, limit).load()
        self._test = Split.load(self.folder, "test", self.splits[0].device, rows_in_memory=limit)
        self.both = both(self.folder, *self.splits)
        self.label = {"valid": self.splits[1].label.cpu().numpy(), "test": self._test.label.cpu().numpy()}
        self.ratio = len(self._test) / len(self.splits[0])
        self.valid, self.test = Result(), Result()
        self.seconds: dict[str, float] = {}

    def train(self, step: str, seeds: list[int], *, refit: bool) -> None:
        """Train a step on every seed, and again on train and validation rows."""
        base, changes = STEPS[step]
        config = self.settings.config(self.name, base)
        arguments = {"model": config.model, "train": {**config.train.fit, **changes}}
        header = runs.RunHeader.of("train", self.name, step, config.architecture, arguments, self.folder)
        for seed in seeds:
            start = time.process_time()
            checkpoint = header.seed_checkpoint(seed)
            trained = runs.train_once(header, self.splits, arguments, seed, checkpoint=checkpoint)
            self.seconds[step] = self.seconds.get(step, 0.0) + time.process_time() - start
            self._score(step, config.architecture, arguments, trained)
            if refit:
                again = runs.train_again(header, self.splits, arguments, seed, trained, self.both)
                self._score(step + AGAIN, config.architecture, arguments, again)
        print(f"{self.name} {self.line(step)}, {self.seconds[step]:.0f} CPU s", flush=True)

    def _score(self, step: str, architecture: str, arguments: Block, trained: Trained) -> None:
        network = build(architecture, self.splits[0].schema, arguments["model"], seed=0)
        network.load_state_dict(trained.tensors)
        network.to(self.splits[0].device)
        with torch.no_grad():
            for into, rows in ((self.valid, self.splits[1]), (self.test, self._test)):
                scores = logit(predict(network, rows).double().cpu().numpy())
                into.setdefault(step, []).append(scores)

    def blend(self, name: str, steps: list[str]) -> None:
        """Add the mean of the logits of some steps, over their seeds and then over them."""
        for into in (self.valid, self.test):
            into[name] = [np.mean([np.mean(into[step], axis=0) for step in steps], axis=0)]

    def auc(self, step: str, part: str = "test") -> float:
        """Return the mean AUC of a step over its seeds."""
        scores = (self.valid if part == "valid" else self.test)[step]
        return float(np.mean([metrics.auc(self.label[part], each) for each in scores]))

    def logloss(self, step: str) -> float:
        """Return the mean logloss of a step's test rows."""
        return float(np.mean([metrics.logloss(self.label["test"], expit(each)) for each in self.test[step]]))

    def line(self, step: str) -> str:
        """Describe a step on these rows: of validation rows, since this is seen while others train."""
        return f"{step}: valid AUC {self.auc(step, 'valid'):.4f}"


def gain(step: str, datasets: list[Dataset]) -> Test | None:
    """Return the difference of a step's test AUC from DeepFM's over several splits, if there is one."""
    gains = [each.auc(step) - each.auc("deepfm") for each in datasets if "deepfm" in each.test]
    if len(gains) < 2 or not any(gains):
        return None
    return corrected_resampled_t(gains, float(np.mean([each.ratio for each in datasets])))


@styled
def picture(datasets: list[Dataset]) -> Figure:
    """Draw the differences from DeepFM with their intervals."""
    shown = [step for step in SHOWN if step in datasets[0].test]
    auc = {step: float(np.mean([each.auc(step) for each in datasets])) for step in shown}
    best = max(shown, key=lambda step: auc[step] if step != "two + valid" else 0)
    figure = titled_figure(
        0.29 * len(shown) + 0.5,
        f"What a row's neighbours and grades know: {auc[best] - auc['deepfm']:+.4f} AUC over DeepFM",
        f"test AUC minus that of DeepFM, mean of {len(datasets)} splits, 95 % intervals; right: test AUC",
    )
    ax = figure.subplots()
    right = ax.get_yaxis_transform()  # x in shares of the axes
    for place, step in enumerate(shown):
        test = gain(step, datasets) or {"difference": 0.0, "low": 0.0, "high": 0.0}
        colour = COLOURS[0] if SHOWN[step][1] == "ids" else COLOURS[2]
        ax.plot([test["low"], test["high"]], [place, place], color=colour, linewidth=1.5)
        ax.plot(test["difference"], place, "o", color=colour, markersize=5)
        ax.text(1.01, place, f"{auc[step]:.4f}", transform=right, color=SLATE, va="center", size=8)
    ax.axvline(0, color=GREY, linewidth=1, zorder=0)
    ax.set_yticks(range(len(shown)), [f"{SHOWN[step][0]}\nreads {SHOWN[step][1]}" for step in shown])
    ax.tick_params(axis="y", labelsize=7)
    ax.invert_yaxis()
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:+.4g}" if value else "0")
    ax.margins(y=0.08)
    return figure


def row(step: str, datasets: list[Dataset]) -> str:
    """Return the line of a step in the table."""
    valid = "" if step.endswith(AGAIN) else f"{np.mean([each.auc(step, 'valid') for each in datasets]):.4f}"
    test, loss = (np.mean([getattr(each, of)(step) for each in datasets]) for of in ("auc", "logloss"))
    told = ""
    if tested := gain(step, datasets):
        told = f"{with_interval(tested)}, p {tested['p']:.4f}"
    elif len(datasets) == 1 and step != "deepfm" and "deepfm" in datasets[0].test:
        told = f"{datasets[0].auc(step) - datasets[0].auc('deepfm'):+.4f}"
    cost = [each.seconds[step] / len(each.test[step]) for each in datasets if step in each.seconds]
    seconds = f"{np.mean(cost):.0f}" if cost else ""
    return f"| {step} | {valid} | {test:.4f} | {loss:.4f} | {told} | {seconds} |"


def main() -> None:
    """Train and print the tables."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--datasets", nargs="+", default=[f"movielens-100k-s{n}" for n in range(1, 6)])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--only", nargs="+", choices=STEPS, default=list(STEPS), metavar="STEP")
    parser.add_argument("--refit", nargs="*", choices=STEPS, default=["deepfm-all", "autorec-grades"],
                        help="trained on train and validation rows, too; --refit alone: none")  # fmt: skip
    parser.add_argument("--picture", type=Path, help="PNG to draw, of several splits")
    options = parser.parse_args()
    settings = params.load()
    require(options.datasets, settings)
    datasets = []
    for name in options.datasets:
        dataset = Dataset(name, settings)
        for step in options.only:
            dataset.train(step, options.seeds, refit=step in options.refit)
        for blend, parts in BLENDS.items():
            for suffix in ("", AGAIN):
                named = [part + suffix for part in parts]
                if all(part in dataset.test for part in named):
                    dataset.blend(blend + suffix, named)
        datasets.append(dataset)
    print("\n| step | valid AUC | test AUC | logloss | minus deepfm | CPU s |\n|---|---:|---:|---:|---|---:|")
    for step in datasets[0].test:
        print(row(step, datasets))
    if options.picture:
        save(picture(datasets), options.picture)


if __name__ == "__main__":
    exit_with_message(main)
