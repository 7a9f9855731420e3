"""A new log beside the test rows of a dataset: what was read, each field, predictions, labels."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.common.errors import PipelineError
from pipeline.config.settings import Watch
from pipeline.datasets import tabular
from pipeline.metrics import Array
from pipeline.preprocess import parse
from pipeline.preprocess.parse import chunk
from pipeline.preprocess.rejects import RejectLog
from pipeline.preprocess.tables import Table
from pipeline.scoring.model import RAW, Model
from pipeline.scoring.reading import OF_VALUES
from pipeline.scoring.score import Seen, open_rows
from pipeline.watch import drift
from pipeline.watch.drift import Noise
from pipeline.watch.reference import Block, calibrated, counted, empty
from pipeline.watch.span import Span
from pipeline.watch.units import misread

Report = dict[str, Any]
CHECKS_OF_THE_LOG = 6  # rejected, prediction, label rate, AUC, logloss, ECE


def watch(model: Model, reference: Block, rows: Path, limits: Watch) -> Report:
    """Compare a new log with the test rows of a model.

    Args:
        reference: of the model, see `reference.of_test_rows`.
        rows: a file, or a folder of files, with the columns of the raw log (of a public dataset: of its clean
            table); with or without its label.

    Returns:
        `rows_in`, `rejected`, `labels` (whether there are any), the `checks`, see `drift.Check`, what was
        `left_out`: fields of time whose cycle the log, or the test rows, do not cover, and `remarks`: what to
        look at where times cannot be right.

    Raises:
        PipelineError: a column of the model is not in the log, or nothing in it can be read.
    """
    trained = model.package.trained_on
    rejects, seen, new = RejectLog(), Seen(), empty(model)
    label: list[Array] = []
    raw: list[Array] = []
    opened = open_rows(model, rows, model.reading.layout)
    plan = _plan(reference, model, opened)
    span = Span(plan)
    for clean, clicks in blocks(model, opened, plan, rejects, span):
        ids = model.encode(clean)
        seen.add(model, clean, ids)
        new = [a + b for a, b in zip(new, counted(model, [ids]), strict=True)]
        raw.append(model.score(clean, ids)[RAW])
        if clicks is not None:
            label.append(clicks)
    if not seen.rows:
        raise PipelineError(f"{rows}: no row could be read:\n  " + "\n  ".join(rejects.first))
    counts = rejects.check(seen.rows, max_rejected=1, name=str(rows))
    vocabulary = model.package.vocabulary
    noise = Noise(seen.rows, reference["rows"], 3 * len(vocabulary) + CHECKS_OF_THE_LOG)
    probability = np.concatenate(raw)
    of_times, remarks = misread(span, reference)
    checks = [drift.of_rejects(counts["rows_in"], counts["rejected"], limits, noise), *of_times]
    left_out = span.uncovered(reference["times"])
    for entry, a, b in zip(vocabulary, reference["counts"], new, strict=True):
        if entry["name"] not in left_out:
            missing = seen.missing[entry["name"]] / seen.rows
            checks += drift.of_field(entry, np.array(a), b, missing, limits, noise)
    checks.append(drift.of_predictions(reference["predictions"], probability, limits, noise))
    if label:
        mended, bins = calibrated(model, probability), reference["bins"]
        checks += drift.of_labels(np.concatenate(label), mended, reference["promise"], limits, bins, noise)
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
        "left_out": left_out,
        "remarks": remarks,
    }


def _plan(reference: Block, model: Model, opened: list[Table]) -> tabular.Plan:
    """Return how the log is read: with the label of training where every file has its column."""
    values = {key: model.package.reading[key] for key in OF_VALUES if key in model.package.reading}
    plan = tabular.plan_of(**values, label=reference["label"])
    assert plan.label is not None
    there = all(plan.label.column in table.types for table in opened)
    return plan if there else tabular.plan_of(**values)


def blocks(
    model: Model, opened: list[Table], plan: tabular.Plan, rejects: RejectLog, span: Span | None = None
) -> Iterator[tuple[pa.Table, Array | None]]:
    """Yield the clean rows of a log and their labels (n,), if it has any; `span` is told their times."""
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
            if span is not None:
                span.add(block)
            clean, good = model.reading.clean(block, lines, table.path.name, rejects)
            yield clean.filter(pa.array(good)), clicks if clicks is None else clicks[good]


def alarms(report: Report) -> list[str]:
    """Name the figures that changed beyond their limits."""
    return [f"{each['what']} {each['field'] or ''}".strip() for each in report["checks"] if each["alarm"]]


def to_text(report: Report) -> str:
    """Return the report for a terminal: what was read, the alarms, and a table of all checks."""
    checks = report["checks"]
    read = f"{report['rows_in']:,} rows in, {report['rejected']:,} rejected"
    labels = f"labels: {report['label']}" if report["labels"] else "no labels"
    out = [f"left out: {', '.join(names)}: {why}" for why, names in _by_reason(report["left_out"]).items()]
    lines = [
        f"{report['log']}: {read}, {labels}",
        f"beside the {report['reference_rows']:,} test rows of {report['dataset']}",
        f"model: {report['model']} ({report['variant']}), seed {report['seed']}",
        *out,
        "",
        f"{'':1} {'what':10} {'field':20} {'test rows':>10} {'new rows':>10} {'change':>10} {'limit':>10}",
    ]
    for check in sorted(checks, key=lambda check: not check["alarm"]):
        figures = (f"{check[key]:10.4f}" for key in ("reference", "new", "change", "limit"))
        mark, field = "!" if check["alarm"] else " ", check["field"] or ""
        lines.append(f"{mark} {check['what']:10} {field:20} {' '.join(figures)}")
    count = len(alarms(report))
    end = f"{count} of {len(checks)} figures changed beyond their limits" if count else "no alarm"
    return "\n".join([*lines, "", *report["remarks"], end])


def _by_reason(left_out: dict[str, str]) -> dict[str, list[str]]:
    """Return the fields that were left out for each reason."""
    found: dict[str, list[str]] = {}
    for name, why in left_out.items():
        found.setdefault(why, []).append(name)
    return found
