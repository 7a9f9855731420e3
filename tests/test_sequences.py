"""Ordered sequences: a bag with the ids of another field, the last n values; pooled, and attended by DIN."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from rows import random_ids, random_split, times, wake
from safetensors.torch import save
from torch import Tensor

from pipeline.common.errors import PipelineError
from pipeline.data.batches import Batch
from pipeline.datasets import tabular
from pipeline.layers.embedding import FieldEmbedding
from pipeline.models import MODELS, build
from pipeline.preprocess.rejects import RejectLog
from pipeline.schema import EMPTY, Field, Schema
from pipeline.scoring.model import Model
from pipeline.scoring.package import Package
from pipeline.split.vocabulary import apply, fit_vocabulary, schema
from pipeline.train import warm
from pipeline.train.cache import Trained
from pipeline.train.checkpoint import State
from pipeline.train.loop import fit
from pipeline.train.predict import logits
from pipeline.train.start import prepare

pytestmark = pytest.mark.slow
SCHEMA = Schema(
    (
        Field("user", 8, 1, "user", "user"),
        Field("last", 7, 3, "user", table="item"),
        Field("item", 7, 1, "item", "item"),
        Field("tags", 5, 2, "item"),
    )
)
ITEM = 4  # its column
FIELDS = {
    "user": {"domain": "user"},
    "item": {"domain": "item"},
    "last": {"domain": "user", "type": "bag", "table": "item"},
}
ENTRY = {"label": "click", "fields": FIELDS}
COLUMNS = ("user", "item", "last", "click")
ROWS = [
    ("u1", "a", ["b", "c", "d", "a"], 1),
    ("u1", "b", ["a", "x", "b"], 0),
    ("u2", "a", [], 1),
    ("u2", "c", ["c"], 0),
    ("u3", "d", ["a", "c", "a"], 1),
]


def test_a_bag_of_another_fields_values_has_its_ids_and_no_rows_of_its_own() -> None:
    assert SCHEMA.offsets == (1, 9, 9, 16)
    assert SCHEMA.vocabulary_size == 1 + 8 + 7 + 5
    assert Schema.from_json(json.loads(json.dumps(SCHEMA.to_json()))) == SCHEMA
    assert "table" not in Schema(SCHEMA.fields[2:]).to_json()[0]  # other schemas keep their bytes
    layer = FieldEmbedding(SCHEMA, 3)
    wake(layer)
    ids = random_ids(SCHEMA, 20)
    met = ids.clone()
    met[:, 1:4] = torch.tensor([EMPTY, EMPTY, EMPTY])
    met[:, 1] = ids[:, ITEM]
    fields = layer(met)
    assert torch.equal(fields[:, 1], fields[:, 2])


def log(folder: Path) -> Path:
    folder.mkdir()
    columns = {name: [row[i] for row in ROWS] for i, name in enumerate(COLUMNS)}
    pq.write_table(pa.table(columns), folder / "log.parquet")
    return folder


def read(folder: Path) -> tuple[pa.Table, list[dict]]:
    found = tabular.read(folder, RejectLog(), **ENTRY)
    rows = pa.concat_tables(list(found.tables)).unify_dictionaries().combine_chunks()
    made = fit_vocabulary(lambda name: rows[name].chunks, found.columns, max_slots=2, slots_from="end")
    return rows, made


def test_the_last_values_of_a_log_are_kept_in_order_by_the_ids_of_the_field(tmp_path: Path) -> None:
    rows, vocabulary = read(log(tmp_path / "raw"))
    entries = {entry["name"]: entry for entry in vocabulary}
    values = entries["item"]["values"]
    assert entries["last"]["values"] == values
    found = schema(vocabulary)
    assert found.fields[2].table == "item"
    first = found.offsets[1]
    ids = {value: first + 1 + place for place, value in enumerate(values)} | {"x": first}
    expected = [["d", "a"], ["x", "b"], [], ["c"], ["c", "a"]]
    encoded = apply(vocabulary, rows)[:, 2:]
    assert encoded.tolist() == [[ids[v] for v in row] + [EMPTY] * (2 - len(row)) for row in expected]


def test_a_package_reads_them_from_raw_rows(tmp_path: Path) -> None:
    rows, vocabulary = read(log(tmp_path / "raw"))
    network = build("fm", schema(vocabulary), {}, seed=1)
    wake(network)
    weights = Trained.of(network, State())
    reading = {"fields": FIELDS}
    package = Package("fm", {}, vocabulary, reading, {"method": "none"}, save(weights.tensors), {})
    package.write(tmp_path / "package")
    model = Model(Package.read(tmp_path / "package"))
    ids = torch.from_numpy(apply(vocabulary, rows))
    expected = network.eval()(ids).sigmoid().detach().numpy()
    raw = {name: [row[i] for row in ROWS] for i, name in enumerate(COLUMNS[:-1])}
    np.testing.assert_allclose(model.predict(raw)["raw_probability"], expected, atol=1e-6)


def test_a_table_that_is_no_category_is_an_error() -> None:
    for wrong in ("itm", "last"):
        fields = {**FIELDS, "last": {"domain": "user", "type": "bag", "table": wrong}}
        with pytest.raises(PipelineError, match=r"fields\.last\.table: unknown field of one value a row"):
            tabular.plan_of(fields=fields, label="click")
    with pytest.raises(PipelineError, match="table belongs to type bag"):
        tabular.plan_of(fields={"user": {"domain": "user", "table": "item"}}, label="click")


def test_a_warm_start_keeps_the_rows_of_the_shared_table() -> None:
    user, last, item, tags = SCHEMA.fields
    grown = Schema((user, replace(last, size=9), replace(item, size=9), tags))
    rows = warm.rows(SCHEMA, grown).tolist()
    assert rows == [0, *range(1, 9), *range(9, 16), 9, 9, *range(16, 21)]


def score(model: torch.nn.Module, ids: Tensor) -> Tensor:
    return logits(model, Batch(ids, torch.zeros(len(ids)), times(ids)))


@pytest.mark.parametrize("name", list(MODELS))
def test_every_model_reads_a_sequence_by_the_table_of_the_item(name: str) -> None:
    rows = random_split(SCHEMA, 200)
    model = build(name, SCHEMA, {}, seed=1)
    prepare(model, rows, rows, fit, seed=1, epochs=1)
    wake(model)
    model.eval()
    ids = random_ids(SCHEMA, 12, seed=3)
    first = score(model, ids)
    assert first.shape == (12,)
    assert bool(first.isfinite().all())
    other = ids.clone()
    other[:, 1:4] = torch.where(ids[:, 1:4] == EMPTY, EMPTY, 9 + (ids[:, 1:4] - 9 + 2) % 7)
    alike = torch.equal(score(model, other), first)
    assert alike == (name in ("mf", "autorec"))  # which read user and item alone
    loaded = build(name, SCHEMA, {}, seed=2).eval()
    loaded.load_state_dict(model.state_dict())
    assert torch.equal(score(loaded, ids), first)


def test_din_attends_to_a_sequence_of_items() -> None:
    """u(v) = sum_j a(h_j, v) h_j over the values of the field, beside that over the clicks it remembers."""
    rows = random_split(SCHEMA, 200)
    model = build("din", SCHEMA, {"embedding_size": 3, "history": 2}, seed=1)
    prepare(model, rows, rows, fit)
    wake(model)
    model.eval()
    ids = random_ids(SCHEMA, 10, seed=3)
    seen: list[Tensor] = []
    clicked, given = model.interests
    assert model.parts() == [clicked]
    given.register_forward_hook(lambda _m, _a, out: seen.append(out))
    score(model, ids)
    table, unit = model.embedding.table, given.unit
    for row, found in zip(ids, seen[0], strict=True):
        v = table[row[ITEM]]
        expected = torch.zeros(3)
        for j in row[1:4].tolist():
            if j != EMPTY:
                h = table[j]
                expected = expected + unit(torch.cat([h, h - v, h * v, v])[None])[0] * h
        torch.testing.assert_close(found, expected)
