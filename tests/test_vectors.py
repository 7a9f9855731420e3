"""Given vectors: pre-trained embeddings of a field's values, in a log or in a file of their own."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from model_options import options
from rows import random_ids, random_split, times, wake
from ruamel.yaml import YAML
from torch import Tensor, nn

from pipeline.common.errors import PipelineError
from pipeline.common.files import read_json
from pipeline.data.batches import Batch, Split
from pipeline.data.storage import read_schema
from pipeline.datasets import tabular
from pipeline.download import refresh
from pipeline.inspection import inspect
from pipeline.layers.embedding import FieldEmbedding, FieldLinear
from pipeline.layers.neighbours import with_neighbours
from pipeline.layers.vectors import GivenVectors, blank, rows_of, with_vectors
from pipeline.models import MODELS, build
from pipeline.preprocess.rejects import RejectLog
from pipeline.schema import EMPTY, Column, Field, Schema
from pipeline.scoring import small
from pipeline.scoring.export import graph
from pipeline.scoring.export import save as save_network
from pipeline.scoring.model import Model
from pipeline.scoring.package import BLEND, Member, Package
from pipeline.split import vectors as given
from pipeline.split.vocabulary import fit_vocabulary
from pipeline.train import warm
from pipeline.train.adam import parameter_groups
from pipeline.train.loop import fit
from pipeline.train.predict import logits
from pipeline.train.start import prepare
from tests import project

LOOK, TEXT, ITEM, LAST = 1, 3, 4, (5, 6, 7)  # columns


def vectors_of(*fields: Field) -> dict[str, np.ndarray]:
    """Vectors as split writes them: that of the unseen id is zero."""
    draw, found = np.random.default_rng(1), {}
    for field in fields:
        if field.given is not None:
            found[field.name] = draw.normal(size=(field.size, field.width)).astype(np.float32)
            found[field.name][0] = 0
    return found


FIELDS = (
    Field("user", 8, 1, "user", "user"),
    Field("look", 9, 1, "item", given="frozen", width=5),
    Field("age", 4, 1, "user"),
    Field("text", 6, 1, "item", given="trained", width=3),
    Field("item", 7, 1, "item", "item"),
    Field("last", 9, 3, "user", table="look"),
)
SCHEMA = Schema(FIELDS, vectors=vectors_of(*FIELDS))
# the vectors belong to the fields that every model reads, even those that read user and item alone
ROLES = (
    Field("user", 8, 1, "user", "user", given="trained", width=3),
    Field("hour", 4, 1, "context"),
    Field("item", 7, 1, "item", "item", given="frozen", width=4),
)
BY_ROLE = Schema(ROLES, vectors=vectors_of(*ROLES))


# ---- ids, and the layers ----


def test_frozen_values_have_ids_and_no_rows_of_the_table() -> None:
    assert SCHEMA.offsets == (1, 9, 18, 22, 28, 9)
    assert SCHEMA.row_offsets == (1, EMPTY, 9, 13, 19, EMPTY)
    assert (SCHEMA.vocabulary_size, SCHEMA.rows) == (35, 26)
    ids = torch.arange(35)[None]
    expected = [*range(9), *[EMPTY] * 9, *range(9, 26)]
    assert rows_of(SCHEMA, ids).tolist() == [expected]
    assert Schema.from_json(json.loads(json.dumps(SCHEMA.to_json()))) == SCHEMA
    assert Schema(FIELDS[:1]).to_json()[0].keys() == {"name", "size", "slots", "domain", "role"}


def test_two_frozen_fields_leave_the_rows_of_all_others_in_order() -> None:
    a, b = (Field(name, 3, given="frozen", width=2) for name in "ab")
    schema = Schema((Field("x", 2), a, b, Field("y", 2)))
    assert rows_of(schema, torch.arange(11)[None]).tolist() == [[0, 1, 2, *[EMPTY] * 6, 3, 4]]
    assert schema.row_offsets == (1, EMPTY, EMPTY, 3)


def test_a_field_is_w_v_and_with_training_a_row_more() -> None:
    schema = with_vectors(SCHEMA)
    layer, linear = FieldEmbedding(schema, 4), FieldLinear(schema)
    for each in (layer, linear):
        assert not each.table[13:19].any()  # the rows beside given vectors start at zero
        wake(each)
    ids = random_ids(SCHEMA, 30)
    look, text = (torch.from_numpy(SCHEMA.vectors[name]) for name in ("look", "text"))
    fields, slots, term = layer(ids), layer.slots(ids[:, [ITEM, LOOK, LAST[0], TEXT]]), linear(ids)
    w_look, w_text = (each.weight for each in layer.given.maps)
    x_look = look[(ids[:, LOOK] - 9).long()] @ w_look.T
    x_text = text[(ids[:, TEXT] - 22).long()] @ w_text.T + layer.table[(ids[:, TEXT] - 9).long()]
    last = torch.zeros(30, 4)
    for column in LAST:
        there = (ids[:, column] != EMPTY).float().unsqueeze(1)
        last = last + there * (look[(ids[:, column] - 9).clamp(min=0).long()] @ w_look.T)
    torch.testing.assert_close(fields[:, LOOK], x_look)
    torch.testing.assert_close(fields[:, TEXT], x_text)
    torch.testing.assert_close(fields[:, 5], last)
    torch.testing.assert_close(fields[:, ITEM], layer.table[(ids[:, ITEM] - 9).long()])
    torch.testing.assert_close(slots[:, 1], x_look)
    torch.testing.assert_close(slots[:, 3], x_text)
    whole = linear.bias.clone()
    for column in range(SCHEMA.slots):
        whole = whole + linear.of(ids[:, [column]]) - linear.bias
    torch.testing.assert_close(term, whole)


def test_an_id_without_a_vector_is_the_mean_of_the_vectors_zero() -> None:
    schema = with_vectors(SCHEMA)
    layer = FieldEmbedding(schema, 4)
    wake(layer)
    unseen = torch.tensor([[SCHEMA.offsets[i] for i in SCHEMA.field_of_slot]])
    assert not layer(unseen)[0, LOOK].any()
    assert not layer(unseen)[0, 5].any()


def test_neighbours_pool_rows_behind_frozen_ids() -> None:
    schema = with_neighbours(with_vectors(BY_ROLE), neighbour_limit=100)
    layer, rows = FieldEmbedding(schema, 4), random_split(BY_ROLE, 60)
    wake(layer)
    schema.neighbours.remember(rows.whole(), BY_ROLE)
    ids = random_ids(BY_ROLE, 3, seed=9)
    found = layer(ids)[:, 3:]
    pairs = {tuple(row) for row in rows.ids[:, [0, 2]].tolist() if row[0] > 1 and row[1] > 13}
    first = schema.rows - 7 - 8  # of the items a user met, and then of the users who met an item
    for row, (of_user, of_item) in zip(ids.tolist(), found, strict=True):
        met = [first + item - 13 for user, item in pairs if user == row[0] and item != row[2]]
        who = [first + 7 + user - 1 for user, item in pairs if item == row[2] and user != row[0]]
        for expected, pooled in ((met, of_user), (who, of_item)):
            total = layer.table[expected].sum(0) / max(len(expected), 1) ** 0.5
            torch.testing.assert_close(pooled, total)


def test_vectors_are_shared_by_all_tables_and_no_part_of_the_weights() -> None:
    model = build("deepfm", SCHEMA, options("deepfm"), seed=1)
    held = [module for module in model.modules() if isinstance(module, GivenVectors)]
    assert len(held) == 1
    assert model.embedding.schema.vectors is model.linear.schema.vectors is held[0]
    assert not any("of_field" in key for key in model.state_dict())
    groups = parameter_groups(model, 1.0, 1.0, 1.0)
    maps = {id(p) for key, p in model.named_parameters() if ".given." in key}
    assert maps <= {id(p) for group in groups if not group.l2 for p in group.params}
    sizes = {key: p.shape[0] for key, p in model.named_parameters() if key.endswith("table")}
    assert set(sizes.values()) == {SCHEMA.rows}


# ---- every model ----


def score(model: nn.Module, ids: Tensor) -> Tensor:
    return logits(model, Batch(ids, torch.zeros(len(ids)), times(ids)))


def awake(name: str, schema: Schema, seed: int = 1) -> nn.Module:
    model, rows = build(name, schema, options(name), seed=seed), random_split(schema, 200)
    torch.manual_seed(seed)
    prepare(model, rows, rows, fit, seed=seed, epochs=1)
    wake(model)
    return model.eval()


READS_USER_AND_ITEM = ("mf", "disenctr", "autorec")


@pytest.mark.slow
@pytest.mark.parametrize("name", list(MODELS))
def test_every_model_reads_given_vectors(name: str) -> None:
    for schema, column in ((SCHEMA, LOOK), (BY_ROLE, 2)):
        model, ids = awake(name, schema), random_ids(schema, 12, seed=3)
        first = score(model, ids)
        assert first.shape == (12,)
        assert bool(first.isfinite().all())
        loaded = build(name, schema, options(name), seed=2).eval()
        loaded.load_state_dict(model.state_dict())
        assert torch.equal(score(loaded, ids), first)
        # other vectors of the same ids give other scores, where the model reads the field by its embedding
        field = schema.fields[schema.field_of_slot[column]]
        moved = {**{f.name: schema.vectors[f.name] for f in schema.fields if f.given}}
        moved[field.name] = np.roll(moved[field.name], 1, 1)
        other = build(name, replace(schema, vectors=moved), options(name), seed=2).eval()
        other.load_state_dict(model.state_dict())
        blind = name == "autorec" or (schema is SCHEMA and name in READS_USER_AND_ITEM)
        assert torch.equal(score(other, ids), first) == blind


@pytest.mark.slow
@pytest.mark.parametrize("name", list(MODELS))
def test_same_seed_same_bits_and_every_map_learns(name: str) -> None:
    rows, bits = random_split(BY_ROLE, 120), []
    for _ in range(2):
        model = build(name, BY_ROLE, options(name), seed=1)
        fit(model, rows, rows, seed=1, epochs=2, batch_size=32)
        bits.append(model.state_dict())
    assert all(torch.equal(bits[0][key], bits[1][key]) for key in bits[0])
    start = build(name, BY_ROLE, options(name), seed=1).state_dict()
    maps = [key for key in bits[0] if ".given." in key]
    assert bool(maps) == (name != "autorec")
    still = {key for key in maps if torch.equal(bits[0][key], start[key])}
    # whose decay is the user's alone, and whose excitation the items'
    assert still == (
        {"delta.given.maps.1.weight", "tau.given.maps.0.weight"} if name == "disenctr" else set()
    )


# ---- from a log ----

WIDTH = 4
ENTRY: dict[str, Any] = {
    "label": "click",
    "fields": {
        "user": {"domain": "user"},
        "look": {"domain": "item", "type": "vector", "key": "item"},
    },
}
IN_FILE = {"domain": "item", "type": "vector", "key": "item", "file": "items.parquet"}


def lists(values: Any) -> pa.Array:
    """Vectors as most tools write them: a list of floats a row, None for none."""
    return pa.array(
        [None if row is None else [float(x) for x in row] for row in values], pa.list_(pa.float32())
    )


def write_log(path: Path, look: Mapping[str, Any] | None = None, **more: Any) -> Path:
    """Six rows; of the items `b` is in two of them and `d` has no vector."""
    path.parent.mkdir(parents=True, exist_ok=True)
    items = ["a", "b", "c", "b", "d", "a"]
    columns = {"click": [1, 0, 1, 0, 1, 0], "user": ["u", "v"] * 3, "item": items, **more}
    if look is not None:
        columns["look"] = lists([look.get(item) for item in items])
    pq.write_table(pa.table(columns), path)
    return path


LOOKS = {"a": [1, 0, 0, 0], "b": [0, 2, 0, 0], "c": [0, 0, 3, 0]}


def read(folder: Path, entry: dict[str, Any] = ENTRY) -> Any:
    log = tabular.read(folder, RejectLog(), **entry)
    rows = pa.concat_tables(list(log.tables)).unify_dictionaries().combine_chunks()
    return log, rows


def test_a_list_column_is_a_category_with_a_vector_for_each_value(tmp_path: Path) -> None:
    write_log(tmp_path / "raw/log.parquet", LOOKS)
    log, rows = read(tmp_path / "raw")
    assert log.columns[1] == Column("look", "category", "item", given="frozen")
    assert rows["look"].to_pylist() == ["a", "b", "c", "b", "d", "a"]
    found = log.vectors["look"]
    assert found.keys == ["a", "b", "c"]
    assert found.values.tolist() == [LOOKS[key] for key in found.keys]


@pytest.mark.parametrize(
    "type_", [pa.list_(pa.float64(), WIDTH), pa.large_list(pa.float16()), pa.list_(pa.int8())]
)
def test_lists_of_every_kind_are_the_same_vectors(tmp_path: Path, type_: pa.DataType) -> None:
    path = write_log(tmp_path / "raw/log.parquet", LOOKS)
    table = pq.read_table(path)
    values = [row if row is None else [np.float16(x) for x in row] for row in table["look"].to_pylist()]
    if pa.types.is_list(type_):
        values = [row if row is None else [int(x) for x in row] for row in values]
    if pa.types.is_fixed_size_list(type_):  # which Arrow cannot read with a null in it
        values = [row or [0] * WIDTH for row in values]
    table = table.set_column(3, "look", pa.array(values, type_))
    pq.write_table(table, path)
    log, _ = read(tmp_path / "raw")
    assert log.vectors["look"].values[:3].tolist() == [LOOKS[key] for key in "abc"]


def entry_with(**field: Any) -> dict[str, Any]:
    return {**ENTRY, "fields": {"user": {"domain": "user"}, "look": field}}


def test_a_file_may_have_values_that_no_row_has_and_keys_of_another_name(tmp_path: Path) -> None:
    write_log(tmp_path / "raw/log.parquet")
    items = pa.table({"id": [*"abcz"], "emb": lists([*LOOKS.values(), [9, 9, 9, 9]])})
    pq.write_table(items, tmp_path / "raw/items.parquet")
    log, _ = read(tmp_path / "raw", entry_with(**IN_FILE, file_key="id", column="emb", trained=True))
    assert log.vectors["look"].keys == [*"abcz"]
    assert log.columns[1].given == "trained"


def test_a_key_is_written_as_any_other_value(tmp_path: Path) -> None:
    write_log(tmp_path / "raw/log.parquet", item=[1.0, 2.0, 3.0, 2.0, None, 1.0])
    pq.write_table(
        pa.table({"item": [1, 2, 3], "look": lists(LOOKS.values())}), tmp_path / "raw/items.parquet"
    )
    log, rows = read(tmp_path / "raw", entry_with(**IN_FILE))
    assert log.vectors["look"].keys == ["1", "2", "3"]
    assert rows["look"].to_pylist() == ["1", "2", "3", "2", None, "1"]


WRONG_LISTS = [
    (
        [[1, 0], [0, 1], [1, 0, 0]],
        r"items.parquet:3: 'look' is a list of 3 numbers, and that of items.parquet:1 has 2",
    ),
    (
        [[1, 0], [0, np.nan], [1, 0]],
        r"items.parquet:2: 'look': number 2 of the list is nan, and vectors take finite",
    ),
    ([[1, 0], [0, 1], [np.inf, 0]], r"items.parquet:3: 'look': number 1 of the list is inf"),
    ([[1, 0], [0, 1], [1e39, 0]], r"items.parquet:3: 'look': number 1 of the list is inf"),
]


@pytest.mark.parametrize(("values", "message"), WRONG_LISTS)
def test_wrong_lists_are_told_with_their_rows(tmp_path: Path, values: list[Any], message: str) -> None:
    write_log(tmp_path / "raw/log.parquet")
    table = pa.table({"item": ["a", "b", "c"], "look": pa.array(values, pa.list_(pa.float64()))})
    pq.write_table(table, tmp_path / "raw/items.parquet")
    with pytest.raises(PipelineError, match=message):
        read(tmp_path / "raw", entry_with(**IN_FILE))


def test_one_key_with_two_vectors_is_told_with_both_rows(tmp_path: Path) -> None:
    write_log(tmp_path / "raw/log.parquet")
    keys, values = ["a", "b", "c", "b"], [*LOOKS.values(), [0, 2, 0, 1]]
    pq.write_table(pa.table({"item": keys, "look": lists(values)}), tmp_path / "raw/items.parquet")
    with pytest.raises(
        PipelineError, match=r"items.parquet:4: 'b' has another vector in 'look' than in items.parquet:2"
    ):
        read(tmp_path / "raw", entry_with(**IN_FILE))
    # in rows of a log it is the same, within a file and between two
    one_row = pa.table({"click": [1], "user": ["u"], "item": ["b"], "look": lists([[0, 2, 0, 1]])})
    folder = tmp_path / "more"
    write_log(folder / "1.parquet", LOOKS)
    pq.write_table(one_row, folder / "2.parquet")
    with pytest.raises(
        PipelineError, match=r"2.parquet:1: 'b' has another vector in 'look' than in 1.parquet:2"
    ):
        read(folder)


def test_missing_keys_and_columns_are_told(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    write_log(raw / "log.parquet")
    pq.write_table(pa.table({"item": ["a", None], "look": lists([[1], [2]])}), raw / "items.parquet")
    for field, message in (
        (IN_FILE, r"items.parquet:2: 'item' is missing, and a vector belongs to its value"),
        (IN_FILE | {"file": "item.parquet"}, r"fields.look.file: unknown file 'item.parquet'.*download"),
        (
            IN_FILE | {"file_key": "id"},
            r"items.parquet: preprocess.fields.look.file_key: unknown column 'id'",
        ),
        (IN_FILE | {"column": "emb"}, r"items.parquet: preprocess.fields.look.column: unknown column 'emb'"),
        (
            IN_FILE | {"column": "item"},
            r"holds string, which cannot be read as a vector: vectors are lists of",
        ),
        (IN_FILE | {"key": "itm"}, r"log.parquet: preprocess.fields.look.key: unknown column 'itm'"),
    ):
        with pytest.raises(PipelineError, match=message):
            read(raw, entry_with(**field))


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"type": "vector"}, "a vector needs `key`"),
        ({"type": "category", "key": "item"}, "key belongs to type vector"),
        ({"type": "bag", "trained": True}, "trained belongs to type vector"),
        ({"type": "vector", "key": "item", "separator": ","}, "separator belongs to type bag"),
        ({"type": "vector", "key": "item", "file_key": "id"}, "file_key is a column of `file`"),
        ({"type": "vector", "key": "item", "trained": "yes"}, "trained"),
    ],
)
def test_keys_that_do_not_fit_are_told(field: dict[str, Any], message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        tabular.plan_of(label="click", fields={"look": {"domain": "item", **field}})


# ---- the vocabulary, and the tables ----


def fitted(keys: list[str], values: Any, rows: list[str | None], **more: Any) -> tuple[Any, Any]:
    vectors = {"look": (pa.array(keys), np.array(values, np.float32))}
    column = Column("look", "category", "item", given="frozen")
    made = fit_vocabulary(
        lambda _: [pa.array(rows, pa.string()).dictionary_encode()], [column], vectors=vectors, **more
    )
    return made, given.tables(made, vectors)["look"]


def test_every_value_with_a_vector_has_an_id_and_vectors_have_mean_0_and_square_norm_1() -> None:
    draw = np.random.default_rng(3)
    values = draw.normal(5, 3, (6, WIDTH))
    made, table = fitted([*"abcxyz"], values, ["b", "b", "a", "c", None, None, None, "q"], min_count=2)
    # of the train rows: any that has a vector or two rows; then those that no train row has
    assert made[0]["values"] == [None, "b", "a", "c", "x", "y", "z"]
    assert table.shape == (8, WIDTH)
    assert not table[:2].any()  # the unseen id, and the missing value
    seen = table[2:5].astype(float)  # b, a and c
    np.testing.assert_allclose(seen.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose((seen**2).sum(1).mean(), 1, rtol=1e-5)
    expected = (values[[1, 0, 2, 3, 4, 5]] - values[:3].mean(0)) / made[0]["scale"]
    np.testing.assert_allclose(table[2:], expected, rtol=1e-4, atol=1e-5)


def test_vectors_that_no_train_row_has_or_that_are_all_alike_are_told() -> None:
    with pytest.raises(
        PipelineError, match=r"no value of the train rows has a vector; they are written like 'a', 'b'"
    ):
        fitted(["x"], [[1.0]], ["a", "b"])
    with pytest.raises(PipelineError, match="all 2 values of the train rows have the same vector"):
        fitted(["a", "b", "c"], [[1.0], [1.0], [2.0]], ["a", "b"])


def test_a_grown_vocabulary_measures_new_vectors_by_the_old_ones() -> None:
    old, before = fitted(["a", "b"], [[0.0], [2.0]], ["a", "b"])
    new, after = fitted(["a", "b", "c"], [[0.0], [2.0], [4.0]], ["a", "b", "c"], earlier=old)
    assert new[0]["values"] == ["a", "b", "c"]
    assert after[:3].tolist() == before.tolist()
    assert after[3].tolist() == [3.0]
    with pytest.raises(PipelineError, match="have 2 numbers, those of the earlier vocabulary 1"):
        fitted(["a", "b"], [[0.0, 1.0], [2.0, 1.0]], ["a", "b"], earlier=old)


def test_a_warm_start_takes_the_maps_and_the_rows_of_all_other_fields() -> None:
    user, hour, item = ROLES
    grown = (replace(user, size=10), hour, replace(item, size=9))
    schema = Schema(grown, vectors=vectors_of(*grown))
    assert warm.rows(BY_ROLE, schema).tolist() == [0, *range(1, 9), 1, 1, *range(9, 13)]
    assert blank(BY_ROLE).vectors["item"].shape == (7, 4)


# ---- what they are for, and scoring ----


def new_items(folder: Path, rows: int = 6000, seed: int = 1) -> Path:
    """A log whose clicks depend on the items' vectors alone, with items of its own in each split."""
    draw = np.random.default_rng(seed)
    looks = draw.normal(2, 3, (300, 8)).astype(np.float32)
    taste = draw.normal(size=8)
    item, user = draw.integers(300, size=rows), draw.integers(40, size=rows)
    logit = (looks[item] - 2) @ taste
    table = pa.table(
        {
            "click": (draw.random(rows) < 1 / (1 + np.exp(-logit / 3))).astype(int),
            "user": [f"u{n}" for n in user],
            "item": [f"i{n}" for n in item],
            "part": np.array(["train", "valid", "test"])[np.digitize(item, [180, 220])],
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / "clicks.parquet")
    ids = pa.array([f"i{n}" for n in range(300)])
    pq.write_table(pa.table({"item": ids, "look": lists(looks)}), folder / "items.parquet")
    return folder / "clicks.parquet"


@pytest.fixture(scope="module", name="log")
def _log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_items(tmp_path_factory.mktemp("new"))


def trained_on(log: Path, model: str, **look: Any) -> Model:
    fields = {"user": {"domain": "user"}, "item": {"domain": "item"}, "look": {**IN_FILE, **look}}
    if not look:
        del fields["look"]
    preprocess = {"label": "click", "fields": fields, "keep": ["part"]}
    files = [log.parent / "items.parquet"] if look else []
    settings = {"epochs": 6, "batch_size": 128, "lr": 3e-3}
    split = {"method": "column", "column": "part"}
    return small.train(log, preprocess, model=model, split=split, vectors_files=files, **settings)


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.parametrize("model", ["lr", "fm", "deepfm"])
def test_vectors_tell_new_items_apart_where_ids_cannot(log: Path, model: str) -> None:
    ids, frozen, trained = (
        trained_on(log, model, **look).package.trained_on["test"]["auc"]
        for look in ({}, {"trained": False}, {"trained": True})
    )
    assert 0.4 < ids < 0.6
    assert min(frozen, trained) > 0.8


@pytest.fixture(scope="module", name="model")
def _model(log: Path) -> Model:
    return trained_on(log, "deepfm", trained=False)


@pytest.mark.slow
def test_a_package_has_the_vectors_and_an_unknown_id_is_their_mean(model: Model, tmp_path: Path) -> None:
    model.package.write(tmp_path / "package")
    again = Model(Package.read(tmp_path / "package"))
    assert sorted(again.columns) == ["item", "user"]  # of rows to score, the key is read, and no list
    # 299 is no item of the train rows, but has a vector; what neither had is unseen
    rows = {"user": ["u1"] * 4, "item": ["i7", "i299", "new", None]}
    found = again.predict(rows)["raw_probability"].to_numpy()
    assert found[2] == found[3] != found[1] != found[0]
    schema, ids = again.package.schema, again.rows(rows).ids
    column = [field.name for field in schema.fields].index("look")
    place = int(ids[1, column]) - schema.offsets[column]
    changed = schema.vectors["look"].copy()
    changed[place] = 0
    network = build(
        "deepfm", replace(schema, vectors={"look": changed}), model.package.options, seed=0
    ).eval()
    network.load_state_dict(model.network.state_dict())
    zeroed = logits(network, Batch(ids, torch.zeros(4))).sigmoid().detach().numpy()
    np.testing.assert_allclose(zeroed[1], zeroed[2], rtol=1e-6)
    np.testing.assert_allclose(zeroed[2:], found[2:], rtol=1e-6)


@pytest.mark.slow
def test_a_changed_file_of_vectors_is_noticed(model: Model, tmp_path: Path) -> None:
    model.package.write(tmp_path / "package")
    path = tmp_path / "package/vectors.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(PipelineError, match=r"vectors.safetensors was changed"):
        Package.read(tmp_path / "package")


@pytest.mark.slow
def test_a_blend_of_models_shares_the_vectors(model: Model, tmp_path: Path) -> None:
    one = model.package
    halves = tuple(Member(one.architecture, one.options, one.weights, 0.5, {}) for _ in range(2))
    blend = replace(one, architecture=BLEND, options={}, weights=b"", members=halves)
    blend.write(tmp_path / "blend")
    rows = {"user": ["u1", "u2"], "item": ["i7", "i299"]}
    both = (Model(Package.read(tmp_path / "blend")), model)
    found = [each.predict(rows)["raw_probability"].to_numpy() for each in both]
    np.testing.assert_allclose(*found, rtol=1e-6)


@pytest.mark.slow
def test_exported_networks_have_the_vectors(model: Model, tmp_path: Path) -> None:
    ids = random_ids(model.package.schema, 20)
    expected = score(model.network, ids)
    program = graph(model.network, model.package.schema)
    torch.testing.assert_close(program.module()(ids), expected)
    runtime = pytest.importorskip("onnxruntime", reason="an extra, `export`, which CI installs")
    save_network(model.network, model.package.schema, tmp_path / "network.onnx", "onnx")
    session = runtime.InferenceSession(tmp_path / "network.onnx")
    (found,) = session.run(None, {"ids": ids.numpy()})
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-4, atol=1e-5)


