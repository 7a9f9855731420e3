"""A finished training is taken from the cache as it was, or computed again."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from rows import SCHEMAS, random_split
from safetensors.torch import load_file, save, save_file
from torch import nn

from pipeline.common.errors import PipelineError
from pipeline.common.files import digest
from pipeline.models import build
from pipeline.train import cache, runs
from pipeline.train.checkpoint import State

SCHEMA = SCHEMAS["three-domains"]
PARTS = random_split(SCHEMA, 300, seed=1), random_split(SCHEMA, 150, seed=2)
PARAMS = {
    "model": {"embedding_size": 4, "hidden": [8], "dropout": 0.2},
    "train": {"epochs": 5, "batch_size": 64, "lr": 0.02, "patience": 99},
}
HEAD = runs.RunHeader("train", "d", "deepfm", "deepfm", PARAMS, input="1" * 16, rows="0" * 16)
CPU = torch.device("cpu")
WHAT = {"made": "up"}


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CTR_STORE", raising=False)


def train(seed: int = 1, log: Any = None, params: Any = PARAMS) -> cache.Trained:
    return runs.train_once(HEAD, PARTS, params, seed, checkpoint=Path("checkpoints/seed"), log=log)


def bits(trained: cache.Trained) -> tuple[bytes, State, int]:
    return save(trained.tensors), trained.state, trained.weights


def entries() -> list[Path]:
    return sorted(cache.FOLDER.glob("*"))


@pytest.mark.slow
def test_a_training_is_computed_once_and_heard_twice(fits: list[int]) -> None:
    heard: list[list[Any]] = [[], []]
    first, second = (train(log=lambda row, step, to=to: to.append((list(row.items()), step))) for to in heard)
    assert bits(first) == bits(second)
    assert heard[0] == heard[1]
    assert len(heard[0]) == 5
    assert fits == [1]
    assert bits(first)[1] == train().state


@pytest.mark.slow
def test_a_training_that_is_taken_from_the_cache_is_told_as_what_it_may_be(
    fits: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    """In a first run, too, another process of the stage or an earlier stage has trained it."""
    train()
    capsys.readouterr()
    runs.train_once(HEAD, PARTS, PARAMS, 1, checkpoint=Path("checkpoints/seed"), progress="fm default seed-1")
    assert capsys.readouterr().out == (
        "fm default seed-1: trained already, by another process of this stage or in an earlier one "
        "(data/trainings)\n"
    )
    assert fits == [1]


def test_without_the_cache_it_is_the_same(fits: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    first = train()
    monkeypatch.setenv("CTR_STORE", "off")
    assert bits(train()) == bits(first)
    assert fits == [1, 1]


class Pruned(Exception):
    pass


def test_what_is_heard_may_end_it_at_the_same_step_and_then_nothing_is_kept(fits: list[int]) -> None:
    def stops(heard: list[int]) -> Any:
        def log(_row: dict[str, float], step: int) -> None:
            heard.append(step)
            if len(heard) == 3:
                raise Pruned

        return log

    steps: list[list[int]] = [[], []]
    with pytest.raises(Pruned):
        train(log=stops(steps[0]))
    assert entries() == []
    for path in Path("checkpoints").iterdir():
        path.unlink()
    train()
    with pytest.raises(Pruned):
        train(log=stops(steps[1]))
    assert steps[0] == steps[1]
    assert fits == [1, 1]


def other(**more: Any) -> dict[str, Any]:
    return {"architecture": "fm", "params": PARAMS, "seed": 1, "rows": "a", "device": CPU, **more}


def test_whatever_decides_a_training_is_in_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {digest(cache.key(**other()))}
    for change in (
        {"architecture": "deepfm"},
        {"params": {**PARAMS, "model": {"embedding_size": 8}}},
        {"params": {**PARAMS, "train": {**PARAMS["train"], "lr": 0.03}}},
        {"seed": 2},
        {"rows": "b"},
    ):
        names.add(digest(cache.key(**other(**change))))
    monkeypatch.setattr(torch, "__version__", "0.0.0")
    names.add(digest(cache.key(**other())))
    monkeypatch.undo()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    names.add(digest(cache.key(**other())))
    monkeypatch.undo()
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: "else")
    names.add(digest(cache.key(**other())))
    monkeypatch.undo()
    monkeypatch.setattr(cache, "code_digest", lambda *_: "other code")
    names.add(digest(cache.key(**other())))
    assert len(names) == 10


def made() -> cache.Trained:
    state = State(curve=[{"step": 7, "valid_auc": 0.1 + 0.2, "epoch": 1.0}], best=0, epoch=1, step=7)
    return cache.Trained.of(build("fm", SCHEMA, {"embedding_size": 2}, seed=1), state)


def test_a_damaged_entry_is_reported_and_not_used(capsys: pytest.CaptureFixture[str]) -> None:
    cache.put(WHAT, made())
    path = cache.path_of(WHAT)
    content = path.read_bytes()
    found = cache.get(WHAT)
    assert found is not None
    assert bits(found) == bits(made())
    assert capsys.readouterr().err == ""
    cut = [content[:length] for length in (0, 1, 7, 8, 100, len(content) // 2, len(content) - 1)]
    flipped = [
        content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :] for at in range(0, len(content), 5)
    ]
    for damaged in (*cut, *flipped, content + b"x", b"no safetensors at all"):
        path.write_bytes(damaged)
        assert cache.get(WHAT) is None, damaged[:200]
        assert "is damaged" in capsys.readouterr().err


def test_a_damaged_entry_is_computed_again_and_mended(fits: list[int]) -> None:
    first = train()
    (path,) = entries()
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    for checkpoint in Path("checkpoints").iterdir():
        checkpoint.unlink()
    assert bits(train()) == bits(first)
    assert path.read_bytes() == content
    assert fits == [1, 1]


def test_the_least_recently_used_go_when_it_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    cache.put({"n": 0}, made())
    size = entries()[0].stat().st_size
    monkeypatch.setattr(cache, "LIMIT_BYTES", 3 * size + size // 2)
    for n in range(3):
        cache.put({"n": n}, made())
        os.utime(cache.path_of({"n": n}), (1000 + n, 1000 + n))
    assert cache.get({"n": 0})  # used: younger than the others now
    cache.put({"n": 3}, made())
    assert [cache.contains({"n": n}) for n in range(4)] == [True, False, True, True]


def test_one_that_is_larger_than_the_cache_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    cache.put({"n": 0}, made())
    monkeypatch.setattr(cache, "LIMIT_BYTES", 100)
    cache.put({"n": 1}, made())
    assert [path.name for path in entries()] == [cache.path_of({"n": 0}).name]


def test_a_training_that_cannot_be_cached_is_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    cache.FOLDER.parent.mkdir()
    cache.FOLDER.touch()  # a file where the folder should be
    assert train().state.curve
    assert "could not be cached" in capsys.readouterr().err


def test_the_switch_is_on_or_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CTR_STORE", "no")
    with pytest.raises(PipelineError, match="CTR_STORE='no': must be `off` or `on`"):
        cache.enabled()
    monkeypatch.setenv("CTR_STORE", "on")
    assert cache.enabled()
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not cache.enabled()


def test_a_table_under_two_names_and_a_view_are_kept(tmp_path: Path) -> None:
    network = nn.Module()
    network.item = nn.Embedding(4, 2)
    network.user = network.item
    network.register_buffer("first", network.item.weight.detach()[:1])
    trained = cache.Trained.of(network, State())
    save_file(trained.tensors, tmp_path / "weights.safetensors")
    kept = load_file(tmp_path / "weights.safetensors")
    assert kept.keys() == network.state_dict().keys()
    for name, value in network.state_dict().items():
        assert torch.equal(kept[name], value)
