"""FLSEST's statements and what we find, from docs/papers.

`python -m docs.statements` prints the tables of docs/papers.md and draws its picture.
"""

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MultipleLocator

from pipeline.common.files import read_json
from pipeline.common.names import stem
from pipeline.evaluate.plot_style import COLOURS, GREY, LIGHT, PLAIN, SLATE, save, styled, titled_figure
from pipeline.papers.exhibit import Claim
from pipeline.papers.exhibits import EXHIBITS
from pipeline.papers.report import OURS, signed
from pipeline.papers.results import optima

FOLDER = Path(__file__).parent / "papers"
PICTURE = Path(__file__).parent / "statements.png"
TABLES = tuple(f"flsest-table-{number}" for number in range(1, 6))
DRAWN = {"MovieLens-100K, five splits": "defaults, 100K", "MovieLens-1M, one split": "defaults, 1M"}
SHOWN = -0.0145, 0.0195  # a difference beyond is written at the edge
SIGNIFICANT = {1: COLOURS[2], 0: SLATE, -1: COLOURS[1]}
# column -> the log and the settings
COLUMNS = {
    "defaults, 100K": ("movielens-100k", "default"),
    "defaults, 1M": ("movielens-1m", "default"),
    "tuned alike, 100K": ("movielens-100k", "tuned"),
    "theirs, 100K": ("movielens-100k", "published"),
}
LOGS = {"best on 100K": "movielens-100k", "best on 1M": "movielens-1m"}
PUBLISHED: dict[str, Any] = {"marker": "D", "markerfacecolor": "white", "color": GREY}
Tests = list[tuple[list[str], dict[str, Any]]]  # the splits, and what was found on them


def table() -> str:
    """Return the Markdown table: differences in test AUC, bold where they can be told from 0."""
    lines = [f"| the paper says | {' | '.join(COLUMNS)} |", f"|---|{'---:|' * len(COLUMNS)}"]
    for name in TABLES:
        logs = _logs(name)
        link = f" ([Table {name[-1]}](papers/{name}/README.md))"
        for claim in EXHIBITS[name].claims:
            said = _said(name, claim)
            cells = [_cell(_found(logs, *column, vars(claim))) for column in COLUMNS.values()]
            lines.append(f"| {said}{link} | {' | '.join(cells)} |")
            link = ""
    return "\n".join(lines)


def _logs(name: str) -> list[dict[str, Any]]:
    logs: list[dict[str, Any]] = read_json(FOLDER / name / "results.json")["logs"]
    return logs


@styled
def picture() -> Figure:
    """Each statement's difference at our defaults with its interval, beside the published one."""
    claims = [(name, claim) for name in TABLES for claim in EXHIBITS[name].claims]
    logs = {name: _logs(name) for name in TABLES}
    names = {1: "holds", 0: "not distinguishable", -1: "the reverse"}
    keys = [Line2D([], [], marker="o", linestyle="-", color=SIGNIFICANT[v], label=names[v]) for v in names]
    keys += [Line2D([], [], linestyle="", label="in the paper", **PUBLISHED)]
    figure = titled_figure(
        0.7 + 0.21 * len(claims),
        "What FLSEST's tables say, and what equal conditions give",
        "Difference in test AUC at our defaults,\n"
        f"with its own 95 % interval; colours after Holm's correction. {OURS} ours, not the paper's",
        keys,
    )
    axes = figure.subplots(1, len(DRAWN), sharey=True)
    for ax, (title, column) in zip(axes, DRAWN.items(), strict=True):
        ax.set_title(title)
        ax.grid(visible=False, axis="y")
        ax.axvline(0, color=SLATE, linewidth=0.9)
        for place, (name, claim) in enumerate(claims):
            ax.axhline(place, color=LIGHT, linewidth=0.7, zorder=0)
            for _, test in _found(logs[name], *COLUMNS[column], vars(claim)):
                _drawn(ax, place, test)
        ax.set_xlim(*SHOWN)
        ax.xaxis.set_major_locator(MultipleLocator(0.005))
        ax.xaxis.set_major_formatter(PLAIN)
        ax.set_xlabel("AUC of the first less that of the second")
    axes[0].set_yticks(range(len(claims)), [_label(*each) for each in claims])
    axes[0].set_ylim(len(claims) - 0.4, -0.6)
    return figure


def _label(name: str, claim: Claim) -> str:
    first = EXHIBITS[name].claims[0] == claim
    return f"{f'Table {name[-1]}:  ' if first else ''}{_said(name, claim)}"


def _said(name: str, claim: Claim) -> str:
    """Return a statement, marked where it is not the paper's."""
    return f"{claim.better} > {claim.worse}{f' {OURS}' if EXHIBITS[name].is_ours(claim) else ''}"


