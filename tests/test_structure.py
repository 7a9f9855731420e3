"""The rules of the house that a machine can check."""

import ast
import inspect
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
import yaml
from annotated_types import Ge, Gt
from pydantic import BaseModel

from pipeline.common.errors import PipelineError
from pipeline.config.params import Params
from pipeline.config.settings import Evaluate, Train
from pipeline.config.space import Tune
from pipeline.config.validation import type_of
from pipeline.datasets import DATASETS
from pipeline.layers.options import arguments
from pipeline.models import MODELS
from pipeline.preprocess import clean_table
from pipeline.split.assign import assign
from pipeline.split.vocabulary import fit_vocabulary
from pipeline.train.loop import fit

ROOT = Path(__file__).parents[1]
MODEL_FILES = sorted(path for path in (ROOT / "pipeline/models").glob("*.py") if path.stem != "__init__")
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
every_stage = pytest.mark.parametrize("stage", STAGES)
every_model_file = pytest.mark.parametrize("path", MODEL_FILES, ids=lambda path: path.stem)

# ---- imports, read from the source ----

Sources = dict[str, Path]  # dotted name -> file


def sources(root: Path) -> Sources:
    """All modules of the library and of the stages."""
    files = [path for folder in ("pipeline", "stages") for path in (root / folder).rglob("*.py")]
    return {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for path in files
    }


@cache
def imports(path: Path) -> frozenset[str]:
    """Dotted names that a file imports, anywhere in it; `from a import b` gives both a and a.b."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):  # what only a type checker reads is no import
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            assert node.module is not None
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "accelerated":
            found.add(f"pipeline.kernels.{ast.literal_eval(node.args[0])}")  # see layers/accelerated.py
    return frozenset(found)


@cache
def is_empty(path: Path) -> bool:
    """Whether a file holds no more than a docstring."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body)


# Tracking shows what a stage did and cannot change its outputs: no module of it is a dep.
NO_DEP = "pipeline.tracking"
# Checks params.yaml against the signatures of everything; DVC compares the values themselves. What a
# stage uses of those modules it imports itself.
NOT_FOLLOWED = {"pipeline.config.params"}
# The table of models imports a model when it is asked for. A stage of one model runs that one: its deps
# name `pipeline/models/${item.model}.py`, so that another model's change or arrival retrains nothing.
TABLE = "pipeline.models"
ONE_MODEL = "pipeline/models/${item.model}.py"


def is_within(name: str, package: str) -> bool:
    """Whether a module is a package or one inside it."""
    return f"{name}.".startswith(f"{package}.")


def closure(script: str, modules: Sources) -> set[str]:
    """The modules of ours that running `script` imports, packages on the way included."""
    seen: set[str] = set()
    waiting = {script}
    while waiting:
        name = waiting.pop()
        if name not in modules or name in seen or is_within(name, NO_DEP):
            continue
        seen.add(name)
        parts = name.split(".")
        waiting |= {".".join(parts[:i]) for i in range(1, len(parts))}
        if name not in NOT_FOLLOWED:
            waiting |= imports(modules[name])
    return {name for name in seen if not is_empty(modules[name])}


def needed(script: str, deps: list[str], root: Path) -> set[Path]:
    """Files that `script` imports, and with the table of models what any of them imports."""
    modules = sources(root)
    names = closure(script, modules)
    if TABLE in names:
        models = {name for name in modules if is_within(name, TABLE)}
        names = names.union(*(closure(model, modules) for model in models))
        if ONE_MODEL in deps:
            names -= models
    return {modules[name].relative_to(root) for name in names}


def missing_deps(script: str, deps: list[str], root: Path) -> list[str]:
    """Files that `script` imports and `deps` neither names nor has the folder of."""
    files = sorted(needed(script, deps, root))
    return [str(file) for file in files if not any(file.is_relative_to(dep) for dep in deps)]


