"""What a piece of the library runs: its own source and all that it imports, as one digest."""

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from pipeline.files import digest

ROOT = Path(__file__).parents[1]
# The table of models imports them all; which of them runs is told by its own file.
TABLE = "pipeline/models/__init__.py"


@cache
def code_digest(*files: Path, root: Path = ROOT) -> str:
    """Return 16 hexadecimal digits that name what these files and everything of ours they import do."""
    return digest(closure(*files, root=root))


def closure(*files: Path, root: Path = ROOT) -> dict[str, str]:
    """Return these files and all of ours that they import, each with a digest of what it does.

    Comments, layout and docstrings do nothing, so they do not count.
    """
    done: dict[str, str] = {}
    waiting = list(files)
    while waiting:
        path = waiting.pop()
        name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()
        if name in done or name == TABLE:
            continue
        tree = ast.parse(path.read_bytes())
        done[name] = hashlib.sha256(_acts(tree).encode()).hexdigest()
        for module in _imports(tree):
            parts = module.split(".")
            for end in range(1, len(parts) + 1):
                stem = root.joinpath(*parts[:end])
                waiting += [file for file in (stem.with_suffix(".py"), stem / "__init__.py") if file.exists()]
    return done


def _imports(tree: ast.Module) -> Iterator[str]:
    """Yield the dotted names of ours that a file imports, anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == "pipeline")


def _acts(tree: ast.Module) -> str:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:]
    return ast.dump(tree)
