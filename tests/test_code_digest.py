"""The digest of a training's code: what is computed counts, words do not."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipeline.train import cache
from pipeline.train.code_digest import LEFT_OUT, ROOT, closure, code_digest

HELD = "m.__file__ for n, m in sys.modules.items() if n[:8] == 'pipeline'"

FILES = {
    "pipeline/__init__.py": '"""The library."""\n',
    "pipeline/go.py": "import json\nfrom pipeline import near\nfrom pipeline.models import MODELS\n",
    "pipeline/near.py": "def f():\n    from pipeline.sub.deep import x\n    return x\n",
    "pipeline/sub/__init__.py": "y = 1\n",
    "pipeline/sub/deep.py": '"""Deep."""\n\nx = 1  # one\n',
    "pipeline/far.py": "x = 1\n",
    "pipeline/models/__init__.py": 'CLASSES = {"a": "A", "b": "B"}\n',
    "pipeline/models/a.py": "class A:\n    pass\n",
    "pipeline/models/b.py": "class B:\n    pass\n",
}


@pytest.fixture(name="toy")
def _toy(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def of(root: Path) -> str:
    code_digest.cache_clear()
    return code_digest(root / "pipeline/go.py", root / "pipeline/models/a.py", root=root)


def test_imports_are_followed_wherever_they_stand_but_for_the_other_models(toy: Path) -> None:
    found = closure(toy / "pipeline/go.py", toy / "pipeline/models/a.py", root=toy)
    assert FILES.keys() - found.keys() == {
        "pipeline/far.py",
        "pipeline/models/b.py",
    }


def test_what_is_imported_for_types_alone_does_nothing(toy: Path) -> None:
    before, path = of(toy), toy / "pipeline/near.py"
    words = "from typing import TYPE_CHECKING\n"
    path.write_text(f"{words}{FILES['pipeline/near.py']}")
    named = of(toy)
    path.write_text(f"{words}if TYPE_CHECKING:\n    from pipeline import far\n{FILES['pipeline/near.py']}")
    assert of(toy) == named != before
    assert "pipeline/far.py" not in closure(path, root=toy)


@pytest.mark.parametrize("name", FILES)
def test_a_change_of_what_runs_is_another_digest(toy: Path, name: str) -> None:
    before = of(toy)
    path = toy / name
    path.write_text(path.read_text() + "z = 1\n")
    runs_it = name in closure(toy / "pipeline/go.py", toy / "pipeline/models/a.py", root=toy)
    assert (of(toy) != before) == runs_it


def test_another_model_on_the_list_is_no_other_training_of_the_rest(toy: Path) -> None:
    path = toy / "pipeline/models/__init__.py"
    text = path.read_text() if path.exists() else ""
    path.write_text(text + 'CLASSES = {"a": "A"}\n')
    before = of(toy)
    path.write_text(text + 'CLASSES = {"a": "A", "b": "B"}\n')
    assert of(toy) == before
    assert cache.environment("fm", torch.device("cpu"))["class"] == "FM"


def test_words_and_layout_do_nothing(toy: Path) -> None:
    before = of(toy)
    (toy / "pipeline/sub/deep.py").write_text('"""Other words."""\nx = (\n    1\n)\n')
    (toy / "pipeline/near.py").write_text(
        'def f():\n    "Why."\n' + FILES["pipeline/near.py"].split("\n", 1)[1]
    )
    assert of(toy) == before


class Reworded(ast.NodeTransformer):
    """Changes every word that people read: docstrings, and all strings that are raised or printed."""

    words = False

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        return ast.Constant(f"another {node.value}") if self.words and isinstance(node.value, str) else node

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        return self.changed(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        is_print = isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "print"
        return self.changed(node) if is_print or isinstance(node.value, ast.Constant) else node

    def changed(self, node: ast.AST) -> ast.AST:
        self.words = True
        node = self.generic_visit(node)
        self.words = False
        return node


def copied(tmp_path: Path, name: str) -> tuple[Path, list[Path], dict[str, str]]:
    """A copy of the library, the roots of a model's digest in it, and their closure."""
    shutil.copytree(ROOT / "pipeline", tmp_path / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    roots = [tmp_path / file.relative_to(ROOT) for file in cache.code_of(name)]
    return tmp_path, roots, closure(*roots, root=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fm", "fiinet", "gbdt_lr"])
def test_other_words_in_any_file_are_no_other_training(tmp_path: Path, name: str) -> None:
    root, roots, before = copied(tmp_path, name)
    reworded = 0
    for file in before:
        text = (root / file).read_text()
        tree = Reworded().visit(ast.parse(text))
        reworded += ast.dump(tree) != ast.dump(ast.parse(text))
        (root / file).write_text("# another comment\n" + ast.unparse(ast.fix_missing_locations(tree)))
    assert reworded > 10
    assert closure(*roots, root=root) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("pipeline/train/loop.py", "batch_size: Count = 1024", "batch_size: Count = 512"),
        ("pipeline/train/adam.py", "addcmul_(g, g, value=1 - beta2)", "addcmul_(g, g, value=beta2)"),
        ("pipeline/layers/pairs.py", "e.square().sum(1))", "e.abs().sum(1))"),
        ("pipeline/kernels/pairs.py", ".mul_(0.5)", ".mul_(0.25)"),
        ("pipeline/models/fm.py", "class FM(FactorizationMachine)", "class FM(FactorizationMachine, object)"),
        ("pipeline/metrics.py", "EPSILON = ", "EPSILON = 2 * "),
        ("pipeline/models/__init__.py", "torch.manual_seed(seed)", "torch.manual_seed(seed + 1)"),
    ],
)
def test_another_equation_is_another_training(tmp_path: Path, file: str, old: str, new: str) -> None:
    root, roots, before = copied(tmp_path, "fm")
    text = (root / file).read_text()
    assert old in text
    (root / file).write_text(text.replace(old, new))
    assert closure(*roots, root=root) != before


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fm", "gbdt_lr"])
def test_nothing_that_a_training_computes_with_is_left_out(name: str) -> None:
    """Every module of ours that an interpreter holds after importing the loop and the model."""
    roots = cache.code_of(name)
    code = f"import sys, pipeline.train.loop, pipeline.train.device, pipeline.models.{name}; print(*({HELD}))"
    loaded = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    files = {Path(file).relative_to(ROOT) for file in loaded.stdout.split()}
    found = set(map(Path, closure(*roots)))
    left_out = {file for file in files if file.as_posix().startswith(LEFT_OUT)}
    assert left_out
    assert files - left_out <= found
    assert Path("pipeline/models", f"{name}.py") in found
    assert "layers" in {file.parts[1] for file in found}


def test_neither_messages_nor_workers_nor_stores_are_part_of_it() -> None:
    found = closure(*cache.code_of("fm"))
    rooms = {file.split("/")[1] for file in found}
    others = {"common", "config", "datasets", "preprocess", "split", "tune", "evaluate", "tracking"}
    assert not others & rooms
    assert (
        not {f"pipeline/train/{name}.py" for name in ("runs", "cache", "workers", "code_digest")}
        & found.keys()
    )
