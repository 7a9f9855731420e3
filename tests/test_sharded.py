"""Tables sharded by TorchRec over processes: the curve of one process, smaller parts, one run folder.

What needs TorchRec is skipped without it; docs/scale.md says how to install it.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import project
import pytest
import sharded_script
import torch
from rows import SCHEMAS, random_split
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmarks import sharded as benchmark
from pipeline.common.errors import PipelineError
from pipeline.common.files import read_json
from pipeline.config.params import Params
from pipeline.data.batches import Split
from pipeline.layers import tables
from pipeline.layers.embedding import FieldEmbedding
from pipeline.layers.tables import held
from pipeline.models import MODELS, build
from pipeline.schema import EMPTY, Field, Schema
from pipeline.train import adam, parts, runs, sharded
from pipeline.train.sharded import Tables

OPTIONS = Namespace(ids=2000, rows=8000, sharding="row_wise", table_lr=0.02)
TOLERANCE = 1e-5  # of every value of a learning curve: sums are rounded in another order
needs_torchrec = pytest.mark.skipif(
    find_spec("torchrec") is None, reason="TorchRec is not installed: docs/scale.md says how"
)


class Elsewhere(nn.Module):
    """Holds a table that was drawn by blocks, and counts how often it is looked up."""

    def __init__(self, shape: tuple[int, int], blocks: Iterator[Tensor]) -> None:
        super().__init__()
        self.shape, self.calls = torch.Size(shape), 0
        self.rows = nn.Parameter(torch.cat(list(blocks)), requires_grad=False)

    def forward(self, ids: Tensor) -> Tensor:
        self.calls += 1
        return self.rows[ids.long()]


# ---- the one door to a table, and its first rows ----


@pytest.mark.parametrize("numbers", [1, 2**20])
@pytest.mark.parametrize("dim", [1, 3, 16])
@pytest.mark.parametrize("size", [3, 16, 17, 100])
def test_rows_drawn_by_blocks_are_those_of_the_whole_table(
    size: int, dim: int, numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "_BLOCK", numbers)
    schema = Schema((Field("user", size), Field("item", 7)))
    torch.manual_seed(3)
    whole, after = torch.randn(schema.rows, dim) * 0.1, torch.rand(())
    whole[[EMPTY, *schema.row_offsets]] = 0.0
    torch.manual_seed(3)
    found = list(tables.blocks(schema, dim, 0.1))
    assert torch.equal(torch.cat(found), whole)
    assert torch.rand(()) == after, "and what is drawn afterwards is the same"
    if numbers == 1 and size == 100:
        assert max(map(len, found)) <= 2 * 16
    torch.manual_seed(3)
    assert torch.equal(FieldEmbedding(schema, dim, std=0.1).table, whole)


@pytest.mark.parametrize("name", [name for name in MODELS if not hasattr(MODELS[name], "prepare")])
def test_a_model_is_the_same_wherever_its_tables_are_and_asks_each_once(name: str) -> None:
    """Once a step: the penalty of a row is paid by its look-up."""
    schema = SCHEMAS["three-domains"]
    ids = random_split(schema, 50).ids
    here = build(name, schema, {}, seed=1).eval()
    with held(Elsewhere):
        there = build(name, schema, {}, seed=1).eval()
    assert torch.equal(there(ids), here(ids))
    layers = adam.tables(there)
    assert layers and all(layer.table.calls == 1 for layer in layers)
    groups = adam.parameter_groups(there, 1e-3, 1e-3, 0.0)
    assert not any(group.rows for group in groups), "Adam leaves them alone"
    trained = {id(p) for group in groups for p in group.params}
    assert trained == {id(p) for p in there.parameters() if p.requires_grad}


# ---- files ----


def test_a_file_of_parts_is_read_by_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "BLOCK_BYTES", 40)
    whole = {
        "table": torch.randn(7, 4)[:, :3],
        "one": torch.tensor(2.5),
        "none": torch.empty(0),
        "steps": torch.arange(3),
        "bytes": torch.arange(5, dtype=torch.uint8),
    }
    with parts.writing(tmp_path / "file") as file:
        parts.write(file, {**whole, "table": parts.Rows(whole["table"], [7])}, digest=2)
        assert file is not None
        file.write(b"ab")
    found = load_file(tmp_path / "file")
    assert found.pop("digest").tolist() == list(b"ab")
    assert found.keys() == whole.keys()
    for name, value in whole.items():
        assert torch.equal(found[name], value) and found[name].dtype == value.dtype


# ---- what is refused, and where nothing changes ----


def test_without_torchrec_the_message_has_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchrec", None)
    with pytest.raises(
        PipelineError, match=r"sharded tables need TorchRec .*`pip install --no-deps .*torchrec=="
    ):
        sharded.build("deepfm", SCHEMAS["no-bags"], {}, seed=1, tables=Tables("row_wise", 0.1))


def test_the_command_of_the_message_is_that_of_the_docs() -> None:
    text = (project.ROOT / "docs/scale.md").read_text(encoding="utf-8")
    assert f"`{sharded.INSTALL}`" in " ".join(text.split())


@pytest.mark.parametrize(
    ("settings", "device", "warm", "message"),
    [
        (
            {"average_epochs": 1.0},
            "cpu",
            False,
            r"average_epochs: 1, clip_norm: 10 cannot be had .* set both to 0",
        ),
        (
            {"clip_norm": 5.0},
            "cpu",
            False,
            "train: clip_norm: 5 cannot be had .* set it to 0, or `tables: whole`",
        ),
        (
            {"clip_norm": 0.0},
            "meta",
            False,
            "sharded tables are trained on CPUs, not on meta: set `device: cpu`",
        ),
        (
            {"clip_norm": 0.0, "l2_tables": "whole"},
            "cpu",
            False,
            "l2_tables: whole cannot .* `l2_tables: batch`",
        ),
        ({"clip_norm": 0.0}, "cpu", True, "encode.warm_start.* needs whole tables"),
    ],
)
def test_what_sharded_tables_cannot_have_is_refused(
    settings: dict[str, Any], device: str, warm: bool, message: str
) -> None:
    with pytest.raises(PipelineError, match=message):
        sharded.check({**runs.DEFAULTS, **settings}, torch.device(device), warm=warm)


@pytest.mark.parametrize("name", [name for name in MODELS if hasattr(MODELS[name], "prepare")])
def test_a_model_that_learns_before_the_first_step_is_refused(name: str) -> None:
    with pytest.raises(PipelineError, match=f"{name} learns from the train rows .* `tables: whole`"):
        sharded.build(name, SCHEMAS["no-bags"], {}, seed=1, tables=Tables("row_wise", 0.1))


def test_only_the_stage_train_shards() -> None:
    values = project.small_params()
    values["train"]["tables"] = "row_wise"
    config = Params(values).config(project.DATASET, "fm")
    assert config.train.sharded == {"sharding": "row_wise", "lr": 0.02}
    with pytest.raises(
        PipelineError, match=r"train.tables: row_wise: a search trains whole tables.* `tables: whole`"
    ):
        config.train.require_whole_tables("a search")
    values["train"]["tables"] = "rows"
    with pytest.raises(PipelineError, match=r"train.tables: should be 'whole', 'row_wise' or 'table_wise'"):
        Params(values)


def test_whole_tables_leave_no_trace_in_a_run() -> None:
    values = project.small_params()
    config = Params(values).config(project.DATASET, "fm")
    assert config.train.sharded is None
    config.train.require_whole_tables("a search")
    assert not {"tables", "tables_lr"} & config.train.fit.keys()
    rows = random_split(SCHEMAS["no-bags"], 10)
    assert runs.execution_settings((rows, rows), 100, tables=config.train.sharded) == {}
    values["train"] |= {"tables": "table_wise", "tables_lr": 0.1}
    other = Params(values).config(project.DATASET, "fm").train.sharded
    some = runs.execution_settings((rows, rows), 100, tables=other)
    assert some == {"tables": {"sharding": "table_wise", "lr": 0.1}}


# ---- with TorchRec ----


def torchrun(count: int, *words: str, cwd: Path = project.ROOT) -> list[str]:
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    return [*start, *words] if count > 1 else [sys.executable, *words]


def run(count: int, *words: str, cwd: Path = project.ROOT) -> subprocess.CompletedProcess[str]:
    env = project.environment(CTR_TRACKING="off", OMP_NUM_THREADS="1")
    return subprocess.run(
        torchrun(count, *words), cwd=cwd, env=env, capture_output=True, text=True, timeout=900
    )


@needs_torchrec
@pytest.mark.slow
@pytest.mark.parametrize(("count", "sharding"), [(1, "row_wise"), (2, "row_wise"), (2, "table_wise")])
def test_rows_are_updated_by_row_wise_adagrad_with_our_penalty(
    count: int, sharding: str, tmp_path: Path
) -> None:
    """G_i <- G_i + mean(g_i^2), w_i <- w_i - lr g_i / sqrt(G_i); g_i has l2 (t / n_i) w_i added once."""
    script = sharded_script
    done = run(count, str(Path(script.__file__)), str(tmp_path), sharding)
    assert done.returncode == 0, done.stderr
    w = script.initial().double()
    seen, total = [0] * script.ROWS, [0.0] * script.ROWS
    for t in range(1, script.STEPS + 1):
        ids, gradient = script.step(t - 1)
        lr = script.LR * (0.5 if t > script.HALVED else 1)
        for row in set(ids.flatten().tolist()) - {EMPTY}:
            g = gradient[ids == row].double().sum(0)
            seen[row] += 1
            g = g + script.L2 * t / seen[row] * w[row]
            total[row] += float((g**2).mean())
            w[row] -= lr * g / total[row] ** 0.5
    found = load_file(tmp_path / "table")["table"]
    assert found.shape == w.shape
    torch.testing.assert_close(found[1:].double(), w[1:], rtol=1e-5, atol=1e-6)


@needs_torchrec
@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["row_wise", "table_wise"])
def test_processes_with_sharded_tables_train_what_one_trains(
    sharding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.ROOT)
    options = Namespace(**{**vars(OPTIONS), "sharding": sharding})
    alone, both = (benchmark.measured(options, count) for count in (1, 2))
    assert benchmark.difference(both, alone) < TOLERANCE
    assert both["curve"][-1]["valid_auc"] > both["curve"][0]["valid_auc"] > 0.6
    held = [size for size, *_ in both["each"]]
    (whole, *_), *_ = alone["each"]
    assert sum(held) == whole
    if sharding == "row_wise":
        assert max(held) < 0.51 * whole
    # what rank 0 wrote, read into the plain model by one process
    assert both["alone"]["auc"] == pytest.approx(both["valid"]["auc"], abs=1e-6)
    assert both["alone"]["logloss"] == pytest.approx(both["valid"]["logloss"], abs=1e-6)
    assert both["packaged"] < 1e-6, "a package written from them scores raw rows"


@needs_torchrec
@pytest.mark.slow
def test_a_resumed_training_ends_like_one_that_was_never_stopped(tmp_path: Path) -> None:
    """Dropout, cuts of the learning rate, which the rows' follows, and the thresholds of grades included."""
    done = run(2, str(Path(sharded_script.__file__)), str(tmp_path), "resumed")
    assert done.returncode == 0, done.stderr
    curve = torch.load(tmp_path / "whole.curve")
    assert torch.load(tmp_path / "resumed.curve") == curve
    assert len({row["lr"] for row in curve}) > 1
    assert (tmp_path / "resumed").read_bytes() == (tmp_path / "whole").read_bytes()
    assert not (tmp_path / "stopped").exists()


