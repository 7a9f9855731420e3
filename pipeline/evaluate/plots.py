"""The report as pictures: the only file that imports matplotlib.

Every function draws one figure from the values of report.json, the run files and `Curves`. The same values
give the same bytes: no window system, the font that comes with matplotlib, a fixed resolution, and no
version or time in the file.
"""

import math
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray

from pipeline.evaluate.predictions import Entry, Run
from pipeline.evaluate.report import BASELINE, GRID, Curves, champion

Array = NDArray[Any]
Block = dict[str, Any]
# Okabe and Ito's colours, which stay apart under colour blindness. Slate is the baseline's; where there are
# more models than colours, the weaker ones are light and have no label
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
SLATE, GREY, OTHER, LIGHT = "#4A525C", "#8E959F", "#CDD2D8", "#E4E7EB"
TEXT = "#22272E"
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": TEXT,
    "axes.labelcolor": SLATE,
    "axes.labelsize": 8.5,
    "axes.edgecolor": "#B6BCC4",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "grid.color": LIGHT,
    "grid.linewidth": 0.7,
    "xtick.color": SLATE,
    "ytick.color": SLATE,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 8,
}
WIDTH, DPI = 9.0, 150  # inches, and pixels an inch
VARIANTS = ("default", "tuned")
METHODS = {
    "ped_anova": "PED-ANOVA: what tells the best trials apart",
    "fanova": "f-ANOVA: what moves the metric",
}
_plain = FuncFormatter(lambda value, _: f"{value:g}")
_styled = style.context(["default", STYLE])  # whatever the user's own matplotlibrc says


def draw(report: Block, curves: dict[Entry, Curves], runs: Sequence[Run]) -> dict[str, Figure]:
    """Return every figure of a report by file name; `importances.png` only if a search has some."""
    figures = {
        "leaderboard.png": leaderboard(report),
        "learning_curves.png": learning_curves(runs),
        "roc.png": roc(report, curves, runs),
        "calibration.png": calibration(report, curves, runs),
        "tuning_history.png": tuning_history(runs),
    }
    if any(run.info["search"].get("importances") for run in runs if run.variant == "tuned"):
        figures["importances.png"] = importances(runs)
    return figures


@_styled
def save(figure: Figure, path: Path) -> None:
    """Write a PNG whose bytes depend on the figure alone."""
    FigureCanvasAgg(figure)
    figure.savefig(path, format="png", dpi=DPI, metadata={"Software": None})


@_styled
def leaderboard(report: Block) -> Figure:
    """Test AUC of every model, default and tuned, with its spread over seeds."""
    found = {(r["model"], r["variant"]): r for r in report["results"]}
    models = sorted(
        {model for model, _ in found},
        key=lambda m: (max(found[m, v]["mean"]["auc"] for v in VARIANTS), m),
    )
    best = max(report["results"], key=lambda r: r["mean"]["auc"])
    title = f"{best['model']} ({best['variant']}) leads with a test AUC of {best['mean']['auc']:.4f}"
    if report["bayes"]:
        title += f", {100 * best['learned']:.0f} % of what can be learned"
    count = len(best["seeds"])
    figure = _figure(
        1.75 + 0.42 * len(models),
        title,
        f"{report['dataset']}: AUC on {report['rows']:,} test rows, mean and standard deviation over "
        f"{count} seed{'s' * (count > 1)}; ★ champion, chosen on validation data",
    )
    ax = figure.add_subplot()
    _margins(figure, left=0.95, right=3.15, top=0.95, bottom=0.55)
    ax.grid(visible=False, axis="y")
    ax.spines["left"].set_visible(False)
    columns = {"default": 1.16, "tuned": 1.47}
    for y, model in enumerate(models):
        pair = [found[model, variant]["mean"]["auc"] for variant in VARIANTS]
        ax.plot(pair, [y, y], color=LIGHT, linewidth=3, zorder=1)
        for variant, shift in (("default", -0.1), ("tuned", 0.1)):
            result = found[model, variant]
            mean, std = result["mean"]["auc"], (result["std"] or {"auc": 0.0})["auc"]
            colour, fill = (COLOURS[0], COLOURS[0]) if variant == "tuned" else (GREY, "white")
            ax.plot([mean - std, mean + std], [y + shift] * 2, color=colour, linewidth=1.4, zorder=2)
            ax.plot(
                mean, y + shift, "o", color=colour, markerfacecolor=fill, markersize=6.5, markeredgewidth=1.5
            )
            spread = f" ± {std:.4f}" if result["std"] else ""
            star = " ★" if result["key"] == report["champion"]["key"] else ""
            ax.text(
                columns[variant],
                y,
                f"{mean:.4f}{spread}{star}",
                transform=ax.get_yaxis_transform(),
                ha="center",
                va="center",
                weight="bold" if result is best else "normal",
                size=8.5,
            )
    if report["bayes"]:
        bayes = report["bayes"]["auc"]
        ax.axvline(bayes, color=TEXT, linewidth=1, linestyle=(0, (4, 3)))
        _above(ax, bayes, f"true probabilities {bayes:.4f} ", "right", data=True)
    _above(ax, columns["default"], "○ default", "center", color=GREY)
    _above(ax, columns["tuned"], "● tuned", "center", color=COLOURS[0])
    ax.set_yticks(range(len(models)), models, size=9.5)
    ax.set_ylim(-0.6, len(models) - 0.4)
    ax.xaxis.set_major_locator(MaxNLocator(6))
    ax.set_xlabel("test AUC")
    return figure


