"""The report as pictures.

Every function draws one figure from the values of report.json, the runs and `Curves`; the same values give
the same bytes. Only this file, the picture.py of explain, costs and watch, papers/pictures.py and their style
import matplotlib.
"""

import math
from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator
from numpy.typing import NDArray

from pipeline.common.text import counted
from pipeline.config.metric import NAMES, Metric, reached, sign
from pipeline.evaluate import headline, variants
from pipeline.evaluate.budget import enough
from pipeline.evaluate.compare import cliques
from pipeline.evaluate.dvc_views import mean_curve
from pipeline.evaluate.plot_style import (
    COLOURS,
    DASHED,
    GREY,
    LIGHT,
    OTHER,
    PLAIN,
    SLATE,
    TEXT,
    coloured_legend,
    colours_of,
    epoch_axis,
    grid_shape,
    name_panel,
    panels,
    round_ticks,
    styled,
    titled_figure,
)
from pipeline.evaluate.report import BASELINE, GRID, Curves, Entry, champion, is_close
from pipeline.evaluate.results import leader
from pipeline.evaluate.runs import STAGES, Block, Run, better
from pipeline.metrics import Array
from pipeline.statistics import chance

RARE = 0.1  # base rate below which probabilities have logarithmic axes
PANELS = 12  # of models in a figure with a panel for each: more do not fit on a screen
METHODS = {
    "ped_anova": "PED-ANOVA: the best trials",
    "fanova": "f-ANOVA: all trials",
}


def draw(report: Block, curves: dict[Entry, Curves], runs: Sequence[Run]) -> dict[str, Figure]:
    """Return every figure of a report by file name, models in the order of the leaderboard.

    `importances.png` only if a search has some.
    """
    auc = dict.fromkeys((run.model for run in runs), 0.0)
    for result in report["results"]:
        auc[result["model"]] = max(auc[result["model"]], result["mean"]["auc"])
    runs = sorted(runs, key=lambda run: (-auc[run.model], run.model, run.variant))
    figures = {
        "leaderboard.png": leaderboard(report),
        "learning_curves.png": learning_curves(runs),
        "roc.png": roc(report, curves, runs),
        "calibration.png": calibration(report, curves, runs),
        "tuning_history.png": tuning_history(runs),
    }
    if report.get("budget"):
        figures["budget.png"] = budget(report["budget"], runs)
    if any(run.info["search"].get("importances") for run in runs if run.variant == "tuned"):
        figures["importances.png"] = importances(runs)
    return figures


