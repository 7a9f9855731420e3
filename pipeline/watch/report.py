"""A new log beside the test rows of a dataset: what was read, each field, predictions, labels."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import metrics
from pipeline.common.errors import PipelineError
from pipeline.common.files import read_json, require_file, target
from pipeline.config.settings import Watch
from pipeline.data import storage
from pipeline.datasets import tabular
from pipeline.evaluate import calibration
from pipeline.evaluate.predictions import read_predictions
from pipeline.metrics import Array
from pipeline.preprocess import parse
from pipeline.preprocess.parse import chunk
from pipeline.preprocess.rejects import RejectLog
from pipeline.preprocess.tables import Table
from pipeline.scoring.model import RAW, Model
from pipeline.scoring.pack import READING
from pipeline.scoring.reading import OF_VALUES
from pipeline.scoring.score import Seen, open_rows
from pipeline.split.vocabulary import Ids
from pipeline.watch import drift
from pipeline.watch.drift import Noise

Report = dict[str, Any]
ROWS_AT_ONCE = 1 << 20
CHECKS_OF_THE_LOG = 6  # rejected, prediction, label rate, AUC, logloss, ECE


def watch(root: Path, model: Model, rows: Path, limits: Watch, bins: int) -> Report:
    """Compare a new log with the test rows of the dataset that a model was trained on.

    Args:
        root: the project's folder.
        rows: a file, or a folder of files, with the columns of the raw log (of a public dataset: of its clean
            table); with or without its label.
        bins: of the calibration error.

    Returns:
        `rows_in`, `rejected`, `labels` (whether there are any) and the `checks`, see `drift.Check`.

    Raises:
        PipelineError: a column of the model is not in the log, nothing in it can be read, or a stage has to
            run first.
    """
    trained = model.package.trained_on
    if model.package.members:
        raise PipelineError("watch compares a new log with what one model did: name it by --model")
    processed = root / "data/processed" / trained["dataset"]
    reference, test = _counted(model, _test_ids(processed)), _test(root, trained)
    rejects, seen, new = RejectLog(), Seen(), _empty(model)
    label: list[Array] = []
    raw: list[Array] = []
    opened = open_rows(model, rows, model.reading.layout)
    plan = _plan(root, model, opened)
    for clean, clicks in blocks(model, opened, plan, rejects):
        ids = model.encode(clean)
        seen.add(model, clean, ids)
        new = [a + b for a, b in zip(new, _counted(model, [ids]), strict=True)]
        raw.append(model.score(clean, ids)[RAW])
        if clicks is not None:
            label.append(clicks)
    if not seen.rows:
        raise PipelineError(f"{rows}: no row could be read:\n  " + "\n  ".join(rejects.first))
    counts = rejects.check(seen.rows, max_rejected=1, name=str(rows))
    vocabulary = model.package.vocabulary
    noise = Noise(seen.rows, len(test["raw"]), 3 * len(vocabulary) + CHECKS_OF_THE_LOG)
    probability = np.concatenate(raw)
    checks = [drift.of_rejects(counts["rows_in"], counts["rejected"], limits, noise)]
    for entry, a, b in zip(vocabulary, reference, new, strict=True):
        missing = seen.missing[entry["name"]] / seen.rows
        checks += drift.of_field(entry, a, b, missing, limits, noise)
    checks.append(drift.of_predictions(test["raw"], probability, limits, noise))
    if label:
        mended = _calibrated(model, probability)
        promise = _promise(test, _calibrated(model, test["raw"]), bins)
        checks += drift.of_labels(np.concatenate(label), mended, promise, limits, bins, noise)
    return {
        "dataset": trained["dataset"],
        **{key: trained[key] for key in ("model", "variant", "seed")},
        "log": rows.name,
        **{key: counts[key] for key in ("rows_in", "rejected")},
        "rows": seen.rows,
        "reference_rows": noise.m,
        "labels": bool(label),
        "label": plan.label.column if plan.label else None,
        "checks": [check.to_json() for check in checks],
    }


def _plan(root: Path, model: Model, opened: list[Table]) -> tabular.Plan:
    """Return how the log is read: with the label of training where every file has its column."""
    settings = read_json(
        require_file(root / "data/interim" / model.package.trained_on["dataset"] / READING, "preprocess")
    )
    label = settings["label"] if settings["source"] == "tabular" else "label"
    values = {key: model.package.reading[key] for key in OF_VALUES if key in model.package.reading}
    plan = tabular.plan_of(**values, label=label)
    assert plan.label is not None
    there = all(plan.label.column in table.types for table in opened)
    return plan if there else tabular.plan_of(**values)


def blocks(
    model: Model, opened: list[Table], plan: tabular.Plan, rejects: RejectLog
) -> Iterator[tuple[pa.Table, Array | None]]:
    """Yield the clean rows of a log and their labels (n,), if it has any."""
    columns = {*model.columns, *([plan.label.column] if plan.label else [])}
    for table in opened:
        for block, lines in table.blocks(columns, rejects, plain=model.reading.plain):
            clicks = None
            if plan.label:
                check = tabular.Check(block, lines, table.path.name, rejects, alarm=False)
                values = parse.texts(chunk(block[plan.label.column]), plan.missing, plan.decimal)
                clicks, dropped = tabular.label_of(values, plan, check)
                rejects.drop(table.path.name, int((check.good & dropped).sum()))
                keep = check.good & ~dropped
                block, lines, clicks = block.filter(pa.array(keep)), lines[keep], clicks[keep]
            clean, good = model.reading.clean(block, lines, table.path.name, rejects)
            yield clean.filter(pa.array(good)), clicks if clicks is None else clicks[good]


def _test_ids(processed: Path) -> Iterator[Ids]:
    ids = storage.open_column(processed, "test", "ids")
    for start in range(0, len(ids), ROWS_AT_ONCE):
        yield ids[start : start + ROWS_AT_ONCE]


def _empty(model: Model) -> list[Array]:
    return [np.zeros(field.size + 1) for field in model.package.schema.fields]


def _counted(model: Model, parts: Any) -> list[Array]:
    """Return `drift.counts` of each field over parts (n, S) of the ids."""
    schema = model.package.schema
    total = _empty(model)
    slots = np.array(schema.field_of_slot)
    columns = [np.flatnonzero(slots == i) for i in range(len(schema.fields))]
    for ids in parts:
        for i, (entry, field) in enumerate(zip(model.package.vocabulary, schema.fields, strict=True)):
            total[i] += drift.counts(entry, field, schema.offsets[i], ids[:, columns[i]])
    return total


def _test(root: Path, trained: Report) -> Report:
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


def _calibrated(model: Model, raw: Array) -> Array:
    """Return probabilities in a log that is thinned out as that of training was."""
    fitted = {key: value for key, value in model.package.calibration.items() if key != "negatives_kept"}
    return calibration.apply(fitted, calibration.logit(raw))


def _promise(test: Report, calibrated: Array, bins: int) -> dict[str, float]:
    label, loss = test["label"], calibration.losses(test["label"], calibrated)
    return {
        "base_rate": float(label.mean()),
        "auc": metrics.auc(label, calibrated),
        "auc_standard_error": test["auc_standard_error"],
        "logloss": float(loss.mean()),
        "logloss_std": float(loss.std()),
        "ece": metrics.calibration_error(label, calibrated, bins),
    }


def alarms(report: Report) -> list[str]:
    """Name the figures that changed beyond their limits."""
    return [f"{each['what']} {each['field'] or ''}".strip() for each in report["checks"] if each["alarm"]]


def to_text(report: Report) -> str:
    """Return the report for a terminal: what was read, the alarms, and a table of all checks."""
    checks = report["checks"]
    read = f"{report['rows_in']:,} rows in, {report['rejected']:,} rejected"
    labels = f"labels: {report['label']}" if report["labels"] else "no labels"
    lines = [
        f"{report['log']}: {read}, {labels}",
        f"beside the {report['reference_rows']:,} test rows of {report['dataset']}",
        f"model: {report['model']} ({report['variant']}), seed {report['seed']}",
        "",
        f"{'':1} {'what':10} {'field':20} {'test rows':>10} {'new rows':>10} {'change':>10} {'limit':>10}",
    ]
    for check in sorted(checks, key=lambda check: not check["alarm"]):
        figures = (f"{check[key]:10.4f}" for key in ("reference", "new", "change", "limit"))
        mark, field = "!" if check["alarm"] else " ", check["field"] or ""
        lines.append(f"{mark} {check['what']:10} {field:20} {' '.join(figures)}")
    count = len(alarms(report))
    end = f"{count} of {len(checks)} figures changed beyond their limits" if count else "no alarm"
    return "\n".join([*lines, "", end])
