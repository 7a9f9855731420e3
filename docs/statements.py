"""FLSEST's statements and what we find, from docs/papers: `python -m docs.statements` prints the tables."""

from pathlib import Path
from typing import Any

from pipeline.common.files import read_json
from pipeline.common.names import stem
from pipeline.papers.exhibits import EXHIBITS
from pipeline.papers.report import signed
from pipeline.papers.results import optima

FOLDER = Path(__file__).parent / "papers"
# column -> the log and the settings
COLUMNS = {
    "defaults, 100K": ("movielens-100k", "default"),
    "defaults, 1M": ("movielens-1m", "default"),
    "tuned alike, 100K": ("movielens-100k", "tuned"),
    "theirs, 100K": ("movielens-100k", "published"),
}
LOGS = {"best on 100K": "movielens-100k", "best on 1M": "movielens-1m"}
Tests = list[tuple[list[str], dict[str, Any]]]  # the splits, and what was found on them


def table() -> str:
    """Return the Markdown table: differences in test AUC, bold where they can be told from 0."""
    lines = [f"| the paper says | {' | '.join(COLUMNS)} |", f"|---|{'---:|' * len(COLUMNS)}"]
    for name in (f"flsest-table-{number}" for number in range(1, 6)):
        logs = read_json(FOLDER / name / "results.json")["logs"]
        link = f" ([Table {name[-1]}](papers/{name}/README.md))"
        for claim in EXHIBITS[name].claims:
            said = f"{claim.better} > {claim.worse}"
            cells = [_cell(_found(logs, *column, vars(claim))) for column in COLUMNS.values()]
            lines.append(f"| {said}{link} | {' | '.join(cells)} |")
            link = ""
    return "\n".join(lines)


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
        exhibit, logs = EXHIBITS[name], read_json(FOLDER / name / "results.json")["logs"]
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
    print(table(), values(), sep="\n\n")