@_styled
def learning_curves(runs: Sequence[Run]) -> Figure:
    """Validation AUC and logloss after every evaluation, default and tuned side by side."""
    best, _ = champion(runs)
    figure = _figure(
        6.3,
        f"{best.model} ({best.variant}) reaches the best validation AUC, {best.valid('auc'):.4f}",
        "Validation part, mean and standard deviation over seeds; the dot is the mean of each seed's best "
        "evaluation, whose weights are kept",
    )
    axes = figure.subplots(2, 2, sharex=True, sharey="row")
    colours = _colours(runs)
    # room for the longest name beside a curve, and the number behind it
    room = max(1.05, 0.5 + 0.073 * max(len(run.model) for run in runs if colours[run.model] != OTHER))
    _margins(figure, left=0.65, right=room, top=1.0, bottom=0.5, between=room + 0.1, rows=0.2)
    longest = max(seed["curve"][-1]["epoch"] for run in runs for seed in run.seeds)
    for row, name in enumerate(("auc", "logloss")):
        for column, variant in enumerate(VARIANTS):
            ax: Axes = axes[row, column]
            ends = []
            for run in (run for run in runs if run.variant == variant):
                epochs, mean, std = _mean_curve(run, f"valid_{name}")
                colour, valid = colours[run.model], run.valid(name)
                if colour == OTHER:
                    ax.plot(epochs, mean, color=OTHER, linewidth=1, zorder=1)
                    continue
                ax.plot(epochs, mean, color=colour, linewidth=1.6)
                ax.fill_between(epochs, mean - std, mean + std, color=colour, alpha=0.15, linewidth=0)
                at = np.median([seed["best"]["epoch"] for seed in run.seeds])
                ax.plot(at, valid, "o", color=colour, markersize=5.5, markeredgecolor="white")
                ends.append((valid, f"{run.model} {valid:.4f}", colour))
            if row == 0:
                ax.set_title(variant)
            else:
                ax.set_xlabel("epoch")
            ax.set_xscale("log" if longest > 5 else "linear")
            _epochs(ax)
            _zoom(ax, runs, name)
            _label_right(ax, ends)
        axes[row, 0].set_ylabel({"auc": "validation AUC", "logloss": "validation logloss"}[name])
    return figure


