"""No name reaches a shell, another folder, DVC or MLflow unless it follows the rule."""

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML

from pipeline import inspection
from pipeline.common import names
from pipeline.common.errors import PipelineError
from pipeline.config.params import Params
from pipeline.data import storage
from pipeline.download import refresh
from pipeline.preprocess.tables import CONTROL
from tests import hostile, project
from tests.test_end_to_end import copy_of_the_project

every_name = pytest.mark.parametrize("name", hostile.NAMES, ids=ascii)


def renamed(kind: str, name: str) -> dict[str, Any]:
    """Our own params.yaml with a dataset, model or variant of another name."""
    values = project.small_params()
    if kind == "dataset":
        values["data"][name], values["datasets"] = values["data"]["synthetic"], [name]
    elif kind == "model":
        values["model"][name], values["models"] = {}, [name]
    else:
        values["model"][name], values["variants"] = {"base": "fm", "embedding_size": 4}, [name]
    return values


@every_name
def test_params_yaml_with_such_a_name_is_refused_with_the_rule(name: str) -> None:
    for kind in ("dataset", "model", "variant"):
        with pytest.raises(PipelineError, match="a name has at most 64 letters") as error:
            Params(renamed(kind, name))
        assert repr(name) in str(error.value)


def test_a_name_that_follows_the_rule_is_taken() -> None:
    assert all(map(names.is_name, hostile.FINE))
    assert Params(renamed("dataset", "no")).datasets == ["no"]
    assert Params(renamed("variant", "1e5")).models[-1] == "1e5"


@every_name
def test_inspect_refuses_it_too(name: str, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("click,user\n1,a\n0,b\n")
    with pytest.raises(PipelineError, match="a name has at most"):
        inspection.inspect(tmp_path / "log.csv", name)


@every_name
def test_refresh_starts_no_dvc_for_it(name: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(json.dumps({"datasets": [name], "data": {name: {"download": {}}}}))
    with pytest.raises(PipelineError, match="a name has at most"):
        refresh.stale(tmp_path)


def test_an_entry_that_does_not_run_may_have_any_name() -> None:
    values = project.small_params()
    values["data"]["my clicks"] = values["data"]["synthetic"]
    assert "my clicks" in Params(values, every_entry=False).invalid


@pytest.mark.parametrize(
    ("datasets", "models"),
    [(["t", "t-fm"], ["fm-a", "a"]), (["t", "T"], ["a"]), (["t"], ["a", "A"]), (["t-1", "t"], ["a", "1-A"])],
)
def test_two_pairs_with_one_target_are_refused(datasets: list[str], models: list[str]) -> None:
    """DVC would make one stage of both, without a word; some file systems one folder."""
    with pytest.raises(PipelineError, match="rename one"):
        names.check_targets(datasets, models)
    names.check_targets(datasets[:1], models[:1])


# ---- a shell is only started after the check ----


def listed(folder: Path) -> set[str]:
    """The files of a project, but for what DVC and Python keep."""
    skipped = {".dvc", ".git", "__pycache__"}
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path.as_posix() for path in files if not skipped & set(path.parts)} - {"params.yaml"}


@pytest.fixture(scope="module", name="copy")
def _copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_of_the_project(tmp_path_factory.mktemp("names") / "project")


RISKY = ["../../docs", "../../pipeline/tracking", "../../../outside", "a;touch X", "a\ntouch X\n"]


@pytest.mark.slow
@pytest.mark.parametrize("name", RISKY, ids=ascii)
@pytest.mark.parametrize("kind", ["dataset", "variant"])
def test_plain_dvc_repro_touches_nothing(name: str, kind: str, copy: Path) -> None:
    """DVC removes the outputs of a stage and starts a shell: `names` has to fail before."""
    (copy / "docs").mkdir(exist_ok=True)
    (copy / "docs/mine.md").write_text("mine")
    (copy.parent / "outside").mkdir(exist_ok=True)
    (copy.parent / "outside/mine.md").write_text("mine")
    with open(copy / "params.yaml", "w", encoding="utf-8") as file:
        YAML(typ="safe", pure=True).dump(renamed(kind, name), file)
    before = listed(copy.parent)
    done = subprocess.run(
        ["dvc", "repro"], cwd=copy, env=project.environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode
    assert listed(copy.parent) == before, done.stdout + done.stderr


@pytest.mark.slow
def test_every_command_of_dvc_quotes_its_names() -> None:
    """Should the check be left out (`dvc repro --single-item`), a name is still one word for the shell."""
    from dvc.parsing.interpolate import to_str

    for name in hostile.NAMES:
        if "\x00" not in name:
            code = "import sys; print(ascii(sys.argv[1:]))"
            done = subprocess.run(
                ["sh", "-c", f"{sys.executable} -c '{code}' {to_str({'dataset': name, 'model': name})}"],
                capture_output=True,
                text=True,
                check=True,
            )
            assert done.stdout.strip() == ascii(["--dataset", name, "--model", name])


# ---- fields and columns: any name, since none becomes a path or a word ----


@pytest.mark.thorough
@pytest.mark.slow
def test_columns_of_any_name_are_fields_and_make_no_file(tmp_path: Path, run: Callable[..., Path]) -> None:
    stripped = {name.strip() for name in hostile.NAMES} - {""}
    columns = sorted(name for name in stripped if not CONTROL.search(name))  # which are refused
    values = {
        column: [f"{row % (3 + number)}" for row in range(200)] for number, column in enumerate(columns)
    }
    pq.write_table(pa.table({"click": [row % 2 for row in range(200)], **values}), tmp_path / "log.parquet")
    small = project.small_params()
    small["data"]["t"] = {
        **small["data"]["synthetic"],
        "source": "tabular",
        "download": {"path": "log.parquet"},
        "preprocess": {"label": "click", "fields": dict.fromkeys(columns, "item")},
    }
    with open(tmp_path / "params.yaml", "w", encoding="utf-8") as file:
        YAML(typ="safe", pure=True).dump({**small, "datasets": ["t"], "models": ["lr"], "variants": []}, file)
    data = run(tmp_path, "t")
    done = project.run(tmp_path, "train", "lr", dataset="t")
    assert not done.returncode, done.stderr
    assert [field.name for field in storage.read_schema(data / "processed/t").fields] == columns
    assert {path.name for path in tmp_path.iterdir() if path.suffix != ".db"} == {
        "data", "log.parquet", "mlruns", "params.yaml"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": ["lr", "deepmf"]}, "models: unknown model 'deepmf'; did you mean 'deepfm'"),
        ({"datasets": ["syntetic"]}, "datasets: unknown dataset 'syntetic'; did you mean 'synthetic'"),
    ],
)
def test_a_name_that_is_none_is_told_before_anything_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str
) -> None:
    project.make_project(tmp_path, **changes)
    kept = tmp_path / "data/runs/synthetic/fm"
    kept.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PipelineError) as caught:
        importlib.import_module("stages.names").main()
    assert message in str(caught.value)
    assert kept.is_dir()
