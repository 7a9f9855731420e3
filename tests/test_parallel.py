"""Several processes train what one trains, decide as one, write once, and do not wait for the dead."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import project
import pytest
import torch
import torchrun_script
from safetensors.torch import load_file

from pipeline.common.errors import PipelineError
from pipeline.common.files import read_json
from pipeline.data.batches import Batch
from pipeline.train import ranks

pytestmark = pytest.mark.slow

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
SCRIPT = str(Path(torchrun_script.__file__))


def torchrun(*words: str, cwd: Path = project.ROOT, limit: float = 300) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*TORCHRUN, *words],
        cwd=cwd,
        env=project.environment(CTR_TRACKING="off"),
        capture_output=True,
        text=True,
        timeout=limit,
    )


def close(ours: Any, theirs: Any, atol: float = 1e-6) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=atol)


@pytest.fixture(scope="module", name="ended")
def _ended(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, list[str], dict[str, Any]]]:
    """What two ranks ended with: how many there were, what they raised, what they computed."""
    folder = tmp_path_factory.mktemp("ranks")
    done = torchrun(SCRIPT, str(folder), "everything")
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    return [torch.load(folder / f"everything-{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.fixture(scope="module", name="both")
def _both(ended: list[tuple[int, list[str], dict[str, Any]]]) -> list[dict[str, Any]]:
    return [result for _, _, result in ended]


@pytest.mark.thorough
def test_both_ranks_end_with_the_same_bits(both: list[dict[str, Any]]) -> None:
    torch.testing.assert_close(both[0], both[1], rtol=0, atol=0, equal_nan=True)


@pytest.mark.thorough
@pytest.mark.parametrize("size", torchrun_script.SIZES)
@pytest.mark.parametrize("name", ["lr", "fm", "deepfm"])
def test_two_ranks_train_what_one_trains(both: list[dict[str, Any]], name: str, size: int) -> None:
    found, alone = both[0][f"{name}-{size}"], torchrun_script.train(name, size)
    close(found["weights"], alone["weights"])
    close(found["scores"], alone["scores"])
    assert len(found["curve"]) == len(alone["curve"]) >= 3
    for ours, theirs in zip(found["curve"], alone["curve"], strict=True):
        assert ours["step"] == theirs["step"]
        assert ours["train_logloss"] == pytest.approx(theirs["train_logloss"], abs=1e-6)
        assert ours["valid_logloss"] == pytest.approx(theirs["valid_logloss"], abs=1e-6)


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["fnn", "gbdt_lr", "din"])
def test_models_that_prepare_do_so_on_every_rank(both: list[dict[str, Any]], name: str) -> None:
    size = torchrun_script.SIZES[0]
    found, alone = both[0][f"{name}-{size}"], torchrun_script.train(name, size)
    atol = 1e-3 if name == "fnn" else 1e-6  # FNN's factorization machine trains in float32
    close(found["weights"], alone["weights"], atol)
    close(found["scores"], alone["scores"], atol)


@pytest.mark.thorough
@pytest.mark.parametrize("rows", [3, 5, 43])
def test_gradients_of_sparse_and_of_large_tables_are_those_of_the_whole_batch(
    both: list[dict[str, Any]], rows: int
) -> None:
    found, alone = both[0][f"gradients-{rows}"], torchrun_script.gradients(rows)
    assert found["rows"] == alone["rows"]
    assert rows == 43 or found["rows"] < torchrun_script.SCHEMA.vocabulary_size, (
        "only the rows that were used"
    )
    close(found["table"], alone["table"])
    close(found["large"], alone["large"])


@pytest.mark.thorough
def test_what_ends_a_training_ends_it_on_every_rank(ended: list[tuple[int, list[str], Any]]) -> None:
    for count, raised, _ in ended:
        assert count == 2
        assert raised == ["Pruned", "Diverged", "Pruned"]


@pytest.mark.thorough
def test_a_resumed_training_ends_like_one_that_was_never_stopped(both: list[dict[str, Any]]) -> None:
    """Each rank goes on with its own dropout."""
    for result in both:
        torch.testing.assert_close(result["resumed"], result["whole"], rtol=0, atol=0)


@pytest.mark.thorough
def test_dropout_differs_from_rank_to_rank(both: list[dict[str, Any]]) -> None:
    alone = torchrun_script.train_stateful()["curve"]
    assert both[0]["whole"]["curve"][0]["valid_logloss"] != alone[0]["valid_logloss"]
    assert both[0]["whole"]["curve"][-1]["train_logloss"] == pytest.approx(
        alone[-1]["train_logloss"], rel=0.1
    )


@pytest.mark.thorough
def test_the_death_of_one_rank_ends_the_other(tmp_path: Path) -> None:
    """Or the limit of the subprocess would."""
    done = torchrun(SCRIPT, str(tmp_path), "die")
    assert done.returncode != 0


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("small",), "a batch of 3 rows is too small for 2 processes"),
        (("small", "meta"), "several processes train on `device: cpu` or `device: cuda`, not on meta"),
        (("alone",), "only rank 1 knows"),
    ],
)
def test_what_cannot_work_is_refused_once_in_the_last_lines(
    tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    done = torchrun(SCRIPT, str(tmp_path), *words)
    assert done.returncode != 0
    assert (done.stdout + done.stderr).count(message) == 1
    assert f"error: {message}" in "".join(done.stderr.splitlines()[-2:])


# ---- one rank: nothing changes ----


def test_a_process_alone_has_all_of_everything() -> None:
    assert (ranks.count(), ranks.rank(), ranks.seed_of_rank(5)) == (1, 0, 5)
    assert ranks.own_range(7) == range(7)
    batch = Batch(torch.zeros(1, 2, dtype=torch.int32), torch.ones(1))
    share, weight = ranks.share(batch)
    assert share is batch
    assert weight == 1
    assert ranks.gathered("a") == ["a"]
    with ranks.group(torch.device("meta")) as device:
        assert device.type == "meta"


@pytest.mark.parametrize("count", [0, 1, 2, 7, 100])
def test_shares_are_equal_up_to_one_and_make_up_the_whole(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks, "count", lambda: 3)
    parts = []
    for rank in range(3):
        monkeypatch.setattr(ranks, "rank", lambda rank=rank: rank)
        parts.append(ranks.own_range(count))
    assert [i for part in parts for i in part] == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


# ---- stages ----


@pytest.fixture(scope="module", name="data")
def _data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    values = project.small_params()["data"]
    values[project.DATASET]["settings"]["model"] = {"embedding_dropout": 0.0}
    folder = project.make_project(tmp_path_factory.mktemp("stages") / "prepared", data=values)
    project.prepare(folder)
    return folder


@pytest.mark.thorough
def test_the_stage_writes_the_same_folder_once(data: Path) -> None:
    runs = data / "data/runs" / project.DATASET / "fm"
    alone = project.run(data, "train", "fm", CTR_TRACKING="off")
    assert alone.returncode == 0, alone.stderr
    (runs / "default").rename(runs / "alone")
    done = torchrun(*project.command("train", "fm")[1:], cwd=data)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(alone.stdout.splitlines()) == 4, "one rank tells"
    first, second, *_ = alone.stdout.splitlines()
    assert first == "train fm on synthetic"
    assert second.startswith("batches of 32 rows (batch_size 128, min_steps_per_epoch 100)")
    files = [sorted(path.name for path in (runs / name).iterdir()) for name in ("default", "alone")]
    assert files[0] == files[1]
    found, expected = (read_json(runs / name / "run.json") for name in ("default", "alone"))
    assert found.pop("processes") == 2
    assert found.keys() == expected.keys()
    assert found["params"] == expected["params"]
    assert found["key"] != expected["key"]
    for ours, theirs in zip(found["seeds"], expected["seeds"], strict=True):
        assert ours["best"]["valid_auc"] == pytest.approx(theirs["best"]["valid_auc"], abs=1e-3)
        name = f"seed-{ours['seed']}.safetensors"
        close(load_file(runs / "default" / name), load_file(runs / "alone" / name), atol=2e-3)
    assert not list((data / "data/checkpoints").rglob("*.pt"))


@pytest.mark.thorough
@pytest.mark.parametrize("stage", ["split", "tune", "evaluate"])
def test_other_stages_refuse_to_be_several(data: Path, stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    done = project.run(data, stage, "fm" if stage == "tune" else None, WORLD_SIZE="2")
    assert done.returncode == 1
    assert "error: only stages.train shares its work: start this stage without torchrun" in done.stderr


def test_more_processes_than_gpus_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "99")
    monkeypatch.setenv("LOCAL_RANK", "98")
    with (
        pytest.raises(PipelineError, match="each process needs its own GPU"),
        ranks.group(torch.device("cuda")),
    ):
        pass
