"""Probabilities of the test rows by every trained model, as Parquet; those of validation rows, measured."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from pipeline.common.errors import PipelineError
from pipeline.data import storage
from pipeline.data.batches import ROWS_IN_MEMORY, Split
from pipeline.evaluate.calibration import Validation, validate
from pipeline.evaluate.runs import Block, Run, load_model
from pipeline.metrics import Array
from pipeline.schema import SPLITS
from pipeline.train.predict import predict

Key = tuple[str, int]  # variant and seed
Scores = dict[Key, Array]  # probabilities (N,) float32
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
    """The test split and what the metrics need besides ids.

    Attributes:
        split: ids and labels on the device to predict on.
        valid: the validation split, on which calibrations are fitted.
        label: 0 or 1, (N,) uint8.
        row: each row's number in the cleaned table, (N,) int64, ascending.
        group: the user of each row for gAUC, (N,) int32; None if the dataset has no such column.
        truth: the true click probability, (N,) float64; None unless the data was generated.
        origin: where the raw files come from (`download.manifest.origin`); None if not recorded.
        copies: how many of the rows are copies of train rows.
        splits: rows and clicks of each split by its name; None if not recorded.
    """

    split: Split
    valid: Split
    label: Array
    row: Array
    group: Array | None
    truth: Array | None
    origin: Block | None = None
    copies: int = 0
    splits: Block | None = None

    @classmethod
    def load(
        cls, processed: Path, device: torch.device | str = "cpu", *, rows_in_memory: int = ROWS_IN_MEMORY
    ) -> "Holdout":
        """Read the test and validation splits of a processed folder; see `Split.load`.

        Raises:
            PipelineError: a split is missing, or the test split has fewer than two rows of a class.
        """
        if not storage.has_column(processed, "test", "label"):
            raise PipelineError(f"{processed} holds no test split; run `dvc repro split@{processed.name}`")
        label = np.array(storage.open_column(processed, "test", "label"))
        clicks = int(label.sum())
        if min(clicks, len(label) - clicks) < 2:
            raise PipelineError(
                f"{processed}: the test split has {clicks} positive rows of {len(label)}, but AUC and its "
                f"standard error need at least two of each class; change data.{processed.name}.split in "
                "params.yaml"
            )
        report = storage.read_report(processed)
        splits: Block = {
            name: {key: report[name][key] for key in ("rows", "clicks")} for name in SPLITS if name in report
        }
        return cls(
            split=Split.load(processed, "test", device, rows_in_memory=rows_in_memory),
            valid=Split.load(processed, "valid", device, rows_in_memory=rows_in_memory),
            label=label,
            row=np.array(storage.open_column(processed, "test", "row")),
            group=_load_optional(processed, "group"),
            truth=_load_optional(processed, "truth"),
            copies=storage.read_copies(processed, "test"),
            origin=report.get("origin"),
            splits=splits or None,
        )


def probabilities(run: Run, seed: int, *splits: Split) -> list[Array]:
    """Return the click probability of every row of each split (N,) float32, by the weights of one seed.

    Raises:
        PipelineError: the weights cannot be read or do not fit the model, or a prediction is not finite.
    """
    model = load_model(run, splits[0].schema, seed).to(splits[0].device)
    results = [predict(model, split).float().cpu().numpy() for split in splits]
    if not all(np.isfinite(result).all() for result in results):
        raise PipelineError(
            f"{run.weights(seed)}: {run.model} predicts NaN or infinite probabilities; "
            f"{run.how_to_make_again}"
        )
    return results


def write_predictions(
    path: Path, runs: Sequence[Run], holdout: Holdout, valid_path: Path | None = None
) -> dict[Key, Validation]:
    """Predict the test split with every variant and seed of one model and store it as Parquet.

    A row group holds one variant and seed, so only one prediction at a time is in memory. Returns what the
    predictions of the validation split are like; a refit, which was trained on it, predicts the test split
    only.

    Args:
        valid_path: where those of the validation split are stored, too, for blends; their `row` counts
            within the split.
    """
    found = {}
    label = holdout.valid.label.cpu().numpy()
    splits = [(path, holdout.row, holdout.label)]
    if valid_path is not None:
        splits.append((valid_path, np.arange(len(label)), label.astype(np.uint8)))
    encodings: Any = {"row": "DELTA_BINARY_PACKED", "probability": "BYTE_STREAM_SPLIT"}
    with ExitStack() as files:
        writers = [
            files.enter_context(
                pq.ParquetWriter(
                    file,
                    COLUMNS,
                    compression="zstd",
                    use_dictionary=["model", "variant", "seed", "label"],
                    column_encoding=encodings,
                )
            )
            for file, _, _ in splits
        ]
        for run in sorted(runs, key=lambda run: run.variant):
            for result in run.seeds:
                asked = [holdout.split] if run.refit else [holdout.split, holdout.valid]
                both = probabilities(run, result["seed"], *asked)
                if not run.refit:
                    found[run.variant, int(result["seed"])] = validate(label, both[1])
                for writer, (_, row, labels), probability in zip(writers, splits, both, strict=False):
                    columns = {
                        "model": pa.repeat(run.model, len(row)),
                        "variant": pa.repeat(run.variant, len(row)),
                        "seed": np.full(len(row), result["seed"], np.int32),
                        "row": row,
                        "label": labels,
                        "probability": probability,
                    }
                    writer.write_table(pa.table(columns, schema=COLUMNS), row_group_size=max(len(row), 1))
    return found


def read_predictions(path: Path) -> Scores:
    """Return the stored probabilities of one model by variant and seed."""
    scores = {}
    with pq.ParquetFile(path, read_dictionary=["variant"]) as file:
        for i in range(file.num_row_groups):
            table = file.read_row_group(i, columns=["variant", "seed", "probability"])
            key = table["variant"][0].as_py(), table["seed"][0].as_py()
            scores[key] = table["probability"].to_numpy()
    return scores


def _load_optional(processed: Path, column: storage.Column) -> Array | None:
    if not storage.has_column(processed, "test", column):
        return None
    return np.array(storage.open_column(processed, "test", column))