# ---- the stages ----


def entry_of(log: Path) -> dict[str, Any]:
    """The entry of docs/own-log.md, with the log's place."""
    text = (project.ROOT / "docs/own-log.md").read_text(encoding="utf-8")
    block = re.search(r"```yaml\n(  pictures:.*?)```", text, re.DOTALL)
    assert block
    entry: dict[str, Any] = YAML(typ="safe").load(block[1])["pictures"]
    assert entry["download"] == {"path": "../logs/clicks.parquet", "vectors": ["../logs/items.parquet"]}
    entry["download"] = {"path": str(log), "vectors": [str(log.parent / "items.parquet")]}
    return entry


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    log = new_items(tmp_path / "logs", rows=900)
    values = project.small_params()
    values["data"][project.DATASET] = entry_of(log)
    return project.make_project(tmp_path / "project", **{key: values[key] for key in ("data",)})


@pytest.mark.slow
def test_the_stages_keep_each_vector_once_and_seal_it(folder: Path) -> None:
    project.prepare(folder)
    processed = folder / "data/processed" / project.DATASET
    schema = read_schema(processed)
    look = next(field for field in schema.fields if field.name == "look")
    assert (look.given, look.width, look.size) == ("frozen", 8, 301)
    assert schema.vectors["look"].shape == (301, 8)
    assert "  vectors.safetensors\n" in (processed / "SHA256SUMS").read_text()
    report = read_json(folder / "data/interim" / project.DATASET / "report.json")
    assert report["vectors"] == {"look": {"values": 300, "width": 8}}
    before = Split.load(processed, "test").schema.vectors["look"]
    data = (processed / "vectors.safetensors").read_bytes()
    project.prepare(folder)  # the same files, the same bytes
    assert (processed / "vectors.safetensors").read_bytes() == data
    (processed / "vectors.safetensors").write_bytes(data[:-4] + bytes(4))
    with pytest.raises(PipelineError, match=r"vectors.safetensors was changed"):
        read_schema(processed)
    assert before.any()


