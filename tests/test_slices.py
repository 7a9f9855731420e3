"""Slices of the test rows by how often their user and item are in the train rows."""

from pathlib import Path

import numpy as np
import pytest

from pipeline import metrics
from pipeline.common.files import seal, write_json
from pipeline.evaluate import slices
from pipeline.schema import Field, Schema
from pipeline.statistics.chance import FEW

# ids: user 1 (unseen) to 4, item 5 (unseen) to 7
SCHEMA = Schema((Field("u", 4, role="user"), Field("i", 3, role="item")))
TRAIN = np.array([[2, 6]] * 9 + [[3, 6]] * 10 + [[1, 7]] * 2 + [[4, 5]], np.int32)
TEST = np.array([[1, 5], [2, 6], [3, 7], [4, 6]], np.int32)


@pytest.fixture
def processed(tmp_path: Path) -> Path:
    write_json(tmp_path / "schema.json", SCHEMA.to_json())
    np.save(tmp_path / "train.ids.npy", TRAIN)
    np.save(tmp_path / "test.ids.npy", TEST)
    seal(tmp_path)
    return tmp_path


def test_train_rows_are_counted_for_the_user_and_the_item_of_a_row_and_the_unseen_id_has_none(
    processed: Path,
):
    found = slices.train_rows(processed)
    assert found["user"].tolist() == [0, 9, 10, 1]
    assert found["item"].tolist() == [0, 19, 2, 19]


def test_a_slice_begins_at_its_bound_and_its_auc_is_that_of_its_rows_alone():
    rng = np.random.default_rng(0)
    count = np.repeat([0, 1, 9, 10, 99, 100, 5000], 100)
    label = rng.integers(0, 2, len(count))
    seeds = [rng.random(len(count)), rng.random(len(count))]
    sizes = slices.describe(label, {"user": count})["user"]
    assert [part["rows"] for part in sizes] == [100, 200, 200, 200]
    assert sum(part["clicks"] for part in sizes) == label.sum()
    found = slices.measure(label, seeds, {"user": count})["user"]
    for auc, rows in zip(
        found, (count == 0, (count > 0) & (count < 10), (count > 9) & (count < 100), count > 99), strict=True
    ):
        assert auc == pytest.approx(np.mean([metrics.auc(label[rows], seed[rows]) for seed in seeds]))


def test_a_slice_with_few_clicks_has_no_auc_and_one_slice_is_no_table():
    label = np.r_[np.ones(FEW - 1), np.zeros(100), np.ones(50), np.zeros(50)]
    count = np.r_[np.zeros(FEW + 99, int), np.full(100, 5)]
    found = slices.measure(label, [np.linspace(0, 1, len(label))], {"item": count})["item"]
    assert found[0] is None and found[1] is not None and found[2] is None
    assert slices.describe(label, {"item": np.full(len(label), 7)}) == {}
    header, rows = slices.table(
        slices.describe(label, {"item": count}),
        [{"model": "fm", "variant": "default", "slices": {"item": found}}],
    )
    assert header == ["model", "variant", "item: new", "item: 1 to 9"]
    assert [row[0] for row in rows] == ["*share of rows*", "*clicks*", "fm"]
    assert rows[0][2:] == ["54.3%", "45.7%"]
    assert rows[2][2:] == ["-", f"{found[1]:.4f}"]