def _drawn(ax: Axes, place: int, test: dict[str, Any]) -> None:
    colour = SIGNIFICANT[test["verdict"]]
    if test["published"] is not None:
        ax.plot([test["published"]], [place], linestyle="", markersize=4.5, **PUBLISHED)
    if test["difference"] > SHOWN[1]:
        words = f"{signed(test['difference'])} \N{RIGHTWARDS ARROW}"
        ax.text(
            SHOWN[1], place, words, color=colour, ha="right", va="center", size=8, backgroundcolor="white"
        )
        return
    assert SHOWN[0] < test["low"] < test["high"] < SHOWN[1], (test, "lies outside the picture: widen SHOWN")
    ax.plot([test["low"], test["high"]], [place, place], color=colour, linewidth=1.4, alpha=0.7)
    ax.plot([test["difference"]], [place], marker="o", markersize=5, color=colour)


def models() -> str:
    """Return the Markdown table of FLSEST's Table 1: each model's test AUC, in the paper and here."""
    exhibit, logs = EXHIBITS["flsest-table-1"], _logs("flsest-table-1")
    columns = [COLUMNS[column] for column in ("defaults, 100K", "defaults, 1M", "theirs, 100K")]
    heads = ("paper, 100K", "defaults, 100K", "paper, 1M", "defaults, 1M", "their settings, 100K (s1)")
    lines = [f"| model | {' | '.join(heads)} |", f"|---|{'---:|' * len(heads)}"]
    for row in exhibit.rows:
        ours = [_auc(logs, *column, row.label) for column in columns]
        paper = [f"{row.published[source].auc:.4f}"[1:] for source in ("movielens-100k", "movielens-1m")]
        lines.append(f"| {row.label} | {paper[0]} | {ours[0]} | {paper[1]} | {ours[1]} | {ours[2]} |")
    return "\n".join(lines)


def _auc(logs: list[dict[str, Any]], log: str, condition: str, label: str) -> str:
    """Return a model's test AUC on a log, of the table that has the most splits."""
    found = [
        (len(each["splits"]), row["auc"])
        for each in logs
        for row in each["rows"]
        if stem(each["log"]) == log and (row["condition"], row["model"]) == (condition, label)
    ]
    return f"{max(found)[1]:.4f}"[1:] if found else "-"


def _found(logs: list[dict[str, Any]], log: str, condition: str, claim: dict[str, str]) -> Tests:
    """Return the tests of a claim on a log: over splits, or one on each of them."""
    asked = {**claim, "condition": condition}.items()
    return [
        (each["splits"], test)
        for each in logs
        for test in each["claims"]
        if stem(each["log"]) == log and asked <= test.items()
    ]


def _cell(tests: Tests) -> str:
    """Return the differences; on which splits, where that is not the same for the whole column."""
    cells = []
    for splits, test in tests:
        words = signed(test["difference"]).replace("0.", ".", 1)
        where = splits[0].rpartition("-")[2] if len(splits) == 1 else f"{len(splits)} splits"
        told = f" ({where})" if test["condition"] == "tuned" else ""
        cells.append((f"**{words}**" if test["verdict"] else words) + told)
    return ", ".join(cells)


def values() -> str:
    """Return the Markdown table of the figures: the paper's best value of an option beside those chosen here.

    In brackets the test AUC of the paper's value less that of ours.
    """
    lines = [f"| | | in the paper | {' | '.join(LOGS)} |", f"|---|---|---:|{'---:|' * len(LOGS)}"]
    for name in (f"flsest-figure-{number}" for number in range(5, 10)):
        exhibit, logs = EXHIBITS[name], _logs(name)
        assert exhibit.sweep is not None
        best = "-" if exhibit.sweep.best is None else exhibit.sweep.names[exhibit.sweep.best]
        what = f"[{exhibit.title.partition(' of ')[0]}](papers/{name}/README.md)"
        for row in exhibit.rows:
            cells = [
                ", ".join(
                    _chosen(test)
                    for each in logs
                    if stem(each["log"]) == log
                    for test in optima(exhibit, each)
                    if (test["model"], test["condition"]) == (row.label, "default")
                )
                for log in LOGS.values()
            ]
            lines.append(f"| {what} | {row.label} | {best} | {' | '.join(cells)} |")
            what = ""
    return "\n".join(lines)


def _chosen(test: dict[str, Any]) -> str:
    if test["chosen"] == test.get("paper", test["chosen"]):
        return str(test["chosen"])
    words = signed(test["difference"]).replace("0.", ".", 1)
    return f"{test['chosen']} ({f'**{words}**' if test.get('verdict') else words})"


if __name__ == "__main__":
    print(models(), table(), values(), sep="\n\n")
    save(picture(), PICTURE)
