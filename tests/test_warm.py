"""A warm start: vocabularies that grow, weights that stay with their values, and stages that know of it."""

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from model_options import options
from rows import SCHEMAS, random_split, wake
from safetensors.torch import load, save
from torch import Tensor

from pipeline import __main__ as command
from pipeline.common.errors import PipelineError
from pipeline.common.files import folder_digest, read_json, write_json
from pipeline.data.batches import Split
from pipeline.models import MODELS, build
from pipeline.preprocess.parse import chunk
from pipeline.schema import EMPTY, Column, Schema
from pipeline.scoring.pack import pack
from pipeline.split import warm as packages
from pipeline.split.vocabulary import Vocabulary, apply, fit_vocabulary, schema
from pipeline.train import runs, warm
from pipeline.train.cache import Trained
from pipeline.train.checkpoint import State
from pipeline.train.predict import predict
from pipeline.train.start import prepare
from tests import project

Run = Callable[..., Path]
COLUMNS = (
    Column("city", "category", "user"),
    Column("price", "number", "item"),
    Column("tags", "bag", "item"),
)
OLD = pa.table({"city": ["b", "b", "a", None], "price": [1.0, 2.0, 3.0, 4.0], "tags": ["x|y", "x", "", "x"]})
NEW = pa.table(
    {"city": ["d", "d", "c", "a"], "price": [9.0, None, 3.0, 8.0], "tags": ["z|x|y", "z", "z", "w"]}
)


def vocabulary(table: pa.Table, columns: tuple[Column, ...] = COLUMNS, **more: Any) -> Vocabulary:
    return fit_vocabulary(lambda name: [chunk(table[name])], columns, **more)


# ---- the vocabulary ----


def test_old_values_stay_where_they_were_and_new_ones_follow_by_their_count():
    old = vocabulary(OLD)
    grown = vocabulary(NEW, earlier=old)
    assert [entry["values"] for entry in old if entry["kind"] != "number"] == [["b", None, "a"], ["x", "y"]]
    assert grown[0]["values"] == ["b", None, "a", "d", "c"]
    assert grown[2]["values"] == ["x", "y", "z", "w"]
    assert grown[1] == old[1]
    assert grown[2]["slots"] == old[2]["slots"] == 2
    assert vocabulary(OLD, earlier=old) == old


def test_a_new_value_needs_as_many_rows_as_any_and_an_old_one_none():
    grown = vocabulary(NEW, earlier=vocabulary(OLD), min_count=2)
    assert grown[0]["values"] == ["b", None, "a", "d"]
    assert grown[2]["values"] == ["x", "y", "z"]


def test_an_old_row_has_the_same_places_in_each_field():
    old = vocabulary(OLD)
    grown = vocabulary(NEW, earlier=old)
    before, after = schema(old), schema(grown)
    assert (apply(grown, OLD) == moved(torch.from_numpy(apply(old, OLD)), before, after).numpy()).all()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (COLUMNS[:2], "the fields are city, price, the earlier vocabulary has city, price, tags"),
        ((replace(COLUMNS[0], domain="item"), *COLUMNS[1:]), "domain of the field 'city' is 'item'"),
        ((*COLUMNS[:2], replace(COLUMNS[2], separator=",")), "separator of the field 'tags' is ','"),
    ],
)
def test_other_fields_are_an_error(columns: tuple[Column, ...], message: str):
    with pytest.raises(PipelineError, match=message):
        vocabulary(NEW, columns, earlier=vocabulary(OLD))


# ---- the weights ----


def grown(before: Schema, more: int = 2) -> Schema:
    return Schema(tuple(replace(field, size=field.size + more) for field in before.fields))


def moved(ids: Tensor, before: Schema, after: Schema) -> Tensor:
    """The ids of the same values in the grown schema."""
    shift = torch.tensor([after.offsets[i] - before.offsets[i] for i in before.field_of_slot])
    return torch.where(ids == EMPTY, EMPTY, ids + shift).int()


def package(folder: Path, name: str, schema: Schema, chosen: dict[str, Any], rows: Split) -> torch.nn.Module:
    """A trained model, or one that might have been, and what a warm start reads of its package."""
    model = build(name, schema, chosen, seed=1)
    wake(model)
    prepare(model, rows, rows, lambda other, *_, **__: pytest.fail(f"{other} was trained"))
    folder.mkdir()
    write_json(folder / "package.json", {"architecture": name, "options": chosen})
    write_json(folder / "schema.json", schema.to_json())
    (folder / "weights.safetensors").write_bytes(save(Trained.of(model, State()).tensors))
    return model.eval()


COLD = {"fnn", "gbdt_lr"}  # they learn before the first step