@styled
def leaderboard(report: Block) -> Figure:
    """Test AUC of every model, default and tuned, with its standard deviation over seeds."""
    found = {(r["model"], r["variant"]): r for r in report["results"]}
    models = sorted(
        {model for model, _ in found},
        key=lambda m: (max(found[m, v]["mean"]["auc"] for v in STAGES), m),
    )
    best, same = leader(report), variants.kept_default(report)
    auc, error, apart = best["mean"]["auc"], best["auc_standard_error"], headline.distance(report)
    title = f"{best['model']} ({best['variant']}) is champion"
    figure = titled_figure(
        1.0 + (0.42 if len(models) <= 15 else 0.24) * len(models),
        f"{title}; {apart}" if apart else f"{title}, with test AUC {auc:.4f}",
        f"{report['dataset']}: AUC on {report['rows']:,} test rows{_seeds_drawn(best)}\n"
        f"Bracket: standard error of the champion's AUC by {_covered(report)}, {error:.4f}"
        f"{_learnt(report, best)}\n"
        f"★ champion, by validation {_chosen(report, best)}   ≈ not distinguishable from it (5 % by "
        f"{_covered(report)}, corrected for all comparisons)",
    )
    ax = figure.add_subplot()
    ax.grid(visible=False, axis="y")
    ax.spines["left"].set_visible(False)

    def column(variant: str, y: float, text: str, **look: Any) -> None:
        """Write right of the axes, in the column of a variant."""
        offset = {"default": (62, 0), "tuned": (172, 0)}[variant]
        where = ax.get_yaxis_transform()
        ax.annotate(
            text,
            (1, y),
            offset,
            where,
            textcoords="offset points",
            ha="center",
            va="center",
            size=8.5,
            **look,
        )

    low, high = _near_the_best(report)
    low, high = min(low, auc - 1.1 * error), max(high, auc + 1.1 * error)
    for y, model in enumerate(models):
        pair = [found[model, variant]["mean"]["auc"] for variant in STAGES]
        ax.plot(pair, [y, y], color=LIGHT, linewidth=3, zorder=1)
        for variant, shift in (("default", -0.1), ("tuned", 0.1)):
            result = found[model, variant]
            only = best["variant"] if model == best["model"] else "default"  # of two that are equal
            if model in same and variant != only:
                column(variant, y, f"= {only}", color=SLATE)
                continue
            shift = 0.0 if model in same else shift
            mean, std = result["mean"]["auc"], (result["std"] or {"auc": 0.0})["auc"]
            colour, fill = (COLOURS[0], COLOURS[0]) if variant == "tuned" else (GREY, "white")
            ax.plot([mean - std, mean + std], [y + shift] * 2, color=colour, linewidth=1.4, zorder=2)
            marker, size = ("*", 14.0) if result is best else ("o", 6.5)
            if result is best:  # filled, whichever variant it is, and in a colour that no other mark has
                colour = fill = COLOURS[1]
                ends = [auc - error, auc + error]
                ax.plot(ends, [y + 0.36] * 2, "|-", color=TEXT, linewidth=1, markersize=6, zorder=2)
            shown = mean
            if mean < low:  # far behind: only where to look for it
                marker, shown = "<", low + 0.012 * (high - low)
            ax.plot(shown, y + shift, marker, color=colour, mfc=fill, markersize=size, markeredgewidth=1.5)
            spread = f" ± {std:.4f}" if result["std"] else ""
            close = any(is_close(report, found[model, v]) for v in (STAGES if model in same else [variant]))
            star = " ★" if result is best else " ≈" if close else ""
            weight = "bold" if result is best else "normal"
            column(variant, y, f"{mean:.4f}{spread}{star}", weight=weight)
    column("default", len(models) - 0.2, "○ default", color=SLATE)
    column("tuned", len(models) - 0.2, "● tuned", color=COLOURS[0])
    if report["bayes"] and report["bayes"]["auc"] <= high:
        bayes = report["bayes"]["auc"]
        ax.axvline(bayes, color=TEXT, linewidth=1, linestyle=DASHED)
        ax.text(
            bayes, len(models) - 0.2, f"true probabilities {bayes:.4f} ", ha="right", va="center", size=8.5
        )
    ax.set_xlim(low, high)
    ax.set_yticks(range(len(models)), models, size=9.5 if len(models) <= 15 else 8.5)
    ax.set_ylim(-0.6, len(models) - 0.4)
    ax.xaxis.set_major_locator(MaxNLocator(6))
    behind = sum(all(found[model, v]["mean"]["auc"] < low for v in STAGES) for model in models)
    ax.set_xlabel("test AUC" + (f" (◂ further to the left: {counted(behind, 'model')})" if behind else ""))
    return figure


