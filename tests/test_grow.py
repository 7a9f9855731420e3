"""Vectors of values that came after training: a package takes them in, and says the same of all others."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from model_options import options
from safetensors.numpy import save as save_arrays
from safetensors.torch import save
from test_vectors import BY_ROLE, awake, new_items, trained_on

from pipeline.common.errors import PipelineError
from pipeline.models import MODELS
from pipeline.scoring import grow
from pipeline.scoring.model import Model
from pipeline.scoring.package import BLEND, Member, Package
from tests import project

pytestmark = pytest.mark.slow
ROWS = {"user": ["u1"] * 4, "item": ["i7", "i230", "i299", "never"]}
KNOWN = 220  # items of the file that training has


@pytest.fixture(scope="module", name="log")
def _log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log whose file of vectors lacks the items of the test rows; `all.parquet` has them."""
    log = new_items(tmp_path_factory.mktemp("grow"), rows=1500)
    items = pq.read_table(log.parent / "items.parquet")
    (log.parent / "later").mkdir()
    pq.write_table(items, log.parent / "later/items.parquet")
    pq.write_table(items.slice(0, KNOWN), log.parent / "items.parquet")
    return log


def scores(package: Package) -> np.ndarray[Any, Any]:
    found: np.ndarray[Any, Any] = Model(package).predict(ROWS)["raw_probability"].to_numpy()
    return found


def test_it_is_the_package_that_would_have_been_trained_with_all_vectors(log: Path) -> None:
    """Training with frozen vectors does not see those of values that no train row has."""
    few = trained_on(log, "deepfm", trained=False).package
    later = log.parent / "later/clicks.parquet"
    later.write_bytes(log.read_bytes())
    every = trained_on(later, "deepfm", trained=False).package
    found, added = grow.grown(few, [log.parent / "later/items.parquet"])
    assert added == {"look": 300 - KNOWN}
    np.testing.assert_array_equal(scores(found), scores(every))
    before = scores(few)
    np.testing.assert_array_equal(scores(found)[[0, 3]], before[[0, 3]])
    assert [len(set(each[1:])) for each in (before, scores(found))] == [1, 3], "they are told apart"


def test_trained_vectors_and_blends_take_them_in(log: Path, tmp_path: Path) -> None:
    one = trained_on(log, "fm", trained=True).package
    found, _ = grow.grown(one, [log.parent / "later/items.parquet"])
    np.testing.assert_allclose(scores(found)[[0, 3]], scores(one)[[0, 3]], rtol=1e-6)
    assert scores(found)[1] != scores(found)[2]
    halves = tuple(Member(one.architecture, one.options, one.weights, 0.5, {}) for _ in range(2))
    blend = replace(one, architecture=BLEND, options={}, weights=b"", members=halves)
    larger, _ = grow.grown(blend, [log.parent / "later/items.parquet"])
    np.testing.assert_allclose(scores(larger), scores(found), rtol=1e-6)
    larger.write(tmp_path / "blend")
    np.testing.assert_array_equal(scores(Package.read(tmp_path / "blend")), scores(larger))


def test_what_does_not_fit_is_told(log: Path, tmp_path: Path) -> None:
    package = trained_on(log, "lr", trained=False).package
    items = pq.read_table(log.parent / "items.parquet")
    looks = items["look"].to_pylist()

    def told(match: str, look: list[list[float]], name: str = "items.parquet") -> None:
        path = tmp_path / name
        pq.write_table(
            pa.table({"item": items["item"], "look": pa.array(look, pa.list_(pa.float32()))}), path
        )
        with pytest.raises(PipelineError, match=match):
            grow.grown(package, [path])

    told("have 7 numbers, those of the package 8", [look[1:] for look in looks])
    told("'i0' has another vector than in the package", [look[::-1] for look in looks])
    told(r"unknown file 'other\.parquet'.* 'items\.parquet'", looks, "other.parquet")
    told("the package has all these values", looks)
    with pytest.raises(PipelineError, match="does not exist"):
        grow.grown(package, [tmp_path / "none/items.parquet"])


def test_a_package_grows_by_a_command_and_without_a_project(log: Path, tmp_path: Path) -> None:
    trained_on(log, "lr", trained=False).package.write(tmp_path / "old")
    later = log.parent / "later/items.parquet"
    command = [
        sys.executable,
        "-m",
        "pipeline",
        "package",
        "--package",
        "old",
        "--vectors",
        str(later),
        "-o",
        "new",
    ]
    done = subprocess.run(
        command, cwd=tmp_path, env=project.environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout == "look: vectors of 80 values that training did not have\nnew\n"
    assert len(set(scores(Package.read(tmp_path / "new")))) == 4


OF_FILES = {
    "user": {"domain": "user", "type": "vector", "key": "u", "trained": True, "file": "users.parquet"},
    "hour": {"domain": "context"},
    "item": {"domain": "item", "type": "vector", "key": "i", "trained": False, "file": "items.parquet"},
}
REFUSING = {"gbdt_lr", "autorec"}  # trees, and users by their number


def of_zoo(name: str) -> Package:
    """A package of a model that is awake, with made-up vectors of users and items."""
    vocabulary = list[dict[str, Any]]()
    for field in BY_ROLE.fields:
        entry = {
            "name": field.name,
            "kind": "category",
            "domain": field.domain,
            "role": field.role,
            "rare": [],
        }
        entry["values"] = [f"{field.name}{n}" for n in range(1, field.size)]
        if field.width:
            entry |= {"given": field.given, "width": field.width, "centre": [0.0] * field.width, "scale": 1.0}
        vocabulary.append(entry)
    arrays = {field.name: np.asarray(BY_ROLE.vectors[field.name]) for field in BY_ROLE.fields if field.given}
    weights, reading = save(awake(name, BY_ROLE).state_dict()), {"fields": OF_FILES}
    return Package(name, options(name), vocabulary, reading, {}, weights, {}, vectors=save_arrays(arrays))


@pytest.mark.parametrize("name", list(MODELS))
def test_every_model_says_the_same_of_old_values_or_refuses(name: str, tmp_path: Path) -> None:
    """Users come first, so that the ids of all other fields move."""
    package, files = of_zoo(name), []
    assert package.schema == BY_ROLE
    for field in (BY_ROLE.fields[0], BY_ROLE.fields[2]):
        keys = [f"{field.name}{n}" for n in range(20, 25)]
        vectors = pa.array(np.random.default_rng(2).normal(size=(5, field.width or 0)).tolist())
        files.append(tmp_path / f"{field.name}s.parquet")
        pq.write_table(pa.table({field.name[0]: keys, field.name: vectors}), files[-1])
    if name in REFUSING:
        with pytest.raises(PipelineError, match="keeps more of its values than a row for each"):
            grow.grown(package, files)
        return
    larger, added = grow.grown(package, files)
    assert added == {"user": 5, "item": 5}
    place = torch.stack([torch.arange(n) % size for n, size in ((200, 8), (200, 4), (200, 7))], 1)
    torch.testing.assert_close(grow._scores(larger, place), grow._scores(package, place), rtol=0, atol=1e-5)
