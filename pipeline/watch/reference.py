"""What a new log is compared with: the test rows of a model, in figures that a package carries along."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import metrics
from pipeline.common.errors import PipelineError
from pipeline.common.files import read_json, require_file, target
from pipeline.data import storage
from pipeline.evaluate import calibration
from pipeline.evaluate.predictions import read_predictions
from pipeline.metrics import Array
from pipeline.scoring.model import Model
from pipeline.scoring.pack import READING
from pipeline.scoring.package import Package
from pipeline.split.vocabulary import Ids
from pipeline.watch import drift
from pipeline.watch.units import quartiles

Block = dict[str, Any]
ROWS_AT_ONCE = 1 << 20


def of_test_rows(root: Path, model: Model, bins: int) -> Block:
    """Return the reference of a model, from the files of the stages.

    Args:
        root: the project's folder.
        bins: of the calibration error.

    Returns:
        plain values: `rows`; `counts` of each field, see `drift.counts`; `predictions`, see
        `drift.binned`; `promise`, see `drift.of_labels`; `bins`; `label`, the rule of a click; `times`, the
        first and the last, and `time_quartiles`, where rows have them.

    Raises:
        PipelineError: a stage has to run first, or the model is a blend.
    """
    trained = model.package.trained_on
    if model.package.members:
        raise PipelineError("watch compares a new log with what one model did: name it by --model")
    processed = root / "data/processed" / trained["dataset"]
    test = _test(root, trained)
    settings = read_json(require_file(root / "data/interim" / trained["dataset"] / READING, "preprocess"))
    timed = storage.has_column(processed, "test", "time")
    times = storage.open_column(processed, "test", "time") if timed else None
    return {
        "rows": len(test["raw"]),
        "counts": [each.tolist() for each in counted(model, _ids(processed))],
        "predictions": drift.binned(test["raw"]),
        "promise": _promise(test, calibrated(model, test["raw"]), bins),
        "bins": bins,
        "label": settings["label"] if settings["source"] == "tabular" else "label",
        "times": None if times is None else [int(times.min()), int(times.max())],
        "time_quartiles": None if times is None else quartiles(times),
    }


def added(root: Path, package: Package, bins: int) -> Package:
    """Return a package with its reference; as it is where the report does not tell of this training.

    Args:
        root, bins: as of `of_test_rows`.
    """
    dataset = package.trained_on["dataset"]
    if package.members or not (root / "data/reports" / dataset / "report.json").exists():
        return package
    try:
        return replace(package, reference=of_test_rows(root, Model(package), bins))
    except PipelineError:
        return package


def of_package(model: Model, where: str) -> Block:
    """Return the reference that a package carries.

    Args:
        where: the package, for the message.

    Raises:
        PipelineError: it carries none.
    """
    if model.package.reference is None:
        raise PipelineError(
            f"{where} does not say what its test rows were like, so there is nothing to compare a log with: "
            "it was written before its report or by an earlier version, or is a blend's. In the project that "
            "trained it run `dvc repro evaluate@DATASET` and write it again: `ctr package --dataset DATASET`"
        )
    return model.package.reference


def empty(model: Model) -> list[Array]:
    """Return counts of no rows."""
    return [np.zeros(field.size + 1) for field in model.package.schema.fields]


def counted(model: Model, parts: Any) -> list[Array]:
    """Return `drift.counts` of each field over parts (n, S) of the ids."""
    schema = model.package.schema
    total = empty(model)
    slots = np.array(schema.field_of_slot)
    columns = [np.flatnonzero(slots == i) for i in range(len(schema.fields))]
    for ids in parts:
        for i, (entry, field) in enumerate(zip(model.package.vocabulary, schema.fields, strict=True)):
            total[i] += drift.counts(entry, field, schema.offsets[i], ids[:, columns[i]])
    return total


def calibrated(model: Model, raw: Array) -> Array:
    """Return probabilities in a log that is thinned out as that of training was."""
    fitted = {key: value for key, value in model.package.calibration.items() if key != "negatives_kept"}
    return calibration.apply(fitted, calibration.logit(raw))


def _ids(processed: Path) -> Iterator[Ids]:
    ids = storage.open_column(processed, "test", "ids")
    for start in range(0, len(ids), ROWS_AT_ONCE):
        yield ids[start : start + ROWS_AT_ONCE]


def _test(root: Path, trained: Block) -> Block:
    """Return label and raw probability of the test rows, and what the report says about the model."""
    dataset, model = trained["dataset"], trained["model"]
    remedy = target("evaluate", dataset)
    report, file = root / "data/reports" / dataset / "report.json", root / f"data/predictions/{dataset}"
    file /= f"{model}.parquet"
    for path in (report, file):
        if not path.exists():
            raise PipelineError(f"{path} is missing; {remedy}")
    results = read_json(report)["results"]
    result = next((each for each in results if each["key"] == trained["key"]), None)
    scores = read_predictions(file).get((trained["variant"], trained["seed"]))
    label = np.array(storage.open_column(root / "data/processed" / dataset, "test", "label"))
    if result is None or scores is None or len(scores) != len(label):
        raise PipelineError(f"{report} is about another training of {model}; {remedy}")
    return {"label": label, "raw": scores, "auc_standard_error": result["auc_standard_error"]}


def _promise(test: Block, calibrated: Array, bins: int) -> dict[str, float]:
    label, loss = test["label"], metrics.losses(test["label"], calibrated)
    return {
        "base_rate": float(label.mean()),
        "auc": metrics.auc(label, calibrated),
        "auc_standard_error": test["auc_standard_error"],
        "logloss": float(loss.mean()),
        "logloss_std": float(loss.std()),
        "ece": metrics.calibration_error(label, calibrated, bins),
    }
