"""The report of a new log as a picture."""

from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pipeline.evaluate.plot_style import COLOURS, GREY, OTHER, PLAIN, SLATE, styled, titled_figure

ALARM = COLOURS[1]
OF_THE_LOG = ("rejected", "year", "density", "label_rate", "auc", "logloss", "ece")


@styled
def changes(report: dict[str, Any]) -> Figure:
    """Changes as shares of their limits: PSI, unseen and missing values of each field, and the log's."""
    checks = report["checks"]
    panels = {"stability (PSI)": "psi", "unseen values": "unseen", "missing values": "missing"}
    fields = [check["field"] for check in checks if check["what"] == "psi"]
    count = sum(check["alarm"] for check in checks)
    figure = titled_figure(
        max(2.4, 0.5 + 0.2 * len(fields)),
        f"{report['log']}: {count} of {len(checks)} figures changed beyond their limits",
        f"{report['rows']:,} new rows beside the {report['reference_rows']:,} test rows of "
        f"{report['dataset']}; change as a share of its limit,\nwhich allows for chance; AUC, logloss and "
        f"ECE are those of {report['model']} ({report['variant']}), seed {report['seed']}",
        keys=[
            Line2D([], [], color=GREY, marker="o", linestyle="", markersize=4, label="within"),
            Line2D([], [], color=ALARM, marker="o", linestyle="", markersize=4, label="beyond its limit"),
        ],
    )
    axes = figure.subplots(1, len(panels) + 1, width_ratios=[1, 1, 1, 1])
    whole = [check for check in checks if check["what"] in OF_THE_LOG]
    parts = [(name, [c for c in checks if c["what"] == what]) for name, what in panels.items()]
    for ax, (name, shown) in zip(axes, [*parts, ("the whole log", whole)], strict=True):
        named = fields if shown is not whole else [check["what"].replace("_", " ") for check in whole]
        places = {name: len(named) - i for i, name in enumerate(named)}
        for check in shown:
            y = places[check["what"].replace("_", " ") if shown is whole else check["field"]]
            x = min(max(check["change"] / check["limit"], 0.0), 3.0)
            colour = ALARM if check["alarm"] else GREY
            ax.plot([0, x], [y, y], color=colour, linewidth=1.6)
            ax.plot([x], [y], marker=">" if x == 3 else "o", color=colour, markersize=4)
        ax.axvline(1, color=SLATE, linewidth=0.9)
        ax.set(xlim=(0, 3.1), ylim=(0.3, max(len(named), 1) + 0.7), title=name, xticks=[0, 1, 2, 3])
        ax.xaxis.set_major_formatter(PLAIN)
        ax.set_yticks(list(places.values()), list(places), color=SLATE)
        if ax in axes[1:3]:
            ax.tick_params(labelleft=False)
        ax.grid(axis="y", color=OTHER, linewidth=0.3)
    return figure