def block(stage: str) -> dict[str, Any]:
    """A stage's entry in dvc.yaml, whether it is a list of items or not."""
    entry: dict[str, Any] = STAGES[stage]
    return entry.get("do", entry)


def script(stage: str) -> str:
    """The script of a stage; those of variants have the scripts of models."""
    return stage.removesuffix("-variant")


def deps_of(stage: str) -> list[str]:
    """The dependencies of a stage that are code."""
    names = [next(iter(dep)) if isinstance(dep, dict) else dep for dep in block(stage)["deps"]]
    return [name for name in names if name.startswith(("pipeline/", "stages/"))]


# ---- the pipeline ----


def test_each_script_is_a_stage_and_each_stage_a_script() -> None:
    scripts = {path.stem for path in (ROOT / "stages").glob("*.py")} - {"__init__"}
    assert {script(stage) for stage in STAGES} == scripts
    for stage in STAGES:
        if stage == "names":  # the others have items, each a target; `${item}` quotes names for the shell
            continue
        assert block(stage)["cmd"] == f"python -m stages.{script(stage)} ${{item}}"
        assert set(STAGES[stage]["matrix"]) in ({"dataset"}, {"dataset", "model"}, {"paper"})


@every_stage
def test_deps_cover_what_the_script_imports(stage: str) -> None:
    """DVC does not follow imports: a module left out could change and nothing would run again."""
    assert missing_deps(f"stages.{script(stage)}", deps_of(stage), ROOT) == []


@every_stage
def test_deps_name_nothing_that_the_script_does_not_import(stage: str) -> None:
    """A module too many makes a stage run again for nothing."""
    used = needed(f"stages.{script(stage)}", deps_of(stage), ROOT)
    for dep in set(deps_of(stage)) - {ONE_MODEL}:
        assert (ROOT / dep).exists(), dep
        assert any(file.is_relative_to(dep) for file in used), f"{stage} does not import {dep}"


def write_modules(root: Path, texts: dict[str, str]) -> None:
    """Lay out a toy project: file name -> source."""
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def test_the_check_of_deps_can_fail(tmp_path: Path) -> None:
    texts = {
        "stages/go.py": (
            "from pipeline import a\nfrom pipeline.tracking.store import Store\n"
            "def f():\n    from pipeline.sub.deep import x\n"
        ),
        "stages/__init__.py": '"""Nothing."""',
        "pipeline/__init__.py": "",
        "pipeline/a.py": "import pipeline.b\nif TYPE_CHECKING:\n    import pipeline.never\n",
        "pipeline/b.py": "import json",
        "pipeline/never.py": "import json",
        "pipeline/tracking/__init__.py": "import pipeline.never, pipeline.tracking.store",
        "pipeline/tracking/store.py": "import pipeline.never",
        "pipeline/sub/__init__.py": "import pipeline.c",
        "pipeline/sub/deep.py": "x = 1",
        "pipeline/c.py": "from pipeline import b",
    }
    write_modules(tmp_path, texts)
    code = ["stages/go.py", "pipeline/a.py", "pipeline/b.py", "pipeline/c.py", "pipeline/sub"]
    assert missing_deps("stages.go", code, tmp_path) == []
    for dep in code[:-1]:
        assert missing_deps("stages.go", [d for d in code if d != dep], tmp_path) == [dep]
    deep = ["pipeline/sub/__init__.py", "pipeline/sub/deep.py"]
    assert missing_deps("stages.go", code[:-1], tmp_path) == deep


def test_a_stage_of_one_model_needs_what_any_model_imports(tmp_path: Path) -> None:
    texts = {
        "stages/go.py": "import pipeline.models",
        "pipeline/models/__init__.py": "x = 1",
        "pipeline/models/a.py": "import pipeline.layer",
        "pipeline/models/b.py": "import pipeline.other",
        "pipeline/layer.py": "x = 1",
        "pipeline/other.py": "x = 1",
    }
    write_modules(tmp_path, texts)
    code = ["stages/go.py", ONE_MODEL, "pipeline/layer.py"]
    assert missing_deps("stages.go", code, tmp_path) == ["pipeline/other.py"]
    assert missing_deps("stages.go", [*code, "pipeline/other.py"], tmp_path) == []


