"""Finished trainings: the folders of data/runs, and the models in them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from pipeline.common.errors import PipelineError
from pipeline.common.files import digest, read_json, require_file
from pipeline.data.storage import digests
from pipeline.models import MODELS, build
from pipeline.schema import Schema
from pipeline.train.refit import REFIT

Block = dict[str, Any]
AGAIN = " + valid"  # what a refit is marked with
STAGES = {"default": "train", "tuned": "tune"}  # the stage that makes each variant


@dataclass(frozen=True)
class Run:
    """One folder of data/runs.

    Attributes:
        info: its run.json.
        metric: by which the search chose, and everything after it: `auc` or `logloss` on validation rows.
        refit: whether its weights are those that were trained on train and validation rows, at the end.
    """

    folder: Path
    info: Block
    metric: str = "auc"
    refit: bool = False

    @property
    def model(self) -> str:
        """Name of the model in the report."""
        return str(self.info["model"])

    @property
    def variant(self) -> str:
        """`default` or `tuned`, with the mark of a refit."""
        return f"{self.info['variant']}{AGAIN if self.refit else ''}"

    @property
    def again(self) -> "Run | None":
        """The same run with the weights of its refit, if there was one."""
        return replace(self, refit=True) if REFIT in self.info else None

    @property
    def seeds(self) -> list[Block]:
        """Seed, best evaluation and history of every training, by seed."""
        return sorted(self.info["seeds"], key=lambda result: result["seed"])

    @property
    def best_seed(self) -> Block:
        """The training with the best validation metric, then the other one, then seed."""
        return min(self.seeds, key=lambda r: (*self._order(r["best"]), r["seed"]))

    @property
    def rank(self) -> tuple[float, float, str, str]:
        """Sort key, best first: the validation metric, then the other one, then name."""
        means = {f"valid_{metric}": self.valid(metric) for metric in ("auc", "logloss")}
        return *self._order(means), self.model, self.variant

    @property
    def target(self) -> str:
        """The DVC target that makes this run."""
        return dvc_target(*self._names)

    @property
    def how_to_make_again(self) -> str:
        """How to train it again though DVC has its files, as part of a message."""
        return how_to_make(*self._names, force=True)

    @property
    def _names(self) -> tuple[str, str, str]:
        return str(self.info["dataset"]), self.model, str(self.info["variant"])

    def _order(self, figures: dict[str, float]) -> tuple[float, float]:
        auc, loss = -figures["valid_auc"], figures["valid_logloss"]
        return (auc, loss) if self.metric == "auc" else (loss, auc)

    @property
    def reads(self) -> str:
        """What the trainings read besides each row's ids and label: rows that read alike can be compared."""
        params, model = self.info["params"], MODELS.get(self.info["architecture"])
        mark = AGAIN if self.refit else ""
        words = {
            "time": getattr(model, "timed", False) or params["model"].get("neighbour_times") == "earlier",
            "neighbours": params["model"].get("neighbour_limit") or hasattr(model, "grouped"),
            "grades": params["train"].get("grades") or params["model"].get("values") == "grade",
        }
        return " + ".join(["ids", *(word for word, is_read in words.items() if is_read)]) + mark

    def valid(self, metric: str) -> float:
        """Mean over the seeds of `auc` or `logloss` on the validation split."""
        return float(np.mean([result["best"][f"valid_{metric}"] for result in self.seeds]))

    def weights(self, seed: int) -> Path:
        """The file of the weights that one seed ended with."""
        return self.folder / f"{REFIT if self.refit else 'seed'}-{seed}.safetensors"


def load_runs(
    folder: Path,
    dataset: str,
    models: Sequence[str],
    processed: Path,
    *,
    variants: Sequence[str] = tuple(STAGES),
) -> list[Run]:
    """Read the default and the tuned run of every model, in the order of `models`.

    Args:
        folder: data/runs.
        processed: the folder of encoded rows that the runs must have been trained on.

    Raises:
        PipelineError: a run is missing or incomplete, or was trained on other data.
    """
    current = digest(digests(processed))
    runs = []
    for model in models:
        for variant in variants:
            path = folder / dataset / model / variant
            remedy = how_to_make(dataset, model, variant)
            if not (path / "run.json").exists():
                raise PipelineError(f"{path}/run.json is missing, so there is no finished run; {remedy}")
            target = dvc_target(dataset, model, variant)
            run = Run(path, read_json(require_file(path / "run.json", target)), _metric(path.parent))
            if run.info["input"] != current:
                raise PipelineError(
                    f"{path} was trained on other data (digest {run.info['input']}) than {processed} holds "
                    f"now ({current}); {remedy}"
                )
            for each in filter(None, (run, run.again)):
                for result in run.seeds:
                    require_file(each.weights(result["seed"]), target)
            runs.append(run)
    return runs


def better(runs: Sequence[Run]) -> list[Run]:
    """Return the variant of each model that is better on validation data, in the order of the models."""
    models = dict.fromkeys(run.model for run in runs)
    return [min((run for run in runs if run.model == model), key=lambda run: run.rank) for model in models]


def _metric(folder: Path) -> str:
    """Return what the search of a model went by; AUC if there was none."""
    tuned = folder / "tuned/run.json"
    if not tuned.exists():
        return "auc"
    target = dvc_target(folder.parent.name, folder.name, "tuned")
    return str(read_json(require_file(tuned, target))["search"]["metric"])


def load_model(run: Run, schema: Schema, seed: int) -> nn.Module:
    """Rebuild the model that one seed of a run ended with, on the CPU.

    Args:
        schema: of the dataset it was trained on.

    Raises:
        PipelineError: the weights are missing or damaged, or do not fit the model or the schema.
    """
    path = require_file(run.weights(seed), run.target)
    try:
        model = build(run.info["architecture"], schema, run.info["params"]["model"], seed=seed)
        model.load_state_dict(load_file(path))
    except (PipelineError, SafetensorError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        remedy = run.how_to_make_again
        raise PipelineError(f"{path} does not fit {run.model} as it is now ({reason}); {remedy}") from None
    return model


def dvc_target(dataset: str, model: str, variant: str) -> str:
    """Return the name of the DVC stage that makes a run.

    >>> dvc_target("movielens-1m", "fm", "tuned")
    'tune@movielens-1m-fm'
    """
    stage = STAGES[variant] if model in MODELS else f"{STAGES[variant]}-variant"
    return f"{stage}@{dataset}-{model}"


def how_to_make(dataset: str, model: str, variant: str, *, force: bool = False) -> str:
    """Return how to make a run, as part of a message: DVC knows the targets of what is listed alone.

    >>> how_to_make("movielens-1m", "fm", "default")
    'run `dvc repro train@movielens-1m-fm`, with movielens-1m in `datasets` and fm in `models` of params.yaml'
    """
    command = f"dvc repro {'--force ' if force else ''}{dvc_target(dataset, model, variant)}"
    kind = "models" if model in MODELS else "variants"
    return f"run `{command}`, with {dataset} in `datasets` and {model} in `{kind}` of params.yaml"