@pytest.mark.parametrize(
    ("name", "more"),
    [
        *((name, {}) for name in MODELS if name not in COLD),
        ("fnn", {"pretrain": False}),
        ("fm", {"neighbour_limit": 100}),  # which of more are drawn depends on the schema
        ("deepfm", {"batch_norm": True}),
    ],
)
def test_what_was_known_is_scored_as_before_and_a_new_value_as_an_unseen_one(
    name: str, more: dict[str, Any], tmp_path: Path
):
    before, chosen = SCHEMAS["three-domains"], {**options(name), **more}
    after, rows = grown(before), random_split(before, 60)
    old = package(tmp_path / "old", name, before, chosen, rows)
    new = build(name, after, chosen, seed=7)
    warm.begin(new, tmp_path / "old")
    same = replace(rows, schema=after, ids=moved(rows.ids, before, after))
    prepare(new, same, same, lambda *_, **__: State())
    new.eval()
    torch.testing.assert_close(predict(new, same), predict(old, rows))

    if not getattr(new, "timed", False) and not more.get("neighbour_limit") and name != "autorec":
        hour = before.field_of_slot.index(0)
        unseen, last = same.ids.clone(), same.ids.clone()
        unseen[:, hour], last[:, hour] = after.offsets[0], after.offsets[0] + after.fields[0].size - 1
        torch.testing.assert_close(
            predict(new, replace(same, ids=last)), predict(new, replace(same, ids=unseen))
        )


def test_a_model_that_learns_before_the_first_step_is_refused(tmp_path: Path):
    before = SCHEMAS["no-bags"]
    for name in COLD:
        (tmp_path / name).mkdir()
        write_json(tmp_path / name / "package.json", {"architecture": name, "options": {}})
        with pytest.raises(PipelineError, match=f"{name} cannot start warm"):
            warm.begin(build(name, before, options(name), seed=1), tmp_path / name)


@pytest.mark.parametrize("until", [None, 5, 41, 99])
def test_a_pass_has_each_new_row_several_times_and_the_memory_once(until: int | None, tmp_path: Path):
    rows = random_split(SCHEMAS["no-bags"], 60)
    rows = replace(rows, time=torch.arange(60))
    write_json(tmp_path / "package.json", {"trained_on": {} if until is None else {"until": until}})
    found = warm.rehearsed(rows, tmp_path)
    new = 18 if until == 41 else 54 if until == 5 else 0
    assert len(found) == 60 + (warm.NEW_ROWS - 1) * new
    assert all(torch.equal(a, b) for a, b in zip(found.whole()[:3], rows.whole()[:3], strict=True))
    passed = list(found.batches(16, torch.Generator().manual_seed(1)))
    assert len(passed) == found.count(16)
    seen = torch.cat([batch.time for batch in passed if batch.time is not None]).bincount(minlength=60)
    often = torch.tensor([warm.NEW_ROWS if new and time > (until or 0) else 1 for time in range(60)])
    assert torch.equal(seen, often)
    again = torch.cat([batch.ids for batch in found.batches(16, torch.Generator().manual_seed(1), skip=2)])
    assert torch.equal(again, torch.cat([batch.ids for batch in passed[2:]]))
    timeless = replace(rows, time=None)
    assert warm.rehearsed(timeless, tmp_path) is timeless


# ---- the stages ----


def by_days(day: int, **encode: Any) -> dict[str, Any]:
    values = project.small_params()
    entry = values["data"]["synthetic"]
    entry["split"] = {"method": "days", "day": day, "train_days": 18}
    entry["encode"] = {"min_count": 2, **encode}
    entry["settings"]["train"]["seeds"] = [1]
    return values


