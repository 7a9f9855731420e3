"""Champion and challenger: which of two trained models ranks rows better that are new to the champion.

They are the challenger's validation rows that are later than every train row of the champion. Both packages
score them from the clean table, and the paired test of the report compares their AUCs, by the users of the
rows. (The challenger ended its training by these rows, which favours it a little.) The test rows have no say.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.common.errors import PipelineError
from pipeline.common.files import canonical
from pipeline.data.storage import open_column
from pipeline.evaluate.verdict import Verdict
from pipeline.preprocess.clean_table import CleanTable
from pipeline.preprocess.parse import chunk
from pipeline.scoring.model import RAW, Model
from pipeline.scoring.package import Package
from pipeline.statistics.significance import LEVEL, clusters, compare, estimate


def judge(root: Path, champion: Package, challenger: Package) -> Verdict:
    """Compare two packages on rows that are new to the champion.

    The challenger leads if it is better by the paired test, and if there is nothing to compare: the champion
    answers another question or cannot score these rows, or nobody can say which rows are new to it.

    Args:
        root: the project whose clean table and validation rows the challenger was trained with.
    """
    dataset = str(challenger.trained_on["dataset"])
    try:
        table = CleanTable(root / "data/interim" / dataset)
        rows: NDArray[np.int64] = np.array(open_column(root / "data/processed" / dataset, "valid", "row"))
    except PipelineError as error:
        return Verdict(leads=False, reason=f"it cannot be compared here: {error}", final=False)
    if obstacle := _obstacle(champion, challenger, table):
        return Verdict(leads=True, reason=f"the champion before it cannot be compared: {obstacle}")
    extra = table.load_extra()
    label, time = extra["label"].to_numpy(), extra["time"].to_numpy()
    rows = np.sort(rows[time[rows] > champion.trained_on["until"]])
    clicks = int(label[rows].sum())
    if min(clicks, len(rows) - clicks) < 2:
        few = f"{len(rows)} validation rows, {clicks} of them clicks, are later than its training"
        return Verdict(leads=True, reason=f"the champion before it cannot be compared: only {few}")
    try:
        models = [Model(champion), Model(challenger)]
    except PipelineError as error:
        return Verdict(leads=True, reason=f"the champion before it cannot be loaded: {error}")
    old, new = (np.concatenate(parts) for parts in zip(*_scores(models, table, rows, time), strict=True))
    group = extra["group"].to_numpy()[rows] if "group" in extra.column_names else None
    return _tested(label[rows], old, new, group)


def _obstacle(champion: Package, challenger: Package, table: CleanTable) -> str:
    """Return what makes a comparison impossible; nothing if it is possible."""
    before, now = (package.trained_on.get("log") for package in (champion, challenger))
    if before is None:
        return "its package does not say what it was trained for"
    if canonical(before) != canonical(now):
        return f"it was trained for {canonical(before)}, this one for {canonical(now)}"
    kinds = {column.name: column.kind for column in table.columns}
    for entry in champion.vocabulary:
        if kinds.get(entry["name"]) != entry["kind"]:
            return f"the log has no field {entry['name']!r} of the kind {entry['kind']} any more"
    if "time" not in table.names or "until" not in champion.trained_on:
        return "without times nobody knows which rows are new to it"
    return ""


def _scores(
    models: Sequence[Model], table: CleanTable, rows: NDArray[np.int64], time: NDArray[np.int64]
) -> Iterator[list[NDArray[np.float32]]]:
    """Yield the probabilities by each model of those of the rows that are in a block."""
    start = 0
    for block in table.field_blocks():
        own = rows[(rows >= start) & (rows < start + len(block))]
        part = block.take(pa.array(own - start))
        start += len(block)
        if len(own):
            columns = {name: chunk(part[name]) for name in part.column_names}
            clean = pa.record_batch({**columns, "time": pa.array(time[own])})
            yield [model.score(clean, model.encode(clean))[RAW] for model in models]


def _tested(
    label: NDArray[np.uint8],
    old: NDArray[np.float32],
    new: NDArray[np.float32],
    group: NDArray[np.int32] | None,
) -> Verdict:
    users = clusters(label, group)
    ours, theirs = (estimate(label, [score], group if users else None) for score in (new, old))
    test = compare(ours, theirs)
    leads = test["difference"] > 0 and test["p"] < LEVEL
    word = "better" if leads else "worse" if test["p"] < LEVEL else "not distinguishable"
    where = f"{len(label):,} validation rows" + (f" of {users:,} users" if users else "")
    return Verdict(
        leads,
        f"{word} on {where} that are later than the champion's training: AUC {ours.auc:.4f} against "
        f"{theirs.auc:.4f}, difference {test['difference']:+.4f}, 95 % interval {test['low']:+.4f} to "
        f"{test['high']:+.4f}, p = {test['p']:.3g}",
    )