@styled
def learning_curves(runs: Sequence[Run]) -> Figure:
    """Validation AUC and logloss after every evaluation, default and tuned side by side."""
    best, _ = champion(runs)
    figure = titled_figure(
        5.5,
        f"{best.model} ({best.variant}) reaches the best validation AUC, {best.valid('auc'):.4f}",
        "Validation split, mean and standard deviation over seeds; the dot is the mean of each seed's best "
        "evaluation,\nwhose weights are kept. Dashed: logloss on train rows; ▾ where it goes on below",
    )
    axes = figure.subplots(2, 2, sharex=True, sharey="row")
    colours = colours_of(runs)
    longest = max(seed["curve"][-1]["epoch"] for run in runs for seed in run.seeds)
    for row, metric in enumerate(get_args(Metric)):
        for column, variant in enumerate(STAGES):
            ax: Axes = axes[row, column]
            ends, trains = [], []
            for run in (run for run in runs if run.variant == variant):
                epochs, mean, std = mean_curve(run, f"valid_{metric}")
                colour, valid = colours[run.model], run.valid(metric)
                if colour == OTHER:
                    ax.plot(epochs, mean, color=OTHER, linewidth=1, zorder=1)
                    continue
                (line,) = ax.plot(epochs, mean, color=colour, linewidth=1.6, label=f"{run.model} {valid:.4f}")
                ax.fill_between(epochs, mean - std, mean + std, color=colour, alpha=0.15, linewidth=0)
                if metric == "logloss":
                    train = mean_curve(run, "train_logloss")[1]
                    ax.plot(epochs, train, color=colour, linewidth=0.9, linestyle=DASHED, alpha=0.8)
                    trains.append((epochs, train, colour))
                epoch = np.median([seed["best"]["epoch"] for seed in run.seeds])
                ax.plot(epoch, valid, "o", color=colour, markersize=5.5, markeredgecolor="white")
                ends.append((valid, line))
            if row == 0:
                ax.set_title(variant)
            else:
                ax.set_xlabel("epoch")
            epoch_axis(ax, longest)
            _zoom(ax, runs, metric)
            _say_below(ax, trains)
            by_height = [line for _, line in sorted(ends, key=lambda end: -end[0])]
            side, edge = ("upper", 1.0) if sign(metric) > 0 else ("lower", 0.0)
            coloured_legend(ax, by_height, loc=f"{side} left", bbox_to_anchor=(1.01, edge))
        axes[row, 0].set_ylabel(
            f"validation {NAMES[metric]}" + (", dashed: train" if metric == "logloss" else "")
        )
    return figure


@styled
def roc(report: Block, curves: dict[Entry, Curves], runs: Sequence[Run]) -> Figure:
    """ROC of each model's better variant, and its gain over the baseline."""
    auc = {(r["model"], r["variant"]): r["mean"]["auc"] for r in report["results"]}
    shown = sorted(better(runs), key=lambda run: -auc[run.model, run.variant])
    base = next((run for run in shown if run.model == BASELINE), shown[-1])
    colours = colours_of(runs)
    at = int(np.searchsorted(GRID, 0.2))
    top, bottom = (curves[run.model, run.variant].tpr[at] for run in (shown[0], base))
    title = f"At 20 % false positives {shown[0].model} finds {100 * top:.1f} % of the positives"
    if base is not shown[0]:
        title += f", {base.model} {100 * bottom:.1f} %"
    figure = titled_figure(
        3.9,
        title,
        "Test split, mean over seeds; each model with the variant that is better on validation data",
    )
    left, right = figure.subplots(1, 2)
    left.plot([0, 1], [0, 1], color=GREY, linewidth=0.9, linestyle=DASHED)
    left.text(0.62, 0.58, "random", color=SLATE, size=8, rotation=38, ha="center", va="top")
    named: list[Line2D] = []
    for run in reversed(shown):
        tpr = curves[run.model, run.variant].tpr
        gain = 100 * (tpr - curves[base.model, base.variant].tpr)
        look: Any = {"color": OTHER, "linewidth": 1, "zorder": 1}
        if colours[run.model] != OTHER:
            look = {"color": colours[run.model], "linewidth": 1.6}
        (line,) = left.plot(GRID, tpr, **look)
        right.plot(GRID, gain, **look)
        if colours[run.model] != OTHER:
            line.set_label(f"{auc[run.model, run.variant]:.4f}  {run.model} ({run.variant})")
            named.insert(0, line)
    left.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(0, 1), ylim=(0, 1))
    left.set_title("ROC")
    right.set(xlabel="false positive rate", ylabel=f"percentage points more than {base.model}", xlim=(0, 1))
    right.set_title("Gain in true positive rate")
    coloured_legend(left, named, loc="lower right", title="AUC", alignment="left", title_fontsize=8)
    return figure


