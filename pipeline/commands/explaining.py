"""`ctr importance` and `ctr explain`: a model, and rows of its dataset or of a file."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from pipeline.common.errors import PipelineError
from pipeline.common.files import make_folder, write_text
from pipeline.data.batches import ROWS_IN_MEMORY, Split
from pipeline.datasets import tabular
from pipeline.evaluate import plot_style
from pipeline.evaluate.predictions import Holdout
from pipeline.explain import effects, picture, summary
from pipeline.explain.mixing import Together, spread
from pipeline.metrics import Array
from pipeline.preprocess.parse import chunk
from pipeline.preprocess.rejects import RejectLog
from pipeline.preprocess.tables import check_column
from pipeline.scoring import Model
from pipeline.scoring.reading import OF_VALUES
from pipeline.scoring.score import open_rows
from pipeline.watch.report import blocks

OTHERS = 5_000  # rows that one is compared with
PICTURE = "importance.png"


def importance(
    model: Model, root: Path, rows: Path | None, label: str | None, together: str, predictions: int
) -> tuple[summary.Block, str]:
    """Return what a model has learnt, and the same in Markdown.

    Args:
        model: of a dataset of this project, unless there are `rows`.
        root: the project's folder.
        rows: a file of raw rows that training did not see; none for the test rows of the dataset.
        label: its column of labels, 0 and 1.
        together: fields that are one, as `a+b,c+d`.
        predictions: see `summary.summarise`.

    Raises:
        PipelineError: a stage has to run first, rows cannot be read, or there is no such column or field.
    """
    parts: Together = [unit.split("+") for unit in together.split(",") if unit]
    if rows is None:
        held, group = _test(model, root)
    elif label is None:
        raise PipelineError(f"{rows}: name its column of labels, 0 and 1, by --label")
    else:
        held = _read(model, rows, label)
        group = summary.groups(held)
    found = summary.summarise(model.network, held, group, together=parts, predictions=predictions)
    return found, summary.to_markdown(found, _name(model))


def write(folder: Path, found: summary.Block, text: str, model: Model) -> None:
    """Write the result of `importance` as importance.md, fields.csv, pairs.csv and a picture."""
    import pandas as pd

    make_folder(folder)
    write_text(folder / "importance.md", f"{text}\n![importance]({PICTURE})\n")
    for name, part in found.items():
        write_text(folder / f"{name}.csv", pd.DataFrame(part["found"]).to_csv(index=False))
    figure = picture.learnt(found, str(model.package.trained_on["dataset"]), _name(model))
    plot_style.save(figure, folder / PICTURE)


def explain(model: Model, root: Path, rows: Path, number: int, *, from_file: bool) -> str:
    """Explain the score of one row of a file, in words and a table.

    Args:
        model: of a dataset of this project, unless `from_file`.
        root: the project's folder.
        rows: a file of raw rows.
        number: of the row, as `row` of `ctr predict`.
        from_file: whether it is compared with the other rows of the file, not with the dataset's test rows.

    Raises:
        PipelineError: there is no such row, or none to compare it with, or rows cannot be read.
    """
    rejects, row, others = RejectLog(), None, None if from_file else spread(_test(model, root)[0], OTHERS)[0]
    for clean, lines in _clean(model, rows, rejects):
        here = lines == number
        if others is None and not here.all():
            others = _unlabelled(model, clean.filter(pa.array(~here)).slice(0, OTHERS))
        if here.any():
            row = clean.filter(pa.array(here))
            break
    if row is None:
        listed = "".join(f"\n  {line}" for line in rejects.first)
        raise PipelineError(f"{rows} has no row {number} that can be scored{listed}")
    if others is None:
        raise PipelineError(f"{rows} has no other row to compare with: name the model by --dataset")
    ids = _unlabelled(model, row)
    found = effects(model.network, ids, others)
    probability = float(model.score(row, ids.ids.numpy())["probability"][0])
    values = {name: chunk(row[name])[0].as_py() for name in row.column_names}
    width = max(map(len, found.table["field"]))
    sum_of = f"{found.mean:.3f}, the mean of {len(others):,} other rows, and the sum of the effects"
    table = [
        f"{each.field:{width}}  {each.effect:+8.3f}  {each.error:6.3f}  {_shown(values.get(each.field))}"
        for each in found.table.itertuples()
    ]
    return "\n".join(
        [
            f"{rows}, row {number}: probability {probability:.4f} by {_name(model)}",
            "",
            f"{'field':{width}}  {'effect':>8}  {'error':>6}  value",
            *table,
            "",
            f"logit {found.logit:.3f}: {sum_of}",
        ]
    )


def _clean(model: Model, path: Path, rejects: RejectLog) -> Iterator[tuple[pa.Table, Array]]:
    """Yield the rows of a file that can be read, and their lines."""
    for table in open_rows(model, path, model.reading.layout):
        for block, lines in table.blocks(set(model.columns), rejects, plain=model.reading.plain):
            clean, good = model.reading.clean(block, lines, table.path.name, rejects)
            yield clean.filter(pa.array(good)), lines[good]


def _unlabelled(model: Model, clean: pa.Table) -> Split:
    return model.encoded(clean, np.zeros(len(clean)))


def _test(model: Model, root: Path) -> tuple[Split, Array | None]:
    """Return the test rows of the dataset that a model was trained on, on the CPU, and their groups."""
    processed = root / "data/processed" / str(model.package.trained_on["dataset"])
    held = Holdout.load(processed, torch.device("cpu"), rows_in_memory=ROWS_IN_MEMORY)
    return held.split, held.group


def _read(model: Model, path: Path, label: str) -> Split:
    """Return the rows of a file and their labels."""
    values = {key: model.package.reading[key] for key in OF_VALUES if key in model.package.reading}
    opened, rejects = open_rows(model, path, model.reading.layout), RejectLog()
    for table in opened:
        check_column(table.path, "--label", label, table.types)
    parts = [
        model.encoded(clean, clicks)
        for clean, clicks in blocks(model, opened, tabular.plan_of(**values, label=label), rejects)
        if clicks is not None
    ]
    if not parts:
        raise PipelineError(f"{path}: no row could be read:\n  " + "\n  ".join(rejects.first))
    times = [part.time for part in parts if part.time is not None]
    return Split(
        parts[0].schema,
        torch.cat([part.ids for part in parts]),
        torch.cat([torch.as_tensor(part.label) for part in parts]),
        torch.cat(times) if times else None,
    )


def _name(model: Model) -> str:
    return "{model} ({variant})".format(**model.package.trained_on)


def _shown(value: object) -> str:
    return "" if value is None else str(value)
