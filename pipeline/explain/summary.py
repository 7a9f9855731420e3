"""What a model has learnt, at a bounded cost: values for a report, words and tables."""

from math import comb
from typing import Any

import torch
from torch import nn

from pipeline.data.batches import Split
from pipeline.explain.fields import SHUFFLES, importance
from pipeline.explain.mixing import Together, balanced, spread, units
from pipeline.explain.pairs import pairs
from pipeline.metrics import Array

Block = dict[str, Any]
PREDICTIONS = 200_000  # rows that are predicted for the fields, and as many for the pairs
LEAST_ROWS = 500  # whatever that takes
FIELDS = 20  # the most important ones, whose pairs are looked at
PAIRS = 20  # that are kept, the strongest
DIGITS = 6


def summarise(
    network: nn.Module,
    rows: Split,
    group: Array | None = None,
    *,
    together: Together = (),
    predictions: int = PREDICTIONS,
) -> Block:
    """Return the importance of the fields and the strongest pairs.

    Args:
        network: a trained model.
        rows: that training did not see, with labels; as many are used as `predictions` allow (`LEAST_ROWS` at
            least), for the fields by `balanced`, since clicks may be few.
        group: whose rows are alike (N,), such as their user.
        together: fields that are one.
        predictions: most rows that are predicted for either.

    Returns:
        `fields` and `pairs`, each with the `rows` used and `found`, the rows of the table of `importance` and
        of the first `PAIRS` of `pairs`.

    Raises:
        PipelineError: there are fewer than two rows of a class, or `together` names no field.
    """
    count = len(units(network, rows.schema, together))
    some, number = balanced(rows, max(predictions // (1 + SHUFFLES * count), LEAST_ROWS))
    rate = float(rows.label.float().mean())
    group = None if group is None else group[number]
    fields = importance(network, some, group=group, together=together, rate=rate)
    first = set(fields["field"].head(FIELDS))
    few, _ = spread(rows, max(predictions // (1 + len(first) + comb(len(first), 2)), LEAST_ROWS))
    crossed = pairs(network, few, together=together, among=first).head(PAIRS)
    crossed = crossed[crossed["interaction"].round(DIGITS) > 0]  # LR has none
    return {
        name: {"rows": len(used), "found": table.round(DIGITS).to_dict("records")}
        for name, used, table in (("fields", some, fields), ("pairs", few, crossed))
    }


def to_markdown(found: Block, model: str) -> str:
    """Return a section of a report: both tables, and how to read them.

    Args:
        found: of `summarise`.
        model: its name, for people.
    """
    fields, crossed = found["fields"], found["pairs"]
    lines = ["| field | AUC lost | 95 % interval | logloss |", "|---|---:|---:|---:|"]
    lines += [
        f"| {_cell(row['field'])} | {row['auc_lost']:.4f} | {row['low']:.4f} to {row['high']:.4f} "
        f"| {row['logloss_rise']:+.4f} |"
        for row in fields["found"]
    ]
    text = (
        f"What {model} loses when the values of a field are shuffled among {fields['rows']:,} rows, "
        f"{SHUFFLES} times: AUC, with the interval by rows and shuffles, and the rise of the logloss. Of "
        "fields that say the same, each may look unimportant."
    )
    parts = ["\n".join(lines), text]
    if crossed["found"]:
        own = [name for name in crossed["found"][0] if name not in ("first", "second", "interaction")]
        head = ["pair", "interaction", *own]
        lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(own) + 1)}"]
        for row in crossed["found"]:
            figures = [f"{row[name]:.3f}" for name in ("interaction", *own)]
            lines.append(f"| {_cell(row['first'])} x {_cell(row['second'])} | {' | '.join(figures)} |")
        words = (
            f"How far the logit is from a sum over the two fields, in logits: double differences on "
            f"{crossed['rows']:,} rows"
            + (f", of the {FIELDS} most important fields" if len(fields["found"]) > FIELDS else "")
            + (f", beside what the model itself weighs the pair with ({', '.join(own)})" if own else "")
            + ". A field may carry the cross of one that it determines, as a user that of the age."
        )
        parts += ["\n".join(lines), words]
    return "\n\n".join(parts) + "\n"


def _cell(name: str) -> str:
    return name.replace("|", "\\|")


def groups(rows: Split) -> Array | None:
    """Return the user of each row (N,) by the field that identifies it; None if none is declared."""
    roles = [rows.schema.fields[i].role for i in rows.schema.field_of_slot]
    if "user" not in roles:
        return None
    users: torch.Tensor = rows.ids[:, roles.index("user")]
    found: Array = users.cpu().numpy()
    return found