@_styled
def roc(report: Block, curves: dict[Entry, Curves], runs: Sequence[Run]) -> Figure:
    """ROC of each model's better variant, and what it gains over the baseline."""
    shown = _better(runs)
    auc = {(r["model"], r["variant"]): r["mean"]["auc"] for r in report["results"]}
    shown.sort(key=lambda run: -auc[run.model, run.variant])
    base = next((run for run in shown if run.model == BASELINE), shown[-1])
    colours = _colours(runs)
    at = int(np.searchsorted(GRID, 0.2))
    top, bottom = (curves[run.model, run.variant].tpr[at] for run in (shown[0], base))
    found = f"At 20 % false positives {shown[0].model} finds {100 * top:.1f} % of the positives"
    if base is not shown[0]:
        found += f", {base.model} {100 * bottom:.1f} %"
    figure = _figure(
        4.6,
        found,
        "Test part, mean over seeds; each model with the variant that is better on validation data",
    )
    left, right = figure.subplots(1, 2)
    _margins(figure, left=0.65, right=0.25, top=1.0, bottom=0.55, between=0.75)
    left.plot([0, 1], [0, 1], color=GREY, linewidth=0.9, linestyle=(0, (4, 3)))
    left.text(0.62, 0.58, "a coin", color=GREY, size=8, rotation=38, ha="center", va="top")
    for run in reversed(shown):
        tpr = curves[run.model, run.variant].tpr
        gain = 100 * (tpr - curves[base.model, base.variant].tpr)
        look: Any = {"color": OTHER, "linewidth": 1, "zorder": 1}
        if colours[run.model] != OTHER:
            look = {"color": colours[run.model], "linewidth": 1.6}
        left.plot(GRID, tpr, **look)
        right.plot(GRID, gain, **look)
    left.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(0, 1), ylim=(0, 1))
    right.set(xlabel="false positive rate", ylabel=f"percentage points more than {base.model}", xlim=(0, 1))
    right.set_title("Gain in true positive rate")
    left.set_title("ROC")
    key = [
        (f"{run.model} ({run.variant})  {auc[run.model, run.variant]:.4f}", colours[run.model])
        for run in shown
        if colours[run.model] != OTHER
    ]
    _key(left, "AUC", key)
    return figure


@_styled
def calibration(report: Block, curves: dict[Entry, Curves], runs: Sequence[Run]) -> Figure:
    """Reliability of every model over bins of equally many rows, and where its predictions lie."""
    ece = {(r["model"], r["variant"]): r["mean"]["ece"] for r in report["results"]}
    best = min(ece, key=lambda entry: (ece[entry], entry))
    models = list(dict.fromkeys(run.model for run in runs))
    bins = len(curves[best].predicted)
    figure, cells = _grid(
        len(models),
        2.35,
        f"{best[0]} ({best[1]}) is calibrated best: off by {100 * ece[best]:.2g} points on average",
        f"Test part: share of positives against predicted probability in {bins} bins of equally many rows, "
        "all seeds\ntogether. The grey band holds 95 % of the points of a calibrated model. Bars: where the "
        "predictions lie",
        strip=True,
    )
    colours = _colours(runs, other=SLATE)
    top = max(max(c.predicted.max(), c.observed.max()) for c in curves.values())
    top = min(1.0, math.ceil(top * 10 + 0.3) / 10)
    line = np.linspace(0, top, 101)
    noise = 1.96 * np.sqrt(line * (1 - line) / (report["rows"] / bins))
    for (ax, strip), model in zip(cells, models, strict=True):
        ax.fill_between(line, line - noise, line + noise, color=LIGHT, linewidth=0)
        ax.plot(line, line, color="#B6BCC4", linewidth=0.9)
        for variant in VARIANTS:
            values = curves[model, variant]
            colour = colours[model] if variant == "tuned" else GREY
            ax.plot(
                values.predicted,
                values.observed,
                marker="o",
                markersize=3.6,
                linewidth=1.2 if variant == "tuned" else 0.8,
                color=colour,
                markerfacecolor=colour if variant == "tuned" else "white",
            )
            edges = np.linspace(0, 1, len(values.histogram) + 1)
            if variant == "tuned":
                strip.stairs(values.histogram, edges, color=colour, fill=True, alpha=0.45)
            else:
                strip.stairs(values.histogram, edges, color=GREY, linewidth=0.8)
        _head(ax, model, f"ECE {ece[model, 'default']:.3f} → {ece[model, 'tuned']:.3f}", colours[model])
        ax.set(xlim=(0, top), ylim=(0, top), xticks=_ticks(top), yticks=_ticks(top))
        ax.tick_params(labelbottom=False)
        ax.yaxis.set_major_formatter(_plain)
        strip.set(xlim=(0, top), xticks=_ticks(top), yticks=[])
        strip.xaxis.set_major_formatter(_plain)
        strip.grid(visible=False)
        strip.spines["left"].set_visible(False)
    _legend(
        figure,
        Line2D([], [], color=GREY, marker="o", markerfacecolor="white", markersize=4, label="default"),
        Line2D([], [], color=TEXT, marker="o", markersize=4, label="tuned"),
    )
    return figure


