"""An exhibit as a picture."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from pipeline.evaluate.plot_style import COLOURS, GREY, LIGHT, SLATE, styled, titled_figure
from pipeline.papers.exhibit import Block, Exhibit, Figures
from pipeline.papers.report import crosses, title
from pipeline.papers.results import CONDITIONS

FAR = 2.0  # spans of our AUCs that lie between them and the paper's where those have a panel of their own
MARKS: dict[str, Any] = {
    "paper": {"marker": "D", "markerfacecolor": "white", "color": GREY},
    "published": {"marker": "o", "color": COLOURS[1]},
    "default": {"marker": "o", "color": COLOURS[2]},
    "tuned": {"marker": "o", "color": COLOURS[0]},
}


@styled
def table(exhibit: Exhibit, joined: Block) -> Figure:
    """Each model's AUC as published and as found, a panel for each log, in the paper's order."""
    logs = joined["logs"]
    labels = [row.label for row in exhibit.rows]
    kinds = [kind for kind in ("paper", *CONDITIONS) if _points(logs, kind)]
    names = {"paper": "in the paper", **CONDITIONS}
    keys = [Line2D([], [], linestyle="", label=names[kind], **MARKS[kind]) for kind in kinds]
    where = "test rows: mean over seeds"
    if any(row["low"] is not None for log in logs for row in log["rows"]):
        where += ", bars: 95 % interval"
    if any(len(log["splits"]) > 1 for log in logs):
        where += "; small dots: each of several splits"
    figure = titled_figure(0.75 + 0.3 * len(labels), exhibit.title, f"{exhibit.paper}\nAUC on {where}", keys)
    panels = [panel for log in logs for panel in _panels(log, kinds)]
    widths = [1 if shown == ["paper"] else 2 for _, shown in panels]
    axes = _side_by_side(figure, len(panels), width_ratios=widths)
    for ax, (log, shown) in zip(axes, panels, strict=True):
        is_apart = shown == ["paper"]
        ax.set_title("in the paper" if is_apart else title(log))
        ax.grid(visible=False, axis="y")
        ax.margins(x=0.15 if is_apart else 0.05)
        for place, row in enumerate(reversed(exhibit.rows)):
            ax.axhline(place, color=LIGHT, linewidth=0.7, zorder=0)
            for shift, kind in enumerate(kinds):
                if kind not in shown:
                    continue
                y = place + 0.16 * ((len(kinds) - 1) / 2 - shift)
                if kind != "paper":
                    _point(ax, log, row.label, kind, y)
                elif (auc := row.published.get(log["source"], Figures()).auc) is not None:
                    ax.plot([auc], [y], linestyle="", markersize=6, **MARKS[kind])
        ax.set_yticks(range(len(labels)), list(reversed(labels)))
        ax.set_ylim(-0.6, len(labels) - 0.4)
        ticks = max(3, round(10 * (1 if is_apart else 2) / sum(widths)))
        ax.xaxis.set_major_locator(MaxNLocator(ticks, steps=[1, 2, 5, 10]))
        ax.set_xlabel("AUC")
    return figure


def _panels(log: Block, kinds: list[str]) -> list[tuple[Block, list[str]]]:
    """Return what each panel of a log shows: the paper apart, where one axis would press ours together."""
    printed, ours = _points([log], "paper"), [auc for kind in CONDITIONS for auc in _points([log], kind)]
    found = [kind for kind in kinds if kind != "paper"]
    if not printed:
        return [(log, found)]
    apart = max(min(ours) - max(printed), min(printed) - max(ours))
    if apart <= FAR * (max(ours) - min(ours)):
        return [(log, kinds)]
    return [(log, ["paper"]), (log, found)]


def _points(logs: list[Block], kind: str) -> list[float]:
    rows = [row for log in logs for row in log["rows"]]
    if kind == "paper":
        return [row["published"]["auc"] for row in rows if row["published"]["auc"] is not None]
    return [row["auc"] for row in rows if row["condition"] == kind]


def _point(ax: Axes, log: Block, label: str, kind: str, y: float) -> None:
    for row in log["rows"]:
        if (row["model"], row["condition"]) != (label, kind):
            continue
        if row["low"] is not None:
            ax.plot([row["low"], row["high"]], [y, y], color=MARKS[kind]["color"], linewidth=1, alpha=0.5)
        if len(row["of_splits"]) > 1:
            dots = {"marker": ".", "color": MARKS[kind]["color"], "alpha": 0.45}
            ax.plot(row["of_splits"], [y] * len(row["of_splits"]), linestyle="", markersize=4, **dots)
        ax.plot([row["auc"]], [y], linestyle="", markersize=6, **MARKS[kind])


@styled
def sweep(exhibit: Exhibit, joined: Block) -> Figure:
    """AUC over the values of an option, a panel for each log and condition, a line for each model."""
    assert exhibit.sweep is not None
    shown = [
        (log, condition)
        for log in joined["logs"]
        for condition in CONDITIONS
        if any(row["condition"] == condition for row in log["rows"])
    ]
    names, best = exhibit.sweep.names, exhibit.sweep.best
    alone = len(exhibit.rows) == 1 and exhibit.sweep.key == "auc"
    over = " and splits" if any(len(log["splits"]) > 1 for log in joined["logs"]) else ""
    told = "; dots: each split" if over and alone else ""
    told += "" if best is None else f"; dashed: the best in the paper ({names[best]})"
    figure = titled_figure(
        2.6, exhibit.title, f"{exhibit.paper}; AUC on {exhibit.sweep.rows} rows, mean over seeds{over}{told}"
    )
    axes = _side_by_side(figure, len(shown))
    for ax, (log, condition) in zip(axes, shown, strict=True):
        ax.set_title(f"{title(log)}, {CONDITIONS[condition]}")
        if best is not None:
            ax.axvline(best, color=GREY, linestyle="--", linewidth=1)
        for number, row in enumerate(exhibit.rows):
            found = {
                r["value"]: r[exhibit.sweep.key]
                for r in log["rows"]
                if r["model"] == row.label and r["condition"] == condition
            }
            colour = SLATE if number >= len(COLOURS) else COLOURS[number]
            values = [found.get(name, np.nan) for name in names]
            ax.plot(range(len(names)), values, marker="o", markersize=4, color=colour, label=row.label)
        if alone:
            _splits_of(ax, log, condition, names)
        ax.set_xticks(range(len(names)), names)
        ax.set_xlabel(exhibit.sweep.what)
        ax.set_ylabel("AUC")
    if len(exhibit.rows) > 1:
        _legend(axes[-1])
    return figure


def _splits_of(ax: Axes, log: Block, condition: str, names: Sequence[str]) -> None:
    """Mark the test AUC of each split: beside their spread the line of the means is as flat as it is."""
    for row in log["rows"]:
        if row["condition"] == condition and len(row["of_splits"]) > 1:
            places = [names.index(row["value"])] * len(row["of_splits"])
            ax.plot(places, row["of_splits"], ".", color=COLOURS[0], alpha=0.45, markersize=4)


@styled
def attention(exhibit: Exhibit, found: dict[str, Block]) -> Figure:
    """Mean attention of each order of crosses by channel, before and after training."""
    figure = titled_figure(
        2.6,
        exhibit.title,
        f"{exhibit.paper}; mean over validation rows, by channel; open: before, filled: after training",
    )
    axes = _side_by_side(figure, len(found), sharey=True)
    for ax, (name, weights) in zip(axes, found.items(), strict=True):
        ax.set_title(name)
        for number, (order, after) in enumerate(weights["after"].items()):
            before, colour = weights["before"][order], COLOURS[number]
            places = range(len(after))
            ax.plot(places, before, "o", color=colour, markerfacecolor="white", markersize=4)
            ax.plot(places, after, "o", color=colour, markersize=4, label=crosses(order))
            for place, (old, new) in enumerate(zip(before, after, strict=True)):
                ax.plot([place, place], [old, new], color=colour, linewidth=0.8, alpha=0.6)
        if names := weights["channels"]:
            ax.set_xticks(range(len(names)), names, rotation=30, ha="right")
        ax.set_xlabel("" if names else "channel")
        ax.set_ylabel("attention" if ax is axes[0] else "")
    _legend(axes[-1])
    return figure


def _side_by_side(figure: Figure, count: int, **options: Any) -> list[Axes]:
    return list(figure.subplots(1, count, squeeze=False, **options)[0])


def _legend(ax: Axes) -> None:
    """Name the lines beside the last panel, where none of them can be."""
    ax.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
