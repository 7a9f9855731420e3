"""Probabilities of the test rows by every trained model, stored as Parquet."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file

from pipeline.common.errors import PipelineError
from pipeline.common.files import folder_digest, read_json
from pipeline.data.batches import ROWS_IN_MEMORY, Split
from pipeline.models import build
from pipeline.train.predict import predict

Array = NDArray[Any]
Block = dict[str, Any]
Entry = tuple[str, str]  # model and variant
Scores = dict[tuple[str, int], Array]  # by variant and seed: probabilities (N,) float32
STAGES = {"default": "train", "tuned": "tune"}  # the stage that makes each variant
COLUMNS = pa.schema(
    {
        "model": pa.string(),
        "variant": pa.string(),
        "seed": pa.int32(),
        "row": pa.int64(),
        "label": pa.uint8(),
        "probability": pa.float32(),
    }
)


@dataclass(frozen=True)
class Holdout:
    """The test part and what the figures need beside ids.

    Attributes:
        split: ids and labels on the device to predict on.
        label: 0 or 1, (N,) uint8.
        row: each row's number in the cleaned table, (N,) int64, ascending.
        group: the user of each row for gAUC, (N,) int32; None if the dataset has no such column.
        truth: the true click probability, (N,) float64; None unless the data was generated.
        origin: where the raw files come from (`pipeline/origin.py`); None if the folder does not say.
    """

    split: Split
    label: Array
    row: Array
    group: Array | None
    truth: Array | None
    origin: Block | None = None

    @classmethod
    def load(
        cls, processed: Path, device: torch.device | str = "cpu", *, rows_in_memory: int = ROWS_IN_MEMORY
    ) -> "Holdout":
        """Read the test part of a processed folder; see `Split.load`.

        Raises:
            PipelineError: the folder is not there, or its test part has fewer than two rows of a class.
        """
        if not (processed / "test.label.npy").exists():
            raise PipelineError(f"{processed} holds no test part; run `dvc repro split@{processed.name}`")
        label = np.load(processed / "test.label.npy")
        clicks = int(label.sum())
        if min(clicks, len(label) - clicks) < 2:
            raise PipelineError(
                f"{processed}: the test part has {clicks} positive rows of {len(label)}, but AUC and its "
                f"error need at least two of each class; change data.{processed.name}.split in params.yaml"
            )
        return cls(
            split=Split.load(processed, "test", device, rows_in_memory=rows_in_memory),
            label=label,
            row=np.load(processed / "test.row.npy"),
            group=_load_if_there(processed / "test.group.npy"),
            truth=_load_if_there(processed / "test.truth.npy"),
            origin=read_json(said).get("origin") if (said := processed / "report.json").exists() else None,
        )


@dataclass(frozen=True)
class Run:
    """One folder of `data/runs`: `info` is its run.json."""

    folder: Path
    info: Block

    @property
    def model(self) -> str:
        """Name of the model."""
        return str(self.info["model"])

    @property
    def variant(self) -> str:
        """`default` or `tuned`."""
        return str(self.info["variant"])

    @property
    def seeds(self) -> list[Block]:
        """Seed, best evaluation and curve of every training, by seed."""
        return sorted(self.info["seeds"], key=lambda result: result["seed"])

    def valid(self, figure: str) -> float:
        """Mean over the seeds of `auc` or `logloss` on the validation part."""
        return float(np.mean([result["best"][f"valid_{figure}"] for result in self.seeds]))

    @property
    def rank(self) -> tuple[float, float, str, str]:
        """What runs are ordered by, best first: validation AUC, then logloss, then name."""
        return -self.valid("auc"), self.valid("logloss"), self.model, self.variant


def load_runs(folder: Path, dataset: str, models: Sequence[str], processed: Path) -> list[Run]:
    """Read the default and the tuned run of every model, in the order of `models`.

    Args:
        folder: `data/runs`.
        processed: the folder of encoded rows that the runs must have been trained on.

    Raises:
        PipelineError: a run is not there, is incomplete or was trained on other data.
    """
    current = folder_digest(processed)
    runs = []
    for model in models:
        for variant, stage in STAGES.items():
            path = folder / dataset / model / variant
            remedy = f"run `dvc repro {stage}@{dataset}-{model}`"
            if not (path / "run.json").exists():
                raise PipelineError(f"{path} holds no finished run; {remedy}")
            run = Run(path, read_json(path / "run.json"))
            if run.info["input"] != current:
                raise PipelineError(
                    f"{path} was trained on other data (digest {run.info['input']}) than {processed} holds "
                    f"now ({current}); {remedy}"
                )
            for result in run.seeds:
                if not weights_path(run, result["seed"]).exists():
                    raise PipelineError(f"{weights_path(run, result['seed'])} is not there; {remedy}")
            runs.append(run)
    return runs


def probabilities(run: Run, seed: int, test: Split) -> Array:
    """Return the click probability of every test row (N,) float32, by the weights of one seed.

    Raises:
        PipelineError: the weights cannot be read, do not fit the model, or predict no number.
    """
    path = weights_path(run, seed)
    remedy = f"run `dvc repro --force {STAGES[run.variant]}@{run.info['dataset']}-{run.model}`"
    try:
        network = build(run.info["architecture"], test.schema, run.info["params"]["model"], seed=seed)
        network.load_state_dict(load_file(path))
    except (PipelineError, SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise PipelineError(f"{path} does not fit {run.model} as it is now ({reason}); {remedy}") from None
    result = predict(network.to(test.device), test).float().cpu().numpy()
    if not np.isfinite(result).all():
        raise PipelineError(f"{path}: {run.model} predicts values that are no numbers; {remedy}")
    return result


def write_predictions(path: Path, runs: Sequence[Run], holdout: Holdout) -> None:
    """Predict the test part with every variant and seed of one model and store it as Parquet.

    One row group holds one variant and seed, so a large test part is never in memory more than once.
    """
    codings: Any = {"row": "DELTA_BINARY_PACKED", "probability": "BYTE_STREAM_SPLIT"}
    with pq.ParquetWriter(
        path,
        COLUMNS,
        compression="zstd",
        use_dictionary=["model", "variant", "seed", "label"],
        column_encoding=codings,
    ) as writer:
        for run in sorted(runs, key=lambda run: run.variant):
            for result in run.seeds:
                size = len(holdout.row)
                columns = {
                    "model": pa.repeat(run.model, size),
                    "variant": pa.repeat(run.variant, size),
                    "seed": np.full(size, result["seed"], np.int32),
                    "row": holdout.row,
                    "label": holdout.label,
                    "probability": probabilities(run, result["seed"], holdout.split),
                }
                writer.write_table(pa.table(columns, schema=COLUMNS), row_group_size=max(size, 1))


def read_predictions(path: Path) -> Scores:
    """Return the stored probabilities of one model by variant and seed."""
    scores = {}
    with pq.ParquetFile(path) as file:
        for i in range(file.num_row_groups):
            part = file.read_row_group(i, columns=["variant", "seed", "probability"])
            key = part["variant"][0].as_py(), part["seed"][0].as_py()
            scores[key] = part["probability"].to_numpy()
    return scores


def weights_path(run: Run, seed: int) -> Path:
    """Return the file of the weights that one seed ended with."""
    return run.folder / f"seed-{seed}.safetensors"


def _load_if_there(path: Path) -> Array | None:
    return np.load(path) if path.exists() else None