@_styled
def tuning_history(runs: Sequence[Run]) -> Figure:
    """Every trial of every search, with the best so far."""
    tuned = [run for run in runs if run.variant == "tuned"]
    metric = tuned[0].info["search"]["metric"]
    sign = 1 if metric == "auc" else -1
    series = {run.model: _trials(run) for run in tuned}
    gains = {
        model: round(sign * float(best[-1] - default), 4) for model, (_, _, best, default) in series.items()
    }
    top = max(gains, key=lambda model: (gains[model], model))
    word = "AUC" if metric == "auc" else "logloss"
    title = (
        f"The search helps {top} most: {sign * gains[top]:+.4f} validation {word} over its default"
        if gains[top] > 0
        else "No search finds anything better than the default"
    )
    figure, cells = _grid(
        len(tuned),
        1.75,
        title,
        f"Validation {word} of every trial on one seed; the first trial is the default configuration",
    )
    colours = _colours(runs, other=SLATE)
    low, high = _history_limits(series, sign)
    for (ax, _), (model, (values, pruned, best, default)) in zip(cells, series.items(), strict=True):
        number = np.arange(len(values))
        inside = np.clip(values, low, high)
        beyond = (values < low) | (values > high)
        ax.axhline(default, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)))
        level = np.clip(np.append(best, best[-1]), low, high)
        ends = np.append(number, len(number) - 0.4)
        ax.step(ends, level, where="post", color=colours[model], linewidth=1.6)
        done = ~pruned & ~beyond
        ax.plot(
            number[done],
            inside[done],
            "o",
            color=colours[model],
            alpha=0.55,
            markersize=4.5,
            markeredgewidth=0,
        )
        ax.plot(
            number[pruned & ~beyond], inside[pruned & ~beyond], "x", color=GREY, markersize=4.5, clip_on=False
        )
        ax.plot(
            number[beyond],
            inside[beyond],
            "v" if sign > 0 else "^",
            color=GREY,
            markersize=4.5,
            clip_on=False,
        )
        won = int(np.argmax(sign * np.where(pruned, -sign * np.inf, values)))
        ax.plot(won, values[won], "o", color=colours[model], markersize=7, markeredgecolor="white")
        ax.plot(0, default, "D", color=TEXT, markerfacecolor="white", markersize=5)
        gain = f"{default:.4f} → {best[-1]:.4f}" if gains[model] > 0 else f"{default:.4f}, no gain"
        _head(ax, model, gain, colours[model])
        ax.set_ylim(low, high)
        ax.set_xlim(-0.8, max(len(v) for v, *_ in series.values()) - 0.2)
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        ax.yaxis.set_major_locator(MaxNLocator(4))
        ax.set_xlabel("trial", labelpad=1)
    _legend(
        figure,
        Line2D([], [], color=TEXT, linewidth=1.6, label="best so far"),
        Line2D([], [], color=TEXT, marker="o", linestyle="", alpha=0.6, markersize=4.5, label="finished"),
        Line2D([], [], color=GREY, marker="x", linestyle="", markersize=4.5, label="pruned"),
        Line2D(
            [],
            [],
            color=TEXT,
            marker="D",
            markerfacecolor="white",
            linestyle="",
            markersize=5,
            label="default",
        ),
    )
    return figure


