"""From a log that fits in memory to a model, in one call and without a project: for a notebook.

It reads, splits, encodes, trains and calibrates by what the stages use, with one seed and no search. Which
model is better, and by how much, is a question for the pipeline.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from inspect import signature
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save as save_arrays
from safetensors.torch import save

from pipeline.common.errors import PipelineError, unknown
from pipeline.data.batches import Split
from pipeline.datasets import tabular
from pipeline.evaluate import calibration
from pipeline.models import build
from pipeline.preprocess import clean_table
from pipeline.preprocess.clean_table import CleanTable
from pipeline.preprocess.rejects import RejectLog
from pipeline.preprocess.vectors import Matrix
from pipeline.schema import SPLITS
from pipeline.scoring.model import Model
from pipeline.scoring.package import Package
from pipeline.scoring.reading import KEPT, LIMIT
from pipeline.split import repeats, vectors
from pipeline.split.assign import Assignment, assign, train_rows
from pipeline.split.vocabulary import Encoder, fit_vocabulary
from pipeline.train.loop import fit
from pipeline.train.predict import evaluate, predict

# arguments of a block `preprocess`
OF_READ = tuple(signature(tabular.read).parameters)[2:]
OF_TABLE = ("user", "item", LIMIT)


def train(
    log: str | Path,
    preprocess: Mapping[str, Any],
    *,
    model: str = "deepfm",
    options: Mapping[str, Any] | None = None,
    split: Mapping[str, Any] | None = None,
    encode: Mapping[str, Any] | None = None,
    vectors_files: Sequence[str | Path] = (),
    seed: int = 1,
    **settings: Any,
) -> Model:
    """Train a model on a log and return it, with its figures on held-out rows in `package.trained_on`.

    Args:
        log: a CSV, TSV or Parquet file, or a folder of them.
        preprocess: what its columns are, as in a dataset's entry: `label`, `fields` and what else is needed,
            such as `max_rejected`, which also holds for rows to score.
        model, options: which model, and its options, such as `{"embedding_size": 8}`.
        split, encode: arguments of `assign` and `fit_vocabulary`, as in an entry.
        vectors_files: those that fields of the type `vector` name, `download.vectors` of an entry.
        seed: of the weights and of training.
        settings: of the training, see `train.loop.fit`.

    Raises:
        PipelineError: the log cannot be read so, it cannot be split, or there is no such key, model or
            option.
    """
    name, chosen = Path(log).stem, dict(options or {})
    for key in preprocess.keys() - {*OF_READ, *OF_TABLE}:
        raise PipelineError(f"preprocess: {unknown('key', key, (*OF_READ, *OF_TABLE))}")
    reading = {key: value for key, value in preprocess.items() if key in OF_READ}
    with TemporaryDirectory() as scratch:
        raw, clean = Path(scratch, "raw"), Path(scratch, "clean")
        for folder in (raw, clean):
            folder.mkdir()
        own = [str(Path(path).resolve()) for path in vectors_files]
        tabular.download(raw, raw, path=str(Path(log).resolve()), vectors=own)
        rejects = RejectLog()
        of_table = {key: preprocess[key] for key in OF_TABLE if key in preprocess}
        clean_table.write(clean, tabular.read(raw, rejects, **reading), rejects, name, **of_table)
        table = CleanTable(clean)
        column = (split or {}).get("column")
        extra = table.load_extra(*([column] if column else []))
        assignment = assign(extra, name, repeats.of_log(table.field_blocks(), extra), **(split or {}))
        vocabulary = fit_vocabulary(
            lambda field: train_rows(table.column_blocks(field), assignment),
            table.columns,
            vectors=(given := table.vectors()),
            **(encode or {}),
        )
        arrays = vectors.tables(vocabulary, given)
        parts = _splits(table, Encoder(vocabulary, table.column_blocks), assignment, arrays)
    network = build(model, parts[0].schema, chosen, seed=seed)
    fit(network, parts[0], parts[1], seed=seed, **settings)
    trained_on: dict[str, Any] = {"dataset": name, "model": model, "variant": "default", "seed": seed}
    for which, part in zip(SPLITS[1:], parts[1:], strict=True):
        figures = evaluate(network, part)
        trained_on[which] = {key: figures[key] for key in ("auc", "logloss")}
    label, probability = parts[1].label.numpy(), predict(network, parts[1]).numpy()
    return Model(
        Package(
            architecture=model,
            options=chosen,
            vocabulary=vocabulary,
            reading={key: preprocess[key] for key in KEPT if key in preprocess},
            calibration=calibration.fit(label, calibration.logit(probability)),
            weights=save(network.state_dict()),
            trained_on=trained_on,
            vectors=save_arrays(arrays) if arrays else b"",
        )
    )


def _splits(
    table: CleanTable, encoder: Encoder, assignment: Assignment, arrays: dict[str, Matrix]
) -> list[Split]:
    """Return train, valid and test rows in memory."""
    found = [part for block, fields in enumerate(table.field_blocks()) for part in encoder.ids(block, fields)]
    ids, extra = torch.from_numpy(np.concatenate(found)), table.load_extra()
    label = torch.from_numpy(extra["label"].to_numpy().astype(np.float32))
    time = torch.tensor(extra["time"].to_numpy()) if "time" in extra.column_names else None
    picked = [torch.from_numpy(np.flatnonzero(assignment == number)) for number in range(len(SPLITS))]
    schema = replace(encoder.schema, vectors=arrays)
    return [Split(schema, ids[rows], label[rows], None if time is None else time[rows]) for rows in picked]