def test_only_stages_of_one_model_leave_the_others_out() -> None:
    for stage in STAGES:
        assert (ONE_MODEL in deps_of(stage)) == ("${models}" in STAGES[stage].get("matrix", {}).values())


def test_every_key_of_params_is_a_parameter_of_a_stage() -> None:
    """Else a change of it would run nothing again."""
    read = {key for stage in STAGES for key in block(stage).get("params", [])}
    assert "data.${item.dataset}" in read  # a key that is no block, such as negatives_kept
    items = {key.split("}.")[1].split(".")[0] for key in read if "}." in key}
    assert items == {key for item in PARAMS["data"].values() for key in item}
    lists = " ".join(str(STAGES[stage].get("matrix", STAGES[stage].get("foreach"))) for stage in STAGES)
    # where the bytes come from does not change them, nor among how many processes the seeds are shared;
    # `watch` is no stage
    changes_nothing = {"mirror", "processes", "engine", "studies", "watch"}
    assert not changes_nothing & {key.split(".")[0] for key in read}
    for key in PARAMS.keys() - {"data"} - changes_nothing:
        listed = f"${{{key}}}" in lists
        assert listed or key in {name.split(".")[0] for name in read}, key


def test_every_entry_of_params_could_run() -> None:
    """Of an item that is not in `datasets` a stage only warns."""
    assert Params(PARAMS).data.keys() == PARAMS["data"].keys()


