"""Digest of the code that decides the bits of a training: its own source and everything of ours it imports.

Comments, layout, docstrings, annotations of functions, error messages and prints do not count: they decide
no bit. So a reworded message retrains nothing; another equation, default or order of operations does.
"""

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from pipeline.common.files import digest

ROOT = Path(__file__).parents[2]
# Messages and file handling: the result of a training that ends well does not depend on them.
LEFT_OUT = ("pipeline/common/", "pipeline/train/progress.py")
_PRINTS = ("print", "warnings.warn", "tqdm.write")


@cache
def code_digest(*files: Path, root: Path = ROOT) -> str:
    """Return 16 hexadecimal digits that change with what these files, and all they import, compute."""
    return digest(closure(*files, root=root))


def closure(*files: Path, root: Path = ROOT) -> dict[str, str]:
    """Return these files and all of ours that they import, each with the digest of what it computes."""
    done: dict[str, str] = {}
    waiting = list(files)
    while waiting:
        path = waiting.pop()
        name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()
        if name in done or name.startswith(LEFT_OUT):
            continue
        tree = _Computation().visit(ast.parse(path.read_bytes()))
        done[name] = hashlib.sha256(ast.dump(tree).encode()).hexdigest()
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
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "accelerated":
            names = [f"pipeline.kernels.{ast.literal_eval(node.args[0])}"]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == "pipeline")


class _Computation(ast.NodeTransformer):
    """Removes from a syntax tree what a training's result cannot depend on."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        """Docstrings and prints."""
        value = node.value
        prints = isinstance(value, ast.Call) and ast.unparse(value.func) in _PRINTS
        return None if prints or isinstance(value, ast.Constant) else self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> ast.AST | None:
        """The list of all models: a line more is no other training of the rest; `cache` knows the class."""
        return None if ast.unparse(node.targets[0]) == "CLASSES" else self.generic_visit(node)

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        """What is imported for types alone."""
        self.generic_visit(node)
        return node.orelse if ast.unparse(node.test) == "TYPE_CHECKING" else node

    def visit_Pass(self, _node: ast.Pass) -> None:
        """`pass`: a docstring in its place counts no more than it does."""

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        """The type of an error counts (a diverged training is a result), its message does not."""
        raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        return ast.Raise(exc=raised, cause=None)

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        """The message of an assertion."""
        node.msg = None
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        """Types of arguments."""
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """Types of results."""
        node.returns = None
        return self.generic_visit(node)