# ---- the stage ----

TRAIN = {
    "tables": "row_wise",
    "epochs": 4,
    "batch_size": 128,
    "min_steps_per_epoch": 0,
    "evaluations_per_epoch": 2,
    "seeds": [1, 2],
    "refit": True,
    "threads": 1,
    "lr": 0.01,
    "embedding_l2": 1e-3,
    "linear_l2": 1e-3,
    "l2_rows": 0,
    "clip_norm": 0.0,
    "average_epochs": 0.0,
}
MODEL = "fiinet"  # it has a mechanism


@pytest.fixture(scope="module", name="data")
def _data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    values = project.small_params()
    entry = values["data"][project.DATASET]
    entry["settings"]["train"] = TRAIN
    entry["settings"]["model"] = {
        "embedding_dropout": 0.0,
        "dropout": 0.0,
        "embedding_size": 6,
        "hidden": [8],
    }
    folder = project.make_project(
        tmp_path_factory.mktemp("sharded") / "project", data=values["data"], models=[MODEL]
    )
    project.prepare(folder)
    return folder


def stage(count: int, folder: Path, model: str = MODEL) -> list[str]:
    return torchrun(count, *project.command("train", model)[1:])


def train(count: int, folder: Path, model: str = MODEL) -> Path:
    """Run the stage; return what it left, moved away."""
    done = run(count, *project.command("train", model)[1:], cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "row-wise Adagrad" in done.stdout
    out = folder / "data/runs" / project.DATASET / model
    return shutil.move(out / "default", out / f"of-{count}-{time.monotonic_ns()}")


@pytest.fixture(scope="module", name="both")
def _both(data: Path) -> Path:
    return train(2, data)


@needs_torchrec
@pytest.mark.slow
def test_the_stage_leaves_what_one_process_leaves(data: Path, both: Path) -> None:
    alone = train(1, data)
    assert sorted(path.name for path in both.iterdir()) == sorted(path.name for path in alone.iterdir())
    ours, theirs = (read_json(folder / "run.json") for folder in (both, alone))
    assert ours.pop("processes") == 2
    assert ours["tables"] == theirs["tables"] == {"sharding": "row_wise", "lr": 0.02}
    assert ours.keys() == theirs.keys()
    plain = build(MODEL, data_schema(data), ours["params"]["model"], seed=0)
    assert ours["weights"] == theirs["weights"] == sum(p.numel() for p in plain.parameters())
    for one, other in zip(ours["seeds"], theirs["seeds"], strict=True):
        assert len(one["curve"]) == len(other["curve"]) > 2
        for mine, yours in zip(one["curve"], other["curve"], strict=True):
            assert mine["valid_logloss"] == pytest.approx(yours["valid_logloss"], abs=1e-3)
        assert one["mechanisms"]["weights"].keys() == other["mechanisms"]["weights"].keys()
        plain.load_state_dict(load_file(both / f"seed-{one['seed']}.safetensors"))
    assert not list((data / "data/checkpoints").rglob("*seed*"))


def data_schema(folder: Path) -> Schema:
    return Split.load(folder / "data/processed" / project.DATASET, "train", torch.device("cpu")).schema


@needs_torchrec
@pytest.mark.slow
def test_the_report_comes_of_its_weights(data: Path, both: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(data, tmp_path / "project", symlinks=True)
    out = folder / "data/runs" / project.DATASET
    shutil.move(out / MODEL / both.name, out / MODEL / "default")
    for name, model in (("tune", MODEL), ("evaluate", None)):
        done = project.run(folder, name, model, CTR_TRACKING="off")
        assert done.returncode == 0, done.stderr
    tuned, default = (read_json(out / MODEL / name / "run.json") for name in ("tuned", "default"))
    assert [trial["number"] for trial in tuned["search"]["trials"]] == [0]
    assert tuned["seeds"] == default["seeds"] and tuned["refit"] == default["refit"]
    valid = [seed["best"]["valid_auc"] for seed in read_json(out / MODEL / "default/run.json")["seeds"]]
    table = pd.read_csv(folder / f"data/reports/{project.DATASET}/leaderboard.csv")
    for variant in ("default", "tuned"):
        row = table[(table.model == MODEL) & (table.variant == variant)]
        assert row.valid_auc.item() == pytest.approx(sum(valid) / len(valid), abs=1e-4)


@needs_torchrec
@pytest.mark.slow
@pytest.mark.kill
def test_a_killed_training_goes_on_with_the_same_bits(data: Path, both: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(data, tmp_path / "project", symlinks=True)
    kills, seen = 0, {}
    for _ in range(2):
        process = subprocess.Popen(
            stage(2, folder),
            cwd=folder,
            env=project.environment(CTR_TRACKING="off", OMP_NUM_THREADS="1"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        while process.poll() is None and checkpoints(folder) == seen:
            time.sleep(0.002)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # the ranks, too
            kills += 1
        process.wait()
        seen = checkpoints(folder)
    assert kills, "the stage ended before it could be killed"
    path, _ = next(iter(seen.items()))
    with safe_open(path, "pt") as file:  # by one process
        plain = build(MODEL, data_schema(folder), read_json(both / "run.json")["params"]["model"], seed=0)
        for start in ("model.", "best."):
            plain.load_state_dict({name: file.get_tensor(start + name) for name in plain.state_dict()})
    again = train(2, folder)
    for name in ("run.json", "seed-1.safetensors", "seed-2.safetensors", "refit-2.safetensors"):
        assert (again / name).read_bytes() == (both / name).read_bytes()


def checkpoints(folder: Path) -> dict[Path, int]:
    found = (folder / "data/checkpoints").rglob("seed-*.safetensors")
    return {path: path.stat().st_mtime_ns for path in found if "weights" not in path.name}


@needs_torchrec
@pytest.mark.slow
def test_a_refusal_is_one_message(data: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(data, tmp_path / "project", symlinks=True)
    values = project.small_params()
    values["data"][project.DATASET]["settings"]["train"] = {**TRAIN, "clip_norm": 10.0}
    project.make_project(folder, data=values["data"], models=[MODEL])
    done = run(2, *project.command("train", MODEL)[1:], cwd=folder)
    assert done.returncode != 0
    message = "train: clip_norm: 10 cannot be had with sharded tables"
    assert (done.stdout + done.stderr).count(message) == 1