def blocks(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The paths of all mappings inside a value."""
    if isinstance(value, dict):
        yield path
        for key, inner in value.items():
            yield from blocks(inner, (*path, key))


def kind(path: tuple[str, ...]) -> tuple[str, ...]:
    """What is checked alike: for the name of an item, a model or an option one that stands for all."""
    words = list(path)
    if path[:1] == ("data",) and len(path) > 1:  # the keys of these two depend on the source
        source = PARAMS["data"][path[1]]["source"]
        words[1] = source if path[2:] in (("download",), ("preprocess",)) else "item"
    for i, word in enumerate(path):
        if word == "model" and i + 1 < len(path):
            is_block = path[i + 1] in PARAMS["model"]
            words[i + 1 :] = ["name" if is_block else "option", *(["option"] * len(path[i + 2 :]))]
            if path[:1] == ("model",) and "base" in PARAMS["model"][path[1]]:
                words[i + 1] = "variant"
    return tuple(words)


def one_of_each_kind() -> list[Any]:
    """The blocks of params.yaml, the second and further ones of a kind marked `full`."""
    found, seen = [], set()
    for path in blocks(PARAMS):
        marks = [pytest.mark.full] if kind(path) in seen else []
        seen.add(kind(path))
        found.append(pytest.param(path, id=".".join(path) or "top", marks=marks))
    return found


@pytest.mark.parametrize("path", one_of_each_kind())
def test_a_key_that_nothing_reads_is_an_error_that_names_it(path: tuple[str, ...]) -> None:
    values = deepcopy(PARAMS)
    inner = values
    for key in path:
        inner = inner[key]
    inner["quatsch"] = 1
    with pytest.raises(PipelineError, match=r"params\.yaml: .*quatsch"):
        Params(values)


# ---- rooms ----

# From the nouns that everybody uses to the view: a room imports only what stands above it.
ROOMS = [
    *("schema", "metrics", "statistics", "common", "config", "download", "preprocess", "datasets", "split"),
    *("data", "layers", "kernels", "models", "train", "tune", "evaluate", "explain", "costs", "papers"),
    *("scoring", "watch", "tracking", "inspection", "commands"),
]
# The signature is the config, so the room that checks params.yaml reads everybody's.
READS_ALL = "pipeline.config.params"


def upward(root: Path) -> list[str]:
    """Imports of a room that does not stand above the importing one."""
    modules, found = sources(root), []
    for name, path in modules.items():
        if not name.startswith("pipeline.") or name in (READS_ALL, "pipeline.__main__"):
            continue
        for other in imports(path):
            if other.startswith("pipeline.kernels.") and name.startswith("pipeline.layers."):
                continue  # a layer names its kernel, and works without
            if other.startswith("pipeline.") and other.split(".")[1] in ROOMS:
                mine, theirs = (ROOMS.index(module.split(".")[1]) for module in (name, other))
                found += [f"{name} imports {other}"] if theirs > mine else []
    return found


def test_a_room_imports_only_what_stands_above_it() -> None:
    assert upward(ROOT) == []


def test_every_module_lives_in_a_room() -> None:
    top = {name.split(".")[1] for name in sources(ROOT) if name.startswith("pipeline.")}
    assert top - {"__main__"} == set(ROOMS)


def test_the_check_of_rooms_can_fail(tmp_path: Path) -> None:
    texts = {
        "pipeline/schema.py": "x = 1",
        "pipeline/layers/a.py": "def f():\n    from pipeline.models import b\n",
        "pipeline/models/b.py": "import pipeline.layers.a\nfrom pipeline import schema\n",
        "pipeline/config/params.py": "from pipeline.models import b",
    }
    write_modules(tmp_path, texts)
    assert sorted(upward(tmp_path)) == [
        "pipeline.layers.a imports pipeline.models",
        "pipeline.layers.a imports pipeline.models.b",
    ]


# ---- torch's private functions ----


def private_torch(root: Path) -> list[str]:
    """Where our modules call what torch does not document, but for the room of kernels, which checks them.

    The only other one is a method that `layers.prepared` overrides, `Module._load_from_state_dict`.
    """
    found = []
    for name, path in sources(root).items():
        if name.startswith("pipeline.kernels"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            text = ast.unparse(node) if isinstance(node, ast.Attribute | ast.ImportFrom) else ""
            if re.search(r"^(from )?(torch|nn|F)\b.*(\._|\.ops\b| _)(?!_)", text):
                found.append(f"{name}: {text}")
    return found


def test_only_kernels_call_private_functions_of_torch() -> None:
    assert private_torch(ROOT) == []


def test_the_check_of_private_functions_can_fail(tmp_path: Path) -> None:
    texts = {
        "pipeline/kernels/a.py": "torch._C.x()",
        "pipeline/layers/b.py": "from torch import _weight_norm\nx = torch.__version__, torch.nn.relu",
        "pipeline/train/c.py": "torch._foreach_norm(x)\ntorch.ops.aten.relu(x)\nnn.functional._pad(x)",
    }
    write_modules(tmp_path, texts)
    assert sorted(private_torch(tmp_path)) == [
        "pipeline.layers.b: from torch import _weight_norm",
        "pipeline.train.c: nn.functional._pad",
        "pipeline.train.c: torch._foreach_norm",
        "pipeline.train.c: torch.ops",
        "pipeline.train.c: torch.ops.aten",
        "pipeline.train.c: torch.ops.aten.relu",
    ]


# ---- imports ----

CORE = ["pipeline.models", "pipeline.train.loop", "pipeline.metrics", "pipeline.data.batches"]
HEAVY = {"mlflow", "optuna", "pandas", "dvc", "pydantic", "sklearn", "matplotlib", "pyarrow", "lightgbm"}


def heavy_after(imported: list[str], path: Path) -> set[str]:
    """Which of the HEAVY libraries a fresh interpreter holds after these imports."""
    code = f"import sys, {', '.join(imported)}; print(*{{name.split('.')[0] for name in sys.modules}})"
    env = {**os.environ, "PYTHONPATH": str(path)}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=path, env=env, capture_output=True, text=True, check=True
    )
    return HEAVY & set(result.stdout.split())


@pytest.mark.slow
def test_the_core_imports_no_tool() -> None:
    assert heavy_after(CORE, ROOT) == set()


@pytest.mark.slow
def test_scoring_needs_neither_dvc_nor_mlflow_nor_optuna() -> None:
    code = ["pipeline.scoring", "pipeline.scoring.score", "pipeline.scoring.pack"]
    assert heavy_after(code, ROOT) <= {"pydantic", "pyarrow"}


@pytest.mark.slow
def test_the_check_of_imports_can_fail(tmp_path: Path) -> None:
    (tmp_path / "optuna.py").touch()
    (tmp_path / "hidden.py").write_text("import optuna")
    (tmp_path / "core.py").write_text("import hidden")
    assert heavy_after(["json"], tmp_path) == set()
    assert heavy_after(["core"], tmp_path) == {"optuna"}


def users(library: str) -> set[str]:
    """Our modules that import a library, even inside a function."""
    modules = sources(ROOT)
    return {n for n, path in modules.items() if any(i.split(".")[0] == library for i in imports(path))}


DOORS = {
    "mlflow": ("pipeline.tracking",),
    "optuna": ("pipeline.tune",),
    "onnxscript": ("pipeline.scoring.export",),
    "matplotlib": (
        *("pipeline.evaluate.plots", "pipeline.evaluate.plot_style", "pipeline.papers.pictures"),
        *(f"pipeline.{room}.picture" for room in ("costs", "explain", "watch")),
    ),
}


@pytest.mark.parametrize("library", DOORS)
def test_a_tool_has_one_door(library: str) -> None:
    found = users(library)
    assert found
    assert all(any(is_within(name, door) for door in DOORS[library]) for name in found), found


def test_the_library_knows_no_stage() -> None:
    assert {name.split(".")[0] for name in users("stages")} <= {"stages"}


def test_every_library_that_is_imported_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    declared = project["dependencies"] + extras["export"] + extras["scale"] + extras["torchrec"]
    names = {re.split(r"[^\w.-]", line)[0].lower() for line in declared}
    owners = packages_distributions()
    for path in sources(ROOT).values():
        for name in {name.split(".")[0] for name in imports(path)} - set(sys.stdlib_module_names):
            if name in ("pipeline", "stages"):
                continue
            candidates = {owner.lower() for owner in owners.get(name, [name])}  # an extra may be missing
            assert candidates & names, f"{path.relative_to(ROOT)} imports {name}: add it to pyproject.toml"


# ---- models ----


def test_every_model_file_is_in_the_table() -> None:
    homes = {name: inspect.getmodule(model).__name__ for name, model in MODELS.items()}  # type: ignore[union-attr]
    assert homes == {path.stem: f"pipeline.models.{path.stem}" for path in MODEL_FILES}


@every_model_file
def test_a_models_docstring_names_paper_equation_shapes_and_departures(path: Path) -> None:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    for part in (
        r"^Paper: .*",
        r"https://\S+",
        r"^Equation\b",
        r"^Shapes: ids \(B, S\) -> ",
        r"^Differs from the paper: ",
    ):
        assert re.search(part, text, re.MULTILINE), part


@every_model_file
def test_a_model_is_short_and_knows_layers_and_the_schema_only(path: Path) -> None:
    """No loss, device, seed, path, optimizer or logging: it cannot even import them."""
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 100
    ours = {name for name in imports(path) if name.startswith("pipeline")}
    allowed_ours = ("pipeline.layers", "pipeline.schema", "pipeline.data.batches")
    own_kernel = f"pipeline.kernels.{path.stem}"  # named, not imported: see layers/accelerated.py
    assert all(name.startswith(allowed_ours) or name == own_kernel for name in ours)
    allowed = {"torch", "jaxtyping", "pipeline", "itertools", "math", "typing", "collections"}
    assert {name.split(".")[0] for name in imports(path)} <= allowed


@pytest.mark.parametrize("name", MODELS)
def test_a_models_signature_is_its_config(name: str) -> None:
    schema, *options = inspect.signature(MODELS[name]).parameters.values()
    assert schema.name == "schema"
    for option in options:
        assert option.kind is option.KEYWORD_ONLY, option
        assert option.default is not option.empty, option
        assert option.annotation is not option.empty, option


def unbounded(hint: Any) -> bool:
    """Whether an annotation allows a number without naming its range."""
    if get_origin(hint) is Annotated:
        kind, *limits = get_args(hint)
        return unbounded(kind) and not any(isinstance(limit, Ge | Gt) for limit in limits)
    inner = () if get_origin(hint) is Literal else get_args(hint)
    return hint in (int, float) or any(map(unbounded, inner))


# Whatever has its arguments in params.yaml.
CONFIGURED: dict[str, Callable[..., Any]] = {
    **MODELS,
    **{f"{name}-{key}": getattr(DATASETS[name], key) for name in DATASETS for key in ("download", "read")},
    **{function.__name__: function for function in (clean_table.write, assign, fit_vocabulary, fit)},
}


@pytest.mark.parametrize("name", CONFIGURED)
def test_every_number_among_the_options_names_its_range(name: str) -> None:
    for key, argument in arguments(CONFIGURED[name]).items():
        assert not unbounded(argument.hint), f"{key}: annotate it with a range of pipeline/common/ranges.py"


@pytest.mark.parametrize("block", [Train, Evaluate, Tune])
def test_every_number_of_a_fixed_block_names_its_range(block: type[BaseModel]) -> None:
    for key, field in block.model_fields.items():
        assert not unbounded(type_of(field)), key


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        (int, True),
        (float | None, True),
        (Sequence[int], True),
        (Annotated[int, "dear"], True),
        (Annotated[int, Ge(1)], False),
        (Sequence[Annotated[float, Gt(0)]], False),
        (Literal[1, 2], False),
        (bool, False),
    ],
)
def test_the_check_of_ranges_can_fail(hint: Any, expected: bool) -> None:
    assert unbounded(hint) == expected


# ---- text ----

# Homes and folders of a single machine; hosts of package registries, which are the installer's affair.
PRIVATE = re.compile(
    r"(?<![\w.])/((home|Users)/(?!me\b)|(root|work|workspace|mnt|opt|srv|tmp/\w)\b)"
    r"|\b[A-Z]:\\\\?Users"
    r"|\b(pypi\.org|pythonhosted\.org|download\.pytorch\.org|anaconda\.org|conda\.io|npmjs\.(org|com)|jsdelivr\.net)"
    r"|--(extra-)?index-url|\[\[?tool\.uv\.index"
)
FOLDERS = ("pipeline", "stages", "tests", "benchmarks", ".ci", ".dvc", ".github")
SKIPPED = {".git", "__pycache__", "cache", "tmp", "config.local"}


def texts() -> Iterator[tuple[Path, str]]:
    """The project's own text files: those at its root and in its folders, not data and not caches."""
    found = [path for path in ROOT.iterdir() if path.is_file() and not path.name.startswith("mlflow.db")]
    found += [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
    for path in sorted(found):
        if SKIPPED & set(path.relative_to(ROOT).parts) or path == Path(__file__):
            continue
        try:
            yield path, path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture


def test_no_file_names_a_machine_or_a_registry() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path, text in texts()
        for number, line in enumerate(text.splitlines(), 1)
        if PRIVATE.search(line)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("line", "private"),
    [
        ("cd /home/anna/project", True),
        ("cd /home/me/project", False),
        ('path = "/work/shared"', True),
        ("see /tmp/w/v", True),
        (r"C:\Users\me", True),
        ("https://pypi.org/simple", True),
        ("--extra-index-url https://example.org", True),
        ("../shared/datasets", False),
        ("https://example.org/home/page", False),
        ("data/work/file and a/root", False),
        ("torch==2.13.0", False),
    ],
)
def test_the_check_of_text_can_fail(line: str, private: bool) -> None:
    assert bool(PRIVATE.search(line)) == private
