"""What mkdocs does to the pages: links to files of the repository become names, the reference is written."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "pipeline"
# what somebody calls in Python, in the order of its page; of a folder every file
CALLED = ("scoring", "metrics.py", "schema.py", "data", "models", "layers", "train/loop.py")
LINK = re.compile(r"\[([^\]]+)\]\(\.\./(?!docs/)([^)]+)\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Show a link to a file outside docs/ as its name: the site has only docs/."""
    return LINK.sub(lambda link: link[1] if link[1].startswith("`") else f"`{link[1]}`", markdown)


def on_files(files: Any, config: Any) -> Any:
    """Add the reference."""
    files.append(File.generated(config, "reference.md", content=reference()))
    return files


def reference() -> str:
    """Return signatures and docstrings of what is public in `CALLED`, read without importing anything."""
    parts = ["# Reference\n\nFrom the docstrings of the library; `pipeline/` has the rest.\n"]
    for name in CALLED:
        path = LIBRARY / name
        for file in sorted(path.glob("*.py")) if path.is_dir() else [path]:
            parts += _module(file)
    return "\n".join(parts)


def _module(path: Path) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    name = path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
    parts = [part for node in tree.body for part in _definition(node)]
    text = ast.get_docstring(tree)
    return [f"## {name}\n", f"```text\n{text}\n```\n", *parts] if text and parts else []


def _definition(node: ast.stmt, indent: str = "") -> Iterator[str]:
    if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
        return
    text = ast.get_docstring(node)
    if not text:
        return
    if isinstance(node, ast.FunctionDef):
        returned = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        head = f"{indent}{node.name}({ast.unparse(node.args)}){returned}"
    else:
        head = f"class {node.name}({', '.join(map(ast.unparse, node.bases))})"
    yield f"```python\n{head}\n```\n\n```text\n{text}\n```\n"
    for inner in node.body if isinstance(node, ast.ClassDef) else ():
        yield from _definition(inner, f"{node.name}.")
