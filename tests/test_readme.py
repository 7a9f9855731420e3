"""What README shows is true: its example model obeys the rules of every model, its files exist."""

import ast
import importlib.util
import inspect
import re
from itertools import combinations
from pathlib import Path

import pytest
import torch
from rows import SCHEMAS, random_ids
from torch import nn

from pipeline.commands.outcome import outcome
from pipeline.layers.options import Embed, arguments

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def example() -> str:
    """The source of the model that README adds."""
    found = re.search(r"```python\n# pipeline/models/gmf\.py\n(.*?)```", README, re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture(name="model")
def _model(tmp_path: Path) -> type[nn.Module]:
    (tmp_path / "gmf.py").write_text(example())
    spec = importlib.util.spec_from_file_location("gmf", tmp_path / "gmf.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model: type[nn.Module] = module.GMF
    return model


def test_the_example_model_has_the_docstring_of_a_model() -> None:
    text = ast.get_docstring(ast.parse(example())) or ""
    for part in ("Paper: ", "Equation", "Shapes: ids (B, S) -> ", "Differs from the paper: "):
        assert part in text


def test_the_example_model_has_the_options_of_a_model(model: type[nn.Module]) -> None:
    assert all(p.kind is p.KEYWORD_ONLY for p in list(inspect.signature(model).parameters.values())[1:])
    assert arguments(model).keys() == {
        f"embedding_{name}" for name in ("size", "std", "dropout", "transform")
    }


def test_the_example_model_is_its_equation(model: type[nn.Module]) -> None:
    schema = SCHEMAS["two-domains"]
    network, ids = model(schema, embedding=Embed(3)), random_ids(schema, 7)
    with torch.no_grad():
        e, linear, logits = (
            network.embedding(ids).tolist(),
            network.linear(ids).tolist(),
            network(ids).tolist(),
        )
    h = network.h.weight[0].tolist()
    for row, first, logit in zip(e, linear, logits, strict=True):
        products = (h[k] * a[k] * b[k] for a, b in combinations(row, 2) for k in range(3))
        assert logit == pytest.approx(first + sum(products), abs=1e-6)
    network(ids).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())


def test_the_last_words_of_a_run_are_those_of_the_report_in_git() -> None:
    assert f"```\n{outcome(ROOT, ['synthetic'])}\n```" in README


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_to_one(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    files = [link for link in links if not link.startswith("http")]
    assert files or page.name != "README.md"
    assert [link for link in files if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_of_the_library_that_is_named_exists(page: Path) -> None:
    named = set(
        re.findall(r"`((?:pipeline|stages|tests)/[\w/.]+\.(?:py|yaml))`", page.read_text(encoding="utf-8"))
    )
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