@styled
def calibration(report: Block, curves: dict[Entry, Curves], runs: Sequence[Run]) -> Figure:
    """Reliability of every model over bins of equally many rows, and the distribution of its predictions."""
    ece = {(r["model"], r["variant"]): r["mean"]["ece"] for r in report["results"]}
    same, rare = variants.kept_default(report), report["base_rate"] < RARE
    models = list(dict.fromkeys(run.model for run in runs))[:PANELS]
    bins = len(next(iter(curves.values())).predicted)
    figure = titled_figure(
        3.0 * grid_shape(len(models))[0],
        _told_of_calibration(report, curves, ece),
        f"Test split: share of positives against predicted probability in {bins} bins of equally many rows, "
        f"all seeds\ntogether{_which(runs)}. Grey: 95 % of a calibrated model's points. "
        + ("Strokes: the bins; ▾ no positive in one" if rare else "Bars: where the predictions lie"),
        keys=[
            Line2D([], [], color=GREY, marker="o", mfc="white", markersize=4, label="default"),
            Line2D([], [], color=TEXT, marker="o", markersize=4, label="tuned"),
        ],
    )
    colours = colours_of(runs, other=SLATE)
    low, top, line, ticks = _probability_axis(list(curves.values()), rare=rare)
    noise = 1.96 * np.sqrt(line * (1 - line) / (report["rows"] / bins))
    for (ax, strip), model in zip(panels(figure, len(models), heights=(8, 1)), models, strict=True):
        ax.fill_between(line, np.maximum(line - noise, low), line + noise, color=LIGHT, linewidth=0)
        ax.plot(line, line, color="#B6BCC4", linewidth=0.9)
        looks: dict[str, Any] = {
            "default": {"color": GREY, "linewidth": 0.8, "mfc": "white"},
            "tuned": {"color": colours[model], "linewidth": 1.2},
        }
        text = f"ECE ○ {ece[model, 'default']:.4f}   ● {ece[model, 'tuned']:.4f}"
        if model in same:
            del looks["default"]
            text = f"ECE ○ = ● {ece[model, 'tuned']:.4f}"
        for variant, look in looks.items():
            values = curves[model, variant]
            joined: Any = {"marker": "o", "markersize": 3.6, "linestyle": "" if rare else "-"}
            above = values.observed >= low
            ax.plot(values.predicted[above], values.observed[above], **joined, **look)
            if rare:  # a line between points, many of few clicks, would only jump up and down
                none = values.predicted[~above]
                edge: Any = {"markersize": 5, "clip_on": False, "in_layout": False}
                ax.plot(none, np.full(len(none), low), "v", color=look["color"], **edge)
                half = (0, 0.5) if variant == "tuned" else (0.5, 1)
                strip.vlines(values.predicted, *half, color=look["color"], linewidth=1)
                continue
            edges = np.linspace(0, 1, len(values.histogram) + 1)
            fill: Any = {"fill": True, "alpha": 0.45} if variant == "tuned" else {"linewidth": 0.8}
            strip.stairs(values.histogram, edges, color=look["color"], **fill)
        name_panel(ax, model, text, colours[model])
        strip.set_xlabel("predicted", labelpad=1)
        for axis in (ax.xaxis, ax.yaxis, strip.xaxis):
            if rare:
                axis.axes.set(**{f"{axis.axis_name}scale": "log"})
            axis.set_ticks(ticks)
            axis.set_major_formatter(PLAIN)
            axis.set_minor_locator(NullLocator())
        ax.set(xlim=(low, top), ylim=(low, top))
        ax.tick_params(labelbottom=False)
        strip.set(xlim=(low, top), yticks=[])
        strip.grid(visible=False)
        strip.spines["left"].set_visible(False)
    return figure