@_styled
def importances(runs: Sequence[Run]) -> Figure:
    """How much of the search's spread each hyper-parameter explains, by two methods."""
    found = {run.model: run.info["search"].get("importances") or {} for run in runs if run.variant == "tuned"}
    methods = [m for m in METHODS if any(m in value for value in found.values())]
    models = [model for model, value in found.items() if value]
    weight: dict[str, list[float]] = {}
    for value in found.values():
        for axis, share in value.get(methods[0], {}).items():
            weight.setdefault(axis, []).append(share)
    axes = sorted(weight, key=lambda axis: (-float(np.mean(weight[axis])), axis))
    tall = len(models) > 7  # then a row is a model, else a hyper-parameter
    down, across = (models, axes) if tall else (axes, models)
    head = 1.25 + (0.04 * max(map(len, axes)) if tall else 0)
    figure = _figure(
        head + 0.3 * len(down) + 0.2,
        f"{axes[0]} matters most on average",
        "Share of each hyper-parameter in the spread of the validation metric over the trials, by model",
    )
    panels = figure.subplots(1, len(methods), squeeze=False).ravel()
    _margins(
        figure,
        left=0.3 + 0.068 * max(map(len, down)),
        right=0.7 if tall else 0.2,
        top=head,
        bottom=0.2,
        between=0.25,
    )
    for ax, method in zip(panels, methods, strict=True):
        shares = np.array([[found[m].get(method, {}).get(axis, np.nan) for m in models] for axis in axes])
        _table(ax, shares.T if tall else shares, down if ax is panels[0] else [""] * len(down), across)
        ax.tick_params(axis="x", rotation=35 if tall else 0)
        for label in ax.get_xticklabels():
            label.set(ha="left" if tall else "center", rotation_mode="anchor" if tall else "default")
        ax.set_title(METHODS[method], pad=8)
    return figure


def _table(ax: Axes, shares: Array, down: Sequence[str], across: Sequence[str]) -> None:
    """A table of percentages with shaded cells; NaN stays blank."""
    ax.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1.15, aspect="auto")
    for (i, j), share in np.ndenumerate(shares):
        if not math.isnan(share):
            colour = "white" if share > 0.45 else TEXT
            ax.text(j, i, f"{100 * share:.0f} %", ha="center", va="center", size=8, color=colour)
    ax.set_xticks(range(len(across)), across)
    ax.set_yticks(range(len(down)), down)
    ax.xaxis.tick_top()
    ax.set_xticks(np.arange(len(across) - 1) + 0.5, minor=True)
    ax.set_yticks(np.arange(len(down) - 1) + 0.5, minor=True)
    ax.grid(visible=False)
    ax.grid(visible=True, which="minor", color="white", linewidth=2)
    ax.tick_params(which="minor", length=0)
    ax.spines[:].set_visible(False)


def _figure(height: float, title: str, subtitle: str) -> Figure:
    """An empty figure with a title that says what one sees and a line on what is drawn."""
    figure = Figure(figsize=(WIDTH, height), facecolor="white")
    figure.text(0.18 / WIDTH, 1 - 0.16 / height, title, size=12, weight="bold", va="top")
    figure.text(0.18 / WIDTH, 1 - 0.44 / height, subtitle, size=8.5, color=SLATE, va="top", linespacing=1.35)
    return figure


def _margins(
    figure: Figure,
    *,
    left: float,
    right: float,
    top: float,
    bottom: float,
    between: float = 0.0,
    rows: float = 0.0,
) -> None:
    """Set the margins and the gaps between panels in inches, whatever the size of the figure."""
    height = figure.get_figheight()
    specs = figure.axes[0].get_gridspec()
    assert specs is not None
    wide = (WIDTH - left - right - between * (specs.ncols - 1)) / specs.ncols
    high = (height - top - bottom - rows * (specs.nrows - 1)) / specs.nrows
    figure.subplots_adjust(
        left=left / WIDTH,
        right=1 - right / WIDTH,
        top=1 - top / height,
        bottom=bottom / height,
        wspace=between / wide,
        hspace=rows / high,
    )