@pytest.fixture(name="tomorrow")
def _tomorrow(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose FM of day 18 is packed, ready for the split and the training of day 20."""
    monkeypatch.setenv("CTR_TRACKING", "off")
    folder = tmp_path / "project"
    project.make_project(folder, **by_days(18))
    run(folder, "synthetic")
    train(monkeypatch)
    pack(folder, "synthetic", "fm", "default").write(folder / "packages/fm")
    project.make_project(folder, **by_days(20, warm_start={"fm": "packages/fm"}))
    return folder


def train(monkeypatch: pytest.MonkeyPatch, model: str = "fm") -> dict[str, Any]:
    from stages import train as stage

    monkeypatch.setattr("sys.argv", ["train", "--dataset", "synthetic", "--model", model])
    stage.main()
    result: dict[str, Any] = read_json(Path("data/runs/synthetic", model, "default/run.json"))
    return result


@pytest.mark.slow
def test_a_training_begins_where_the_last_one_ended(
    tomorrow: Path, run: Run, monkeypatch: pytest.MonkeyPatch
):
    cold = read_json(tomorrow / "data/runs/synthetic/fm/default/run.json")
    assert "warm_start" not in cold
    data = run(tomorrow, "synthetic", "split")
    before = read_json(tomorrow / "packages/fm/vocabulary.json")
    after = read_json(data / "processed/synthetic/vocabulary.json")
    for old, new in zip(before, after, strict=True):
        assert new["name"] == old["name"]
        if old["kind"] != "number":
            assert new["values"][: len(old["values"])] == old["values"]
    assert after != before  # two more days bring values that occur twice

    found = train(monkeypatch)
    assert found["warm_start"]
    assert found["seeds"][0]["curve"][0]["valid_logloss"] < cold["seeds"][0]["curve"][0]["valid_logloss"]
    assert "warm_start" not in train(monkeypatch, "lr")  # has no package, and begins anew
    second = pack(tomorrow, "synthetic", "fm", "default")
    assert second.trained_on["warm_start"] == found["warm_start"]
    assert second.vocabulary == after
    assert second.network()

    # the same package, copied once more: nothing is trained again, and the bytes are the same
    result = folder_digest(Path("data/runs/synthetic/fm/default"))
    run(tomorrow, "synthetic", "split")
    monkeypatch.setattr(runs, "fit", None)
    train(monkeypatch)
    assert folder_digest(Path("data/runs/synthetic/fm/default")) == result


@pytest.mark.slow
def test_what_does_not_fit_is_refused(tomorrow: Path, run: Run, monkeypatch: pytest.MonkeyPatch):
    def attempt(message: str, *stages: str, **changes: Any) -> None:
        project.make_project(tomorrow, **by_days(20, **changes))
        with pytest.raises(PipelineError, match=message):
            run(tomorrow, "synthetic", *stages)

    attempt("warm_start.fm: nowhere is no package", "split", warm_start={"fm": "nowhere"})
    attempt("unknown model 'fn'; did you mean 'fnn'", "split", warm_start={"fn": "packages/fm"})
    monkeypatch.chdir(tomorrow)
    project.make_project(tomorrow, **by_days(20, warm_start={"lr": "packages/fm"}))
    run(tomorrow, "synthetic", "split")
    with pytest.raises(PipelineError, match="the package for lr is one of 'fm'"):
        train(monkeypatch, "lr")
    values = by_days(20, warm_start={"fm": "packages/fm"})
    values["model"]["fm"]["embedding_size"] = 7
    project.make_project(tomorrow, **values)
    run(tomorrow, "synthetic", "split")
    with pytest.raises(PipelineError, match="has embedding_size 64, the model 7"):
        train(monkeypatch)
    (tomorrow / "packages/fm/weights.safetensors").write_bytes(b"something else")
    attempt("was changed after it was written", "split", warm_start={"fm": "packages/fm"})


@pytest.mark.slow
def test_another_package_is_noticed(tomorrow: Path, run: Run, monkeypatch: pytest.MonkeyPatch):
    """As a file of the log is: DVC knows the folder's name alone."""
    assert packages.stale(tomorrow) == []
    run(tomorrow, "synthetic", "split")
    assert packages.stale(tomorrow) == []
    weights = tomorrow / "packages/fm/weights.safetensors"
    tensors = load(weights.read_bytes())
    weights.write_bytes(save({name: value * 2 for name, value in tensors.items()}))
    assert packages.stale(tomorrow) == ["synthetic"]
    called: list[list[str]] = []

    def dvc(words: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        called.append(words)
        return subprocess.CompletedProcess(words, 0)

    monkeypatch.setattr(subprocess, "run", dvc)
    monkeypatch.setattr("sys.argv", ["ctr", "--root", str(tomorrow), "refresh"])
    command.main()
    assert called == [["dvc", "repro", "--force", "--single-item", "split@synthetic"]]


@pytest.mark.thorough
@pytest.mark.kill
def test_a_warm_training_killed_again_and_again_ends_with_the_same_bits(
    tomorrow: Path, run: Run, monkeypatch: pytest.MonkeyPatch
):
    run(tomorrow, "synthetic", "split")
    out = tomorrow / "data/runs/synthetic/fm/default"
    monkeypatch.setenv("CTR_STORE", "off")
    train(monkeypatch)
    whole = folder_digest(out)
    (out / "run.json").unlink()
    alone = {"CTR_STORE": "off", "CTR_TRACKING": "off", "CTR_PROCESSES": "1"}
    project.kill_at_checkpoints(tomorrow, project.command("train", "fm"), **alone)
    done = project.run(tomorrow, "train", "fm", **alone)
    assert done.returncode == 0, done.stderr
    assert folder_digest(out) == whole
