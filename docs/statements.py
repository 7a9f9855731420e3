"""FLSEST's statements and what we find, from docs/papers: `python -m docs.statements` prints the table."""

from pathlib import Path
from typing import Any

from pipeline.common.files import read_json
from pipeline.papers.exhibits import EXHIBITS
from pipeline.papers.results import stem

FOLDER = Path(__file__).parent / "papers"
# column -> the log and the settings
COLUMNS = {
    "defaults, 100K": ("movielens-100k", "default"),
    "defaults, 1M": ("movielens-1m", "default"),
    "tuned, 100K": ("movielens-100k", "tuned"),
    "theirs, s1": ("movielens-100k", "published"),
}


def table() -> str:
    """Return the Markdown table: differences in test AUC, bold where they can be told from 0."""
    lines = [f"| the paper says | {' | '.join(COLUMNS)} |", f"|---|{'---:|' * len(COLUMNS)}"]
    for name in (f"flsest-table-{number}" for number in range(1, 6)):
        found = _claims(name)
        link = f" ([Table {name[-1]}](papers/{name}/README.md))"
        for claim in EXHIBITS[name].claims:
            said = f"{claim.better} > {claim.worse}"
            cells = [_cell(found.get((*column, said))) for column in COLUMNS.values()]
            lines.append(f"| {said}{link} | {' | '.join(cells)} |")
            link = ""
    return "\n".join(lines)


def _claims(name: str) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Return the tests of a table by log, settings and statement."""
    return {
        (stem(log["log"]), test["condition"], f"{test['better']} > {test['worse']}"): test
        for log in read_json(FOLDER / name / "results.json")["logs"]
        for test in log["claims"]
    }


def _cell(test: dict[str, Any] | None) -> str:
    if test is None:
        return ""
    words = f"{test['difference']:+.4f}".replace("-0.0000", "+0.0000").replace("0.", ".")
    return f"**{words}**" if test["verdict"] else words


if __name__ == "__main__":
    print(table())