@styled
def tuning_history(runs: Sequence[Run]) -> Figure:
    """Every trial of every search, with the best so far."""
    every = [run for run in runs if run.variant == "tuned"]
    tuned = every[:PANELS]
    metric = tuned[0].info["search"]["metric"]
    up = sign(metric)
    series = {run.model: _trials(run) for run in tuned}
    gains = {run.model: round(up * _gain(run), 4) for run in every}
    top = max(gains, key=lambda model: (gains[model], model))
    small = {run.model: less for run in every if (less := _too_small(run)) is not None}
    if gains[top] > 0:
        helped = f"{up * gains[top]:+.4f} validation {NAMES[metric]} against its default"
        title = f"The search helps {top} most: {helped}"
    elif small and (much := enough([run.info.get("tune", {}).get("margin", 0.0) for run in every], "error")):
        title = f"No search finds anything that is better than the default by more than {much}"
    else:
        title = "No search finds anything better than the default"
    figure = titled_figure(
        2.55 * grid_shape(len(tuned))[0],
        title,
        f"Validation {NAMES[metric]} of every trial less the default's, on one seed{_which(runs)}\n"
        "Below a name: the default's value there, and the winner less the default in the finals, all seeds",
        keys=[
            Line2D([], [], color=TEXT, linewidth=1.6, label="best so far"),
            Line2D([], [], color=TEXT, marker="o", linestyle="", alpha=0.6, markersize=4.5, label="finished"),
            Line2D([], [], color=GREY, marker="x", linestyle="", markersize=4.5, label="pruned"),
            Line2D([], [], color=TEXT, marker="D", mfc="white", linestyle="", markersize=5, label="default"),
        ],
    )
    colours = colours_of(runs, other=SLATE)
    low, high = _history_limits(series)
    longest = max(len(values) for values, *_ in series.values())
    for (ax,), (model, (values, pruned, best, default)) in zip(
        panels(figure, len(tuned)), series.items(), strict=True
    ):
        start, default = default, 0.0
        colour, number = colours[model], np.arange(len(values))
        inside = (low <= values) & (values <= high)
        ax.axhline(default, color=GREY, linewidth=0.8, linestyle=DASHED)
        level = np.clip(np.append(best, best[-1]), low, high)
        ax.step(np.append(number, len(number) - 0.4), level, where="post", color=colour, linewidth=1.6)
        for chosen, height, marker, look in (
            (inside & ~pruned, values, "o", {"color": colour, "alpha": 0.55, "markeredgewidth": 0}),
            (inside & pruned, values, "x", {"color": GREY}),
            (values < low, np.full(len(values), low), "v", {"color": GREY}),
            (values > high, np.full(len(values), high), "^", {"color": GREY}),
        ):
            ax.plot(
                number[chosen], height[chosen], marker, markersize=4.5, clip_on=False, in_layout=False, **look
            )
        won = int(np.argmax(up * np.where(pruned, -up * np.inf, values)))
        ax.plot(won, values[won], "o", color=colour, markersize=7, markeredgecolor="white")
        ax.plot(0, default, "D", color=TEXT, mfc="white", markersize=5)
        gain = "no gain"
        if gains[model] > 0:
            gain = f"{up * gains[model]:+.4f}"
        elif model in small:
            gain = f"{small[model]:+.4f} is too little"
        name_panel(ax, model, f"{start:.4f}, {gain}", colour)
        ax.set(xlim=(-0.8, longest - 0.2), ylim=(low, high))
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        ax.yaxis.set_major_locator(MaxNLocator(4))
        ax.set_xlabel("trial", labelpad=1)
    return figure


