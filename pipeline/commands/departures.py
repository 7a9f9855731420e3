"""docs/departures.md, from the docstrings of the models."""

import ast
import re
from pathlib import Path

MODELS = Path(__file__).parents[1] / "models"


def docstring(name: str) -> str:
    """Return the docstring of a model's file, which is not imported."""
    return ast.get_docstring(ast.parse((MODELS / f"{name}.py").read_text(encoding="utf-8"))) or ""


def table() -> str:
    """Return a Markdown table of all models, their papers and what differs from them, by their docstrings."""
    from pipeline.models import CLASSES

    lines = [
        "# Where the models differ from their papers\n",
        "Written by `python -m pipeline departures` from the docstrings of the models; change them there.\n",
        "| model | paper | differs from it |",
        "|---|---|---|",
    ]
    for name in CLASSES:
        text, cells = docstring(name), []
        for head in ("Paper", "Differs from the paper"):
            found = re.search(rf"^{head}: (.*?)(?=\n\n|\Z)", text, re.DOTALL | re.MULTILINE)
            assert found, f"pipeline/models/{name}.py: its docstring lacks `{head}:`"
            cells.append(" ".join(found[1].split()).replace("|", r"\|").replace("*", r"\*"))
        lines.append(f"| [`{name}`](../pipeline/models/{name}.py) | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
