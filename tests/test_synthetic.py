"""The generated log: its bytes, its planted effects, and how damaged lines are read."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipeline import metrics
from pipeline.common.errors import PipelineError
from pipeline.common.files import sha256
from pipeline.datasets import synthetic
from pipeline.preprocess.rejects import RejectLog
from pipeline.split.vocabulary import TYPES


def table_of(folder: Path, rejects: RejectLog, **options: Any) -> pa.Table:
    return pa.concat_tables(synthetic.read(folder, rejects, **options).tables)


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic")
    synthetic.download(folder, folder, rows=20_000, seed=7)
    return folder


def test_the_synthetic_log_has_exactly_these_bytes(tmp_path: Path):
    synthetic.download(tmp_path, tmp_path, rows=2000, seed=7)
    assert (
        sha256(tmp_path / "clicks.csv") == "c39f9c395abf9547ffdaf52c8dda8553f0df0344fa29ed72161d9c9661f6c511"
    )
    assert (
        sha256(tmp_path / "truth.csv") == "681654144867f0040537d9ce99caa90901368d412441e18ff96ac714eac2106b"
    )


def test_rows_do_not_depend_on_the_block_they_are_made_in(
    tmp_path: Path, generated: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(synthetic, "ROWS_PER_BLOCK", 777)
    synthetic.download(tmp_path, tmp_path, rows=20_000, seed=7)
    for name in ("clicks.csv", "truth.csv", "manifest.json"):
        assert (tmp_path / name).read_bytes() == (generated / name).read_bytes()


def test_the_synthetic_log_looks_like_one(generated: Path):
    rejects = RejectLog()
    table = table_of(generated, rejects)
    rejects.check(len(table), max_rejected=0, name="s")
    assert len(table) == 20_000
    for column in synthetic.COLUMNS:
        type_ = table.schema.field(column.name).type
        assert (type_.value_type if pa.types.is_dictionary(type_) else type_) == TYPES[column.kind]
    for name, share in synthetic.MISSING.items():
        absent = pc.sum(pc.is_null(table[name], nan_is_null=True)).as_py()
        assert 0.2 * share * len(table) < absent < 5 * share * len(table)
    assert table["user"].null_count == table["item"].null_count == 0
    time = table["time"].to_numpy()
    assert (np.diff(time) >= 0).all()
    assert (time // 3600 % 24 == np.array(table["hour"].to_pylist()).astype(int)).all()
    counts = np.sort(np.unique(table["user"].to_numpy(), return_counts=True)[1])[::-1]
    assert counts[0] > 10 * np.median(counts)
    label, truth = table["label"].to_numpy(), table["truth"].to_numpy()
    assert 0.2 < label.mean() < 0.3
    assert abs(label.mean() - truth.mean()) < 0.01
    assert metrics.calibration_error(label, truth) < 0.03
    assert 0.77 < metrics.auc(label, truth) < 0.83


def test_planted_effects_have_all_three_orders_and_are_invisible_to_lower_ones():
    orders = {len(effect.fields) for effect in synthetic.EFFECTS}
    assert orders == {1, 2, 3}
    fields = {column.name for column in synthetic.COLUMNS}
    world = synthetic._World(7)
    for effect in synthetic.EFFECTS:
        assert set(effect.fields) <= fields
        table = world.tables[effect.fields]
        weights = [world._share(name, effect.fields) for name in effect.fields]
        assert [len(weight) for weight in weights] == list(table.shape)
        for axis, weight in enumerate(weights):
            assert abs(np.tensordot(weight, table, (0, axis))).max() < 0.003
        spread = np.sqrt((synthetic._outer(weights) * table**2).sum())
        assert spread == pytest.approx(effect.std, abs=0.001)


def test_shuffled_labels_keep_their_rate_and_come_without_the_truth(generated: Path):
    plain = table_of(generated, RejectLog())
    shuffled = table_of(generated, RejectLog(), shuffle_labels=True)
    assert "truth" not in shuffled.column_names
    label = shuffled["label"].to_numpy()
    assert label.sum() == plain["label"].to_numpy().sum()
    assert shuffled.drop_columns(["label", "price"]) == plain.drop_columns(["label", "truth", "price"])
    assert np.array_equal(shuffled["price"], plain["price"], equal_nan=True)
    assert abs(metrics.auc(label, plain["truth"].to_numpy()) - 0.5) < 0.02


def test_damaged_synthetic_lines_do_not_shift_the_truth(tmp_path: Path, generated: Path):
    lines = (generated / "clicks.csv").read_text().splitlines(keepends=True)
    truth = (generated / "truth.csv").read_text().splitlines()[1:]
    lines[3] = "not a record\n"
    lines[5] = lines[5].replace("2026-01-05", "2026-13-05")
    (tmp_path / "clicks.csv").write_text("".join(lines[:11]))
    (tmp_path / "truth.csv").write_text("probability\n" + "\n".join(truth[:10]))
    rejects = RejectLog()
    rows = table_of(tmp_path, rejects).to_pylist()
    assert [row["truth"] for row in rows] == [float(truth[i]) for i in (0, 1, 3, 5, 6, 7, 8, 9)]
    assert [text.split(":")[1] for text in rejects.first] == ["4", "6"]
    (tmp_path / "truth.csv").write_text("probability\n0.5\n")
    with pytest.raises(PipelineError, match="delete both and run the download stage again"):
        table_of(tmp_path, RejectLog())