def _grid(
    count: int, height: float, title: str, subtitle: str, *, strip: bool = False
) -> tuple[Figure, list[tuple[Axes, Axes]]]:
    """Small panels in rows of at most five, each with a strip below it if asked for."""
    columns = min(count, 5 if count > 8 or count == 5 else 4 if count > 6 or count == 4 else 3)
    rows = math.ceil(count / columns)
    gap, head, foot = (0.8, 1.2, 0.3) if strip else (0.95, 1.15, 0.42)
    total = head + rows * height + (rows - 1) * gap + foot
    figure = _figure(total, title, subtitle)
    cells: list[tuple[Axes, Axes]] = []
    wide = min((WIDTH - 0.5 - 0.15 - 0.22 * (columns - 1)) / columns, 1.8 * height)
    for i in range(count):
        row, column = divmod(i, columns)
        x = 0.5 + column * (wide + 0.22)
        y = total - head - (row + 1) * height - row * gap
        below = 0.3 if strip else 0.0
        ax = figure.add_axes((x / WIDTH, (y + below) / total, wide / WIDTH, (height - below) / total))
        under = figure.add_axes((x / WIDTH, y / total, wide / WIDTH, 0.26 / total)) if strip else ax
        if column:
            ax.tick_params(labelleft=False)
        cells.append((ax, under))
    return figure, cells


def _head(ax: Axes, name: str, text: str, colour: str) -> None:
    """A model's name over its panel, and a line under it."""
    ax.set_title(name, color=colour, pad=15)
    ax.annotate(
        text, (0, 1), (0, 4), xycoords="axes fraction", textcoords="offset points", size=8, color=SLATE
    )


def _legend(figure: Figure, *handles: Line2D) -> None:
    """A one-line key on the right of the subtitle."""
    figure.legend(
        handles=list(handles),
        loc="upper right",
        bbox_to_anchor=(1 - 0.1 / WIDTH, 1 - 0.4 / figure.get_figheight()),
        ncols=len(handles),
        handlelength=1.4,
        handletextpad=0.5,
        columnspacing=1.2,
        borderpad=0,
    )


def _key(ax: Axes, head: str, entries: list[tuple[str, str]]) -> None:
    """Names in their colours in the lower right corner, best first."""
    step = 0.062
    for i, (text, colour) in enumerate(reversed(entries)):
        ax.text(0.97, 0.04 + step * i, text, color=colour, transform=ax.transAxes, ha="right", size=8.5)
    y = 0.04 + step * len(entries)
    ax.text(0.97, y, head, color=SLATE, transform=ax.transAxes, ha="right", size=8)


def _above(ax: Axes, x: float, text: str, align: Any, *, color: str = TEXT, data: bool = False) -> None:
    """Write over the top edge of the axes, at `x` in shares of its width or in data."""
    where = ax.get_xaxis_transform() if data else ax.transAxes
    ax.annotate(
        text, (x, 1), (0, 5), xycoords=where, textcoords="offset points", ha=align, size=8.5, color=color
    )


def _label_right(ax: Axes, ends: list[tuple[float, str, str]]) -> None:
    """Write (height, text, colour) right of the axes, pushed apart where they would overlap."""
    low, high = ax.get_ylim()
    ends = sorted(ends)
    wanted = [(value - low) / (high - low) for value, _, _ in ends]
    for at, (_, text, colour) in zip(_spread(wanted, 0.075), ends, strict=True):
        ax.text(1.02, at, text, color=colour, transform=ax.transAxes, va="center", size=8)


def _spread(wanted: list[float], gap: float) -> list[float]:
    """Move ascending positions as little as needed to be at least `gap` apart.

    Positions that collide become a block that stands evenly round its mean; none leaves [0, 1].
    """
    blocks: list[list[float]] = []
    for value in wanted:
        blocks.append([value])
        while len(blocks) > 1 and _bottom(blocks[-1], gap) - _top(blocks[-2], gap) < gap:
            last = blocks.pop()
            blocks[-1] = blocks[-1] + last
    places = [_bottom(block, gap) + gap * i for block in blocks for i in range(len(block))]
    places = [max(place, gap * i) for i, place in enumerate(places)]
    return [min(place, 1 - gap * (len(places) - 1 - i)) for i, place in enumerate(places)]


def _bottom(block: list[float], gap: float) -> float:
    return float(np.mean(block)) - gap * (len(block) - 1) / 2


def _top(block: list[float], gap: float) -> float:
    return float(np.mean(block)) + gap * (len(block) - 1) / 2