@pytest.mark.slow
def test_a_new_file_of_vectors_is_a_new_download(folder: Path) -> None:
    project.prepare(folder)
    assert refresh.stale(folder) == []
    items = folder.parent / "logs/items.parquet"
    table = pq.read_table(items)
    pq.write_table(table.slice(0, 299), items)
    assert refresh.stale(folder) == [project.DATASET]
    items.unlink()
    assert refresh.stale(folder) == []  # the copy is used, and the command says so


def test_a_file_that_is_not_there_or_has_the_log_s_name_is_told(folder: Path, tmp_path: Path) -> None:
    log = folder.parent / "logs/clicks.parquet"
    with pytest.raises(PipelineError, match=r"nowhere.parquet is no file \(download.vectors"):
        tabular.download(tmp_path, tmp_path, path=str(log), vectors=["nowhere.parquet"])
    other = tmp_path / "other/clicks.parquet"
    other.parent.mkdir()
    other.write_bytes(b"")
    with pytest.raises(PipelineError, match=r"has the name of .*another file of the dataset: rename it"):
        tabular.download(tmp_path, tmp_path, path=str(log), vectors=[str(other)])


# ---- inspect ----


@pytest.mark.slow
def test_inspect_of_a_file_of_vectors_proposes_them_for_the_log_that_they_belong_to(
    log: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = inspect(log.parent / "items.parquet", "mine")
    assert not found.complete
    assert "no log, but a file of vectors of item" in found.report
    own = YAML(typ="safe").load(found.entry.replace("# which", "x # which"))["mine"]
    field = {"domain": "item", "type": "vector", "key": "item", "file": "items.parquet"}
    assert own["preprocess"]["fields"] == {"look": field}
    entry = entry_of(log)
    entry["preprocess"]["fields"]["look"] = own["preprocess"]["fields"]["look"]
    entry["download"]["vectors"] = own["download"]["vectors"]
    values = project.small_params()
    values["data"][project.DATASET] = entry
    project.make_project(folder, **{key: values[key] for key in ("data",)})
    project.prepare(folder)
    look = next(
        f for f in read_schema(folder / "data/processed" / project.DATASET).fields if f.name == "look"
    )
    assert (look.given, look.width) == ("frozen", 8)


def test_inspect_takes_whole_floats_of_one_length_for_vectors_where_there_is_no_log(tmp_path: Path) -> None:
    marks = pa.array(np.eye(30)[:, :8].tolist(), pa.list_(pa.float32()))
    pq.write_table(pa.table({"title": [f"t{i}" for i in range(30)], "film_id": [*range(30)], "mark": marks}),
                   tmp_path / "marks.parquet")  # fmt: skip
    assert (
        "{domain: item, type: vector, key: film_id, file: marks.parquet}"
        in inspect(tmp_path / "marks.parquet", "mine").entry
    )


def test_inspect_proposes_lists_that_go_with_a_column_as_its_vectors(log: Path, tmp_path: Path) -> None:
    clicks = pq.read_table(log)
    looks = dict(zip(*pq.read_table(log.parent / "items.parquet").to_pydict().values(), strict=True))
    draw = np.random.default_rng(1)
    each = lists(draw.normal(size=(len(clicks), 4)))  # another list in every row
    of_item = pa.array([looks[item] for item in clicks["item"].to_pylist()], pa.list_(pa.float32()))
    table = clicks.append_column("look", of_item).append_column("query", each)
    pq.write_table(table, tmp_path / "clicks.parquet")
    found = inspect(tmp_path / "clicks.parquet", "mine")
    assert "vector of 8 numbers, of item" in found.report
    entry = YAML(typ="safe").load(found.entry)["mine"]["preprocess"]
    assert entry["fields"]["look"] == {"domain": "item", "type": "vector", "key": "item"}
    assert "query" not in entry["fields"]
    of_entry, rows = read(tmp_path, {key: entry[key] for key in ("label", "fields", "keep")})
    assert len(of_entry.vectors["look"].keys) == len(set(clicks["item"].to_pylist()))
    assert len(rows) == len(clicks)