@styled
def budget(searches: Sequence[Block], runs: Sequence[Run]) -> Figure:
    """What n trials of each search are expected to find, and what all found for the rows they trained on."""
    metric = searches[0]["metric"]
    word = NAMES[metric]
    same = [search for search in searches if search["metric"] == metric and search["expected"]]
    top = max(same, key=lambda search: (sign(metric) * search["expected"][-1], search["model"]))
    figure = titled_figure(
        3.6,
        f"{top['model']} has the best expected validation {word} after {len(top['expected'])} trials, "
        f"{top['expected'][-1]:.4f}",
        "Left: expected best of n trials drawn from those of the search (Dodge et al. 2019), one seed. "
        "Right: best complete trial so far",
    )
    left, right = figure.subplots(1, 2, sharey=True)
    colours, lines, shown = colours_of(runs), [], []
    for search in same:
        colour, expected = colours[search["model"]], search["expected"]
        look: Any = {"color": colour, "linewidth": 1 if colour == OTHER else 1.6, "zorder": 2}
        if colour == OTHER:
            look["zorder"] = 1
        number = np.arange(1, len(expected) + 1)
        (line,) = left.plot(number, expected, label=f"{search['model']} {expected[-1]:.4f}", **look)
        found = [(rows, best) for rows, best in zip(search["rows"], search["best"], strict=True) if best]
        if found:
            rows, best = (np.array(column) for column in zip(*found, strict=True))
            right.step(rows / 1e6, best, where="post", **look)
            shown += [best[0], best[-1]]
        shown += [expected[len(expected) // 4], expected[-1]]
        if colour != OTHER:
            lines.append((expected[-1], line))
    margin = 0.1 * max(float(np.ptp(shown)), 0.004)
    left.set_ylim(min(shown) - margin, max(shown) + margin)
    left.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    left.set(xlabel="trials", ylabel=f"validation {word}")
    right.set(xlabel="million train rows seen by the trials")
    right.xaxis.set_major_locator(MaxNLocator(5))
    right.xaxis.set_major_formatter(PLAIN)
    by_height = [line for _, line in sorted(lines, key=lambda end: -end[0])]
    coloured_legend(right, by_height, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    return figure


@styled
def importances(runs: Sequence[Run]) -> Figure:
    """Share of each hyperparameter in the variance of a search, by two methods."""
    found = {run.model: run.info["search"].get("importances") or {} for run in runs if run.variant == "tuned"}
    methods = [m for m in METHODS if any(m in value for value in found.values())]
    models = [model for model, value in found.items() if value][:PANELS]
    shares_of: dict[str, list[float]] = {}
    for value in found.values():
        for name, share in value.get(methods[0], {}).items():
            shares_of.setdefault(name, []).append(share)
    names = sorted(shares_of, key=lambda name: (-float(np.mean(shares_of[name])), name))
    tall = len(models) > 7  # then a row is a model, else a hyperparameter
    down, across = (models, names) if tall else (names, models)
    figure = titled_figure(
        0.8 + 0.3 * len(down) + (0.04 * max(map(len, names)) if tall else 0),
        _most_important(names, found),
        "Share of each hyperparameter in the variance of the validation metric over the trials, by model"
        f"{_which(runs)}{_enough(runs)}",
    )
    axes = figure.subplots(1, len(methods), squeeze=False).ravel()
    for ax, method in zip(axes, methods, strict=True):
        shares = np.array([[found[m].get(method, {}).get(name, np.nan) for m in models] for name in names])
        _heatmap(ax, shares.T if tall else shares, down if ax is axes[0] else [""] * len(down), across)
        if tall:
            ax.set_xticks(range(len(across)), across, rotation=35, ha="left", rotation_mode="anchor")
        ax.set_title(METHODS[method], pad=8)
    return figure


@styled
def critical_difference(ranks: Block) -> Figure:
    """Mean ranks of models over logs; a bar joins those that do not differ (Demsar 2006).

    Args:
        ranks: of `compare.join`.
    """
    models, mean, distance = ranks["models"], ranks["mean_ranks"], ranks["critical_difference"]
    bars = cliques(mean, distance)
    half = (len(models) + 1) // 2
    top, step = 0.5 + 0.22 * len(bars), 0.36
    depth = top + step * half
    figure = titled_figure(
        0.75 * depth + 0.75,
        f"{models[0]} ranks best on average over {len(ranks['logs'])} logs",
        f"Mean rank by test AUC, best on the left; bars join models whose ranks are less than {distance:.2f} "
        f"apart (Nemenyi, 5 %);\nFriedman's test that all are equal: p = {ranks['friedman_p']:.2g}",
    )
    ax = figure.add_subplot()
    ax.set_axis_off()
    low, high = 1, len(models)
    pad = 0.24 * (high - low)
    ax.set(xlim=(low - pad, high + pad), ylim=(-depth - 0.1, 1.2))
    ax.plot([low, high], [0, 0], color=TEXT, linewidth=1)
    for tick in range(low, high + 1, max(1, (high - low) // 10)):
        ax.plot([tick, tick], [0, 0.1], color=TEXT, linewidth=1)
        ax.text(tick, 0.16, str(tick), ha="center", va="bottom", size=8, color=SLATE)
    end = min(low + distance, high)
    ax.plot([low, end], [0.75, 0.75], color=SLATE, linewidth=2)
    more = "" if end == low + distance else ", more than all ranks"
    ax.text(low, 0.84, f"critical difference {distance:.2f}{more}", va="bottom", size=8.5, color=SLATE)
    for i, (first, last) in enumerate(bars):
        ax.plot([mean[first], mean[last]], [-0.3 - 0.22 * i] * 2, color=COLOURS[0], linewidth=3)
    for i, (model, rank) in enumerate(zip(models, mean, strict=True)):
        left = i < half
        y = -top - step * (i if left else len(models) - 1 - i)
        edge, side = (low - 0.05 * pad, "right") if left else (high + 0.05 * pad, "left")
        ax.plot([rank, rank, edge], [0, y, y], color=GREY, linewidth=0.9, zorder=1)
        text = f"{model}  {rank:.2f} " if left else f" {rank:.2f}  {model}"
        ax.text(edge, y, text, ha=side, va="center", size=9)
    return figure


def _most_important(names: Sequence[str], found: dict[str, Block]) -> str:
    """Name what matters most on average, by each method if they disagree."""
    firsts = {}
    for method, words in METHODS.items():
        shares = {
            name: [value[method][name] for value in found.values() if name in value.get(method, {})]
            for name in names
        }
        if any(shares.values()):
            top = max(names, key=lambda name: float(np.mean(shares[name])) if shares[name] else -1.0)
            firsts[words.partition(":")[0]] = top
    if len(set(firsts.values())) == 1:
        return f"{names[0]} matters most on average"
    return "Most important: " + ", ".join(f"{name} by {method}" for method, name in firsts.items())


def _enough(runs: Sequence[Run]) -> str:
    """A warning where the shares come from few trials."""
    counts = [
        sum(trial["state"] == "COMPLETE" for trial in run.info["search"]["trials"])
        for run in runs
        if run.variant == "tuned"
    ]
    low, high = min(counts), max(counts)
    count = f"{low} to {high}" if low < high else str(low)
    return f".\n{count} complete trials each" + (": no more than an indication" if low < 20 else "")


def _which(runs: Sequence[Run]) -> str:
    """Say that not all models have a panel."""
    count = len({run.model for run in runs})
    return f"; the {PANELS} best of {count} models" if count > PANELS else ""


def _told_of_calibration(report: Block, curves: dict[Entry, Curves], ece: dict[Entry, float]) -> str:
    """Say which row is off by more than chance explains: smaller differences between them are noise."""
    named = variants.named(report["results"], variants.kept_default(report))
    names = {(r["model"], r["variant"]): f"{r['model']} ({name})" for r, name in named}
    shown = [entry for entry in ece if entry in names]
    most = {entry: chance.calibration_error(curves[entry].predicted, report["rows"]).most for entry in shown}
    off = [entry for entry in shown if ece[entry] > most[entry]]
    worst = max(off or shown, key=lambda entry: (ece[entry], entry))
    error, by_chance = f"{100 * ece[worst]:.2f} points", f"{100 * most[worst]:.2f}"
    if not off:
        return f"No model is off by more than chance explains: at most {error} on average"
    told = f"off by more than chance explains: {error} on average, by chance below {by_chance}"
    if len(off) == 1:
        return f"{names[worst]} is {told}"
    return f"{names[worst]} and {len(off) - 1} more are {told} for the first"


def _probability_axis(curves: Sequence[Curves], *, rare: bool) -> tuple[float, float, Array, list[float]]:
    """Return lowest and highest probability to show, a line between them, and round marks.

    Args:
        rare: on a logarithmic axis, since nearly all points would crowd in a corner of a linear one.
    """
    values = np.concatenate([each for curve in curves for each in (curve.predicted, curve.observed)])
    if not rare:
        top = min(1.0, math.ceil(values.max() * 10 + 0.3) / 10)
        return 0.0, top, np.linspace(0, top, 101), round_ticks(top)
    low, top = float(values[values > 0].min()) / 1.4, min(1.0, 1.4 * float(values.max()))
    steps = (1, 3) if top / low < 100 else (1,)
    ticks = [step * 10.0**power for power in range(-9, 1) for step in steps]
    return low, top, np.geomspace(low, top, 101), [tick for tick in ticks if low <= tick <= top]


def _chosen(report: Block, best: Block) -> str:
    metric = report["champion"]["metric"]
    return f"{NAMES[metric]} {best[f'valid_{metric}']:.4f}"


def _learnt(report: Block, best: Block) -> str:
    """Say how much of what generated data teach the champion has learnt."""
    return f"; it has learnt {100 * best['learned']:.1f} % of what can be" if report["bayes"] else ""


def _seeds_drawn(best: Block) -> str:
    """Say what the bars are; one seed has none."""
    count = len(best["seeds"])
    return f", mean over {count} seeds; bars: standard deviation over these alone" if count > 1 else ""


def _near_the_best(report: Block) -> tuple[float, float]:
    """Limits that show the better half of the models well; those far behind would flatten the rest."""
    values = sorted(result["mean"]["auc"] for result in report["results"])
    spread = max((r["std"] or {"auc": 0.0})["auc"] for r in report["results"])
    best, half = values[-1], values[len(values) // 2]
    low = max(values[0] - spread, best - max(5 * (best - half), 0.006, 4 * spread))
    high = best + max(spread, 0.05 * (best - low))
    if report["bayes"] and report["bayes"]["auc"] < best + 1.5 * (best - low):
        high = max(high, report["bayes"]["auc"])
    margin = 0.04 * (high - low) or 0.001  # of one model whose search kept the default
    return low - margin, high + margin


def _covered(report: Block) -> str:
    """What the tests of a report cover, in a few words."""
    rows = "test rows" if report["clusters"] is None else "test users"
    return f"{rows} and seeds" if len(report["results"][0]["seeds"]) > 1 else rows


def _heatmap(ax: Axes, shares: Array, down: Sequence[str], across: Sequence[str]) -> None:
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


def _zoom(ax: Axes, runs: Sequence[Run], metric: str) -> None:
    """Show the range in which the models differ; the first steps of a training may lie outside."""
    best = np.array([run.valid(metric) for run in runs])
    span = max(float(np.ptp(best)), 0.004)
    below, above = (0.4, 0.12) if metric == "auc" else (0.3, 0.5)
    low = best.min() - below * span
    if metric == "logloss":  # of train rows it falls further, but what over-fits must not flatten the rest
        lowest = min(float(mean_curve(run, "train_logloss")[1].min()) for run in runs)
        low = min(low, max(lowest - 0.1 * span, best.min() - span))
    ax.set_ylim(low, best.max() + above * span)


def _say_below(ax: Axes, lines: Sequence[tuple[Array, Array, str]]) -> None:
    """Mark where a line leaves the axes below: it goes on, and does not end there."""
    low, high = ax.get_ylim()
    for x, y, colour in lines:
        outside = np.flatnonzero(y < low)
        if len(outside):
            at = x[outside[0]]
            ax.plot(at, low + 0.015 * (high - low), "v", color=colour, markersize=4.5)


def _trials(run: Run) -> tuple[Array, NDArray[np.bool_], Array, float]:
    """Values, which were pruned, the best so far, and the default's value, which the others are less of."""
    search = run.info["search"]
    up = sign(search["metric"])
    pruned = np.array([trial["state"] == "PRUNED" for trial in search["trials"]])
    values = np.array([_value(trial, search["metric"]) for trial in search["trials"]])
    best = np.maximum.accumulate(np.where(pruned, -np.inf, up * values))
    default = float(values[0])
    return values - default, pruned, up * best - default, default


def _gain(run: Run) -> float:
    """What the winner is above the default in the finals; where they cannot tell, on the trials' seed."""
    search = run.info["search"]
    if found := search.get("against_default"):
        return float(found["difference"]) if found["trial"] == search["best"] else 0.0
    _, _, best, _ = _trials(run)
    return float(best[-1])


def _too_small(run: Run) -> float | None:
    """By what a better finalist differs from the default, which won all the same; None without one."""
    search = run.info["search"]
    found = search.get("against_default")
    if found is None or search["best"] or sign(search["metric"]) * found["difference"] <= 0:
        return None
    return float(found["difference"])


def _value(trial: Block, metric: str) -> float:
    """What a trial reached; without any evaluation the worst value there is."""
    found = reached(trial["value"], trial.get("curve", []), metric)
    return -sign(metric) * math.inf if found is None else float(found)


def _history_limits(series: dict[str, tuple[Array, Any, Array, float]]) -> tuple[float, float]:
    """Limits that show every default, every winner and 70 % of the trials; the worst may lie outside."""
    ends = [0.0, *(float(best[-1]) for _, _, best, _ in series.values())]
    values = np.concatenate([values[np.isfinite(values)] for values, *_ in series.values()])
    low, high = (float(value) for value in np.quantile(values, (0.15, 0.85)))
    low, high = min(low, *ends), max(high, *ends)
    margin = 0.12 * max(high - low, 0.002)
    return low - margin, high + margin
