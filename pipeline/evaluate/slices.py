"""Where a model is good: test rows by how often their user and their item are in the train rows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import metrics
from pipeline.data import storage
from pipeline.metrics import Array
from pipeline.schema import Role
from pipeline.statistics.chance import FEW

Block = dict[str, Any]
BOUNDS = (1, 10, 100)  # train rows at which the next slice begins
NAMES = ("new", "1 to 9", "10 to 99", "100 and more")


def train_rows(processed: Path) -> dict[Role, Array]:
    """Return the number of train rows with the user, and with the item, of each test row: (N,) int64.

    Of an id that is not in the vocabulary (new, or below `encode.min_count`) it is 0. A role that no field
    has is left out.
    """
    found: dict[Role, Array] = {}
    schema = storage.read_schema(processed)
    train, test = (storage.open_column(processed, name, "ids") for name in ("train", "test"))
    for index, field in enumerate(schema.fields):
        if field.role is not None:
            slot, unseen = schema.field_of_slot.index(index), schema.offsets[index]
            count = np.bincount(train[:, slot], minlength=schema.vocabulary_size)
            count[unseen] = 0
            found[field.role] = count[test[:, slot]]
    return found


def measure(label: Array, scores: Sequence[Array], counts: Mapping[Role, Array]) -> Block:
    """Return the AUC of each slice, mean over seeds, None where a slice has too few rows of a class.

    Args:
        scores: of each seed, (N,).
        counts: of `train_rows`.

    Returns:
        for each role the AUC of its slices in the order of `NAMES`.
    """
    return {role: [_auc(label, scores, rows) for rows in _slices(count)] for role, count in counts.items()}


def describe(label: Array, counts: Mapping[Role, Array]) -> Block:
    """Return rows and clicks of each slice by role, without a role whose rows are all in one slice."""
    found: Block = {}
    for role, count in counts.items():
        parts = [(int(rows.sum()), int(label[rows].sum())) for rows in _slices(count)]
        if sum(rows > 0 for rows, _ in parts) > 1:
            found[role] = [{"rows": rows, "clicks": clicks} for rows, clicks in parts]
    return found


def table(sizes: Block, results: Sequence[Block]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows: the shares of the rows, their click rates, then a row per model.

    Args:
        sizes: of `describe`.
        results: for each model `model`, `variant` and `slices`, what `measure` returned.
    """
    shown = [(role, i) for role, parts in sizes.items() for i, part in enumerate(parts) if part["rows"]]
    total = sum(part["rows"] for part in next(iter(sizes.values())))
    parts = [sizes[role][i] for role, i in shown]
    header = ["model", "variant", *(f"{role}: {NAMES[i]}" for role, i in shown)]
    rows = [
        ["*share of rows*", "", *(f"{part['rows'] / total:.1%}" for part in parts)],
        ["*clicks*", "", *(f"{part['clicks'] / part['rows']:.1%}" for part in parts)],
    ]
    for result in results:
        aucs = [result["slices"][role][i] for role, i in shown]
        cells = ["-" if auc is None else f"{auc:.4f}" for auc in aucs]
        rows.append([result["model"], result["variant"], *cells])
    return header, rows


def explanation() -> str:
    """Explain the table in a paragraph."""
    return (
        "AUC among the test rows alone whose user, or item, has so many rows in the train split; *new*: "
        "none, or fewer than the vocabulary asks for (`encode.min_count`). Each model with its better "
        "variant on validation data, mean over seeds. AUCs of different slices cannot be compared with each "
        "other: what tells rows apart differs between them (among rows of new users the user does not). "
        f"- where there are fewer than {FEW} rows of a class."
    )


def _slices(count: Array) -> list[Array]:
    at = np.searchsorted(BOUNDS, count, side="right")
    return [at == i for i in range(len(NAMES))]


def _auc(label: Array, scores: Sequence[Array], rows: Array) -> float | None:
    clicks = int(label[rows].sum())
    if min(clicks, int(rows.sum()) - clicks) < FEW:
        return None
    return float(np.mean([metrics.auc(label[rows], score[rows]) for score in scores]))
