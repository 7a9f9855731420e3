"""The notebook of docs/ runs from its first cell to its last, in a folder that is not the project's."""

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline.common.errors import PipelineError
from pipeline.scoring import small
from tests import project

NOTEBOOK = project.ROOT / "docs/tutorial.ipynb"


def cells(kind: str) -> list[str]:
    return ["".join(c["source"]) for c in json.loads(NOTEBOOK.read_text())["cells"] if c["cell_type"] == kind]


def as_script(codes: list[str]) -> str:
    """The code of all cells; a last line that is an expression is printed, as Jupyter shows it."""
    lines = []
    for code in codes:
        tree = ast.parse(code)
        if isinstance(last := tree.body[-1], ast.Expr):
            shown = ast.parse("print()").body[0]
            assert isinstance(shown, ast.Expr) and isinstance(shown.value, ast.Call)
            shown.value.args = [last.value]
            tree.body[-1] = shown
        lines.append(ast.unparse(tree))
    return "\n".join(lines)


def test_it_is_a_notebook_without_outputs() -> None:
    content: dict[str, Any] = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (content["nbformat"], content["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in content["cells"]}) == len(content["cells"])
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in content["cells"])


@pytest.mark.thorough
@pytest.mark.slow
def test_it_runs_in_any_folder(tmp_path: Path) -> None:
    """As the installed package does: nothing of the project's folder is beside it."""
    (tmp_path / "notebook.py").write_text(as_script(cells("code")), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "notebook.py"],
        cwd=tmp_path,
        env=project.environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    scores = pd.read_csv(tmp_path / "scores.csv")
    assert len(scores) == 2000
    assert scores["probability"].between(0, 1).all()
    said = done.stdout
    assert float(said.split("AUC on the new rows: ")[1].split()[0]) > 0.7
    fields = [line.split()[1] for line in said.split("auc_lost")[1].splitlines()[1:7]]
    assert set(fields[:3]) <= {"city", "topic", "price", "user", "item"}
    assert fields[-1] != "price"
    assert said.rstrip().endswith("True"), "the package that is written scores as the model does"


LOG = pd.DataFrame(
    {
        "user": [f"u{i % 9}" for i in range(300)],
        "item": [f"i{i % 7}" for i in range(300)],
        "price": range(300),
        "at": range(1_700_000_000, 1_700_000_300),
        "click": [i % 2 for i in range(300)],
    }
)
COLUMNS = {
    "label": "click",
    "fields": {"user": "user", "item": "item", "price": {"domain": "item", "type": "number"}},
    "user": "user",
    "item": "item",
    "time": {"column": "at", "format": "seconds"},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lr", "din"])
def test_a_small_log_becomes_a_model_in_one_call(name: str, tmp_path: Path) -> None:
    LOG.to_csv(tmp_path / "log.csv", index=False)
    model, again = (small.train(tmp_path / "log.csv", COLUMNS, model=name, epochs=2) for _ in range(2))
    assert model.package == again.package
    assert model.package.trained_on.keys() == {"dataset", "model", "variant", "seed", "valid", "test"}
    assert model.predict(LOG)["probability"].between(0, 1).all()
    with pytest.raises(PipelineError, match=r"preprocess\.label: unknown column 'clik'"):
        small.train(tmp_path / "log.csv", {**COLUMNS, "label": "clik"}, model="lr")


@pytest.mark.slow
def test_what_may_be_corrupted_is_a_key_of_its_log_and_of_its_rows(tmp_path: Path) -> None:
    log = LOG.astype({"click": object})
    log.loc[:9, "click"] = "?"
    log.to_csv(tmp_path / "log.csv", index=False)
    with pytest.raises(PipelineError, match=r"10 of 300 records of log\.csv are corrupted"):
        small.train(tmp_path / "log.csv", COLUMNS, model="lr")
    model = small.train(tmp_path / "log.csv", {**COLUMNS, "max_rejected": 0.1}, model="lr", epochs=1)
    assert model.reading.max_rejected == 0.1
    with pytest.raises(PipelineError, match=r"preprocess: unknown key 'max_reject'.*'max_rejected'"):
        small.train(tmp_path / "log.csv", {**COLUMNS, "max_reject": 0.1}, model="lr")
