"""What README and docs/ show is true: its example model obeys the rules of every model, its files exist."""

import ast
import importlib.util
import inspect
import re
from itertools import combinations
from pathlib import Path

import pytest
import torch
from rows import SCHEMAS, random_ids
from ruamel.yaml import YAML
from torch import nn

from pipeline.__main__ import parser
from pipeline.commands.outcome import outcome
from pipeline.layers.options import Embed, arguments
from pipeline.models import MODELS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def example() -> str:
    """The source of the model that docs/models.md adds."""
    page = (ROOT / "docs/models.md").read_text(encoding="utf-8")
    found = re.search(r"```python\n# pipeline/models/gmf\.py\n(.*?)```", page, re.DOTALL)
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


@pytest.mark.parametrize("page", ["README.md", "docs/models.md"])
def test_all_models_are_counted_and_in_a_family(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    families = re.search(r"\| family \| models \|\n\|.*\n((?:\|.*\n)+)", text)
    assert families is not None
    assert sorted(re.findall(r"`(\w+)`", families[1])) == sorted(MODELS)
    assert f"{len(MODELS)} models, one file each" in text


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


def commands() -> list[list[str]]:
    """What README and docs/ tell to type, in blocks and in sentences, as words."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        lines = [
            line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()
        ]
        lines += re.findall(
            r"`((?:ctr|python -m pipeline|make|dvc) [^`\n]+)`",
            re.sub(r"```.*?```", "", text, flags=re.DOTALL),
        )
        found += [re.sub(r"\s+#.*|\[, .*", "", line).split() for line in lines]
    return [words for words in found if words]


def test_every_command_that_is_told_exists() -> None:
    """Of `ctr` with the options that it has, of make a rule, of DVC a stage of dvc.yaml."""
    rules = set(re.findall(r"^([a-z]+):.*##", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    stages = set(YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"])
    told, seen = commands(), set()
    for words in told:
        if words[:3] == ["python", "-m", "pipeline"]:
            words = ["ctr", *words[3:]]
        if words[0] == "ctr" and "<command>" not in words:
            if len(words) == 2:  # in a sentence, without what it needs
                with pytest.raises(SystemExit) as ended:
                    parser("ctr").parse_args([words[1], "--help"])
                assert ended.value.code == 0, words
            else:
                assert parser("ctr").parse_args(words[1:]), words
        elif words[0] == "make":
            assert words[1] in rules, words
        elif words[:2] == ["dvc", "repro"]:
            assert {word.partition("@")[0] for word in words[2:] if "@" in word} <= stages, words
        else:
            continue
        seen.add(words[0])
    assert seen == {"ctr", "make", "dvc"}


def test_readme_is_short_and_leads_to_every_page() -> None:
    assert len(README.split()) < 1300
    assert [
        page.name for page in PAGES if page.parent.name == "docs" and f"(docs/{page.name})" not in README
    ] == ["index.md"]
