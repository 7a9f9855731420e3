"""What a file runs, found by its imports: code counts, words do not."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import runs
from pipeline.models import MODELS
from pipeline.sources import ROOT, closure, code_digest

FILES = {
    "pipeline/__init__.py": '"""The library."""\n',
    "pipeline/go.py": "import json\nfrom pipeline import near\nfrom pipeline.models import MODELS\n",
    "pipeline/near.py": "def f():\n    from pipeline.sub.deep import x\n    return x\n",
    "pipeline/sub/__init__.py": "y = 1\n",
    "pipeline/sub/deep.py": '"""Deep."""\n\nx = 1  # one\n',
    "pipeline/far.py": "x = 1\n",
    "pipeline/models/__init__.py": "from pipeline.models import a, b\n",
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
        "pipeline/models/__init__.py",
        "pipeline/models/b.py",
    }


@pytest.mark.parametrize("name", FILES)
def test_a_change_of_what_runs_is_another_digest(toy: Path, name: str) -> None:
    before = of(toy)
    path = toy / name
    path.write_text(path.read_text() + "z = 1\n")
    runs_it = name in closure(toy / "pipeline/go.py", toy / "pipeline/models/a.py", root=toy)
    assert (of(toy) != before) == runs_it


def test_words_and_layout_do_nothing(toy: Path) -> None:
    before = of(toy)
    (toy / "pipeline/sub/deep.py").write_text('"""Other words."""\nx = (\n    1\n)\n')
    (toy / "pipeline/near.py").write_text(
        'def f():\n    "Why."\n' + FILES["pipeline/near.py"].split("\n", 1)[1]
    )
    assert of(toy) == before


@pytest.mark.parametrize("name", ["fm", "gbdt_lr"])
def test_nothing_that_a_training_loads_is_left_out(name: str) -> None:
    """Every module of ours that an interpreter holds after the import, but the other models."""
    held = "m.__file__ for n, m in sys.modules.items() if n[:8] == 'pipeline'"
    code = f"import sys, pipeline.runs; print(*({held}))"
    loaded = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    files = {Path(file).relative_to(ROOT) for file in loaded.stdout.split()}
    own = Path("pipeline/models", f"{name}.py")
    models = {file for file in files if file.parts[:2] == ("pipeline", "models")}
    assert own in models
    assert len(models) == len(MODELS) + 1
    # what other models alone import, such as a layer, may be missing; what the core imports may not
    layers = {file for file in files if file.parts[:2] == ("pipeline", "layers")}
    found = set(map(Path, closure(Path(runs.__file__), ROOT / own)))
    assert files - models - layers <= found
    assert own in found
    assert "layers" in {file.parts[1] for file in found}