def _mean_curve(run: Run, name: str) -> tuple[Array, Array, Array]:
    """Epoch, mean and standard deviation over seeds, for as long as half of the seeds train."""
    curves = [seed["curve"] for seed in run.seeds]
    length = sorted(map(len, curves))[len(curves) // 2]
    rows = [[curve[i] for curve in curves if i < len(curve)] for i in range(length)]
    epochs = np.array([np.mean([point["epoch"] for point in row]) for row in rows])
    mean = np.array([np.mean([point[name] for point in row]) for row in rows])
    std = np.array([np.std([point[name] for point in row]) for row in rows])
    return epochs, mean, std


def _zoom(ax: Axes, runs: Sequence[Run], name: str) -> None:
    """Show the range in which the models differ; the first steps of a training may lie outside."""
    best = np.array([run.valid(name) for run in runs])
    span = max(float(np.ptp(best)), 0.004)
    if name == "auc":
        ax.set_ylim(best.min() - 1.6 * span, best.max() + 0.25 * span)
    else:
        ax.set_ylim(best.min() - 0.25 * span, best.max() + 1.6 * span)


def _epochs(ax: Axes) -> None:
    """Plain round numbers; 1, 2, 5, 10 … on a logarithmic axis."""
    ax.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    if ax.get_xscale() == "log":
        low, high = ax.get_xlim()
        ticks = [m * 10**e for e in range(-2, 4) for m in (1, 2, 5)]
        ax.set_xticks([tick for tick in ticks if low <= tick <= high])
        ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(_plain)


def _trials(run: Run) -> tuple[Array, NDArray[np.bool_], Array, float]:
    """Values, which were pruned, the best so far, and the default's value."""
    search = run.info["search"]
    sign = 1 if search["metric"] == "auc" else -1
    pruned = np.array([trial["state"] == "PRUNED" for trial in search["trials"]])
    values = np.array([_value(trial, search["metric"]) for trial in search["trials"]])
    best = np.maximum.accumulate(np.where(pruned, -np.inf, sign * values))
    return values, pruned, sign * best, float(values[0])


def _value(trial: Block, metric: str) -> float:
    """What a trial reached; for one without a value the last evaluation, infinitely bad if it has none."""
    if trial["value"] is not None:
        return float(trial["value"])
    if trial.get("curve"):
        return float(trial["curve"][-1][f"valid_{metric}"])
    return -math.inf if metric == "auc" else math.inf


def _history_limits(series: dict[str, tuple[Array, Any, Array, float]], sign: int) -> tuple[float, float]:
    """Limits that show defaults, winners and most trials; the worst may lie beyond."""
    key = np.array([[best[-1], default] for _, _, best, default in series.values()])
    values = np.concatenate([values[np.isfinite(values)] for values, *_ in series.values()])
    far, near = (key.min(), key.max()) if sign > 0 else (key.max(), key.min())
    usual = float(np.quantile(values, 0.15 if sign > 0 else 0.85))
    far = min(far, usual) if sign > 0 else max(far, usual)
    span = max(abs(near - far), 0.002)
    limits = far - sign * 0.12 * span, near + sign * 0.12 * span
    return min(limits), max(limits)


def _better(runs: Sequence[Run]) -> list[Run]:
    """The variant of each model that is better on validation data."""
    return [min(group, key=lambda run: run.rank) for _, group in groupby(runs, key=lambda run: run.model)]


def _colours(runs: Sequence[Run], other: str = OTHER) -> dict[str, str]:
    """A colour a model, in the order of the runs; `other` for those that the colours do not reach."""
    ranked = [run.model for run in sorted(_better(runs), key=lambda run: run.rank)]
    strong = [model for model in ranked if model != BASELINE][: len(COLOURS)]
    shown = [model for model in dict.fromkeys(run.model for run in runs) if model in strong]
    return dict.fromkeys(ranked, other) | {BASELINE: SLATE} | dict(zip(shown, COLOURS, strict=False))


def _ticks(top: float) -> list[float]:
    """Four or five round marks from zero to `top`."""
    step = next(s for s in (0.05, 0.1, 0.2, 0.25, 0.5) if top / s <= 4.01 or s == 0.5)
    return [round(step * i, 4) for i in range(int(top / step + 1e-9) + 1)]
