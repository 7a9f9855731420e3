"""What a model has learnt as a picture: the importance of its fields, and its strongest pairs."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.evaluate.plot_style import COLOURS, OTHER, PLAIN, SLATE, styled, titled_figure

MOST = 20  # bars of a panel
Block = dict[str, Any]


@styled
def learnt(found: Block, dataset: str, model: str) -> Figure:
    """AUC lost by field, with its interval, beside the interactions of the strongest pairs.

    Args:
        found: of `summary.summarise`.
        dataset, model: their names, for people.
    """
    fields, pairs = (found[name]["found"][:MOST] for name in ("fields", "pairs"))
    first = fields[0]
    title = f"{model} lives by {first['field']} most: without it, AUC falls by {first['auc_lost']:.3f}"
    if any(row["high"] >= first["low"] for row in fields[1:]):
        lost = f"AUC falls by {first['auc_lost']:.3f}"
        title = f"{model}: without {first['field']}, {lost}; others may count as much"
    if first["low"] <= 0:
        title = f"{model}: what any one field is worth cannot be told from chance on these rows"
    figure = titled_figure(
        0.9 + 0.2 * max(len(fields), len(pairs)),
        title,
        f"{dataset}: fields shuffled among {found['fields']['rows']:,} held-out rows, with 95 % intervals; "
        f"{_of_pairs(found['pairs'])}\n"
        "Of fields that say the same, each may look unimportant; a field may carry the cross of one that it "
        "determines",
    )
    left, *others = figure.subplots(1, 2 if pairs else 1, squeeze=False)[0]
    _bars(left, [row["field"] for row in fields], [row["auc_lost"] for row in fields], COLOURS[0])
    for y, row in enumerate(fields):
        left.plot([row["low"], row["high"]], [y, y], color=SLATE, linewidth=1.1)
    left.set_title("AUC lost")
    for right in others:
        names = ["{first} x {second}".format(**row) for row in pairs]
        _bars(right, names, [row["interaction"] for row in pairs], COLOURS[2])
        right.set_title("interaction, in logits")
    return figure


def _of_pairs(found: Block) -> str:
    if not found["found"]:
        return "no pair of them interacts in this model"
    return f"pairs by double differences of the logit on {found['rows']:,} rows"


def _bars(ax: Axes, names: list[str], values: list[float], colour: str) -> None:
    ax.barh(range(len(names)), values, color=colour, height=0.6)
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(max(len(names), 1) - 0.4, -0.6)
    ax.axvline(0, color=OTHER, linewidth=0.8)
    ax.grid(visible=False, axis="y")
    ax.xaxis.set_major_formatter(PLAIN)
