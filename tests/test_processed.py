"""The encoded parts: whatever the blocks, the files are the same and hold what `encode.apply` says."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.common.files import folder_digest
from pipeline.data import storage
from pipeline.data.storage import SplitWriter
from pipeline.preprocess.parse import chunk
from pipeline.schema import SPLITS, Column
from pipeline.split.assign import TEST, TRAIN, VALID
from pipeline.split.vocabulary import Encoder, apply, fit_vocabulary, schema

COLUMNS = (
    Column("city", "category", "user"),
    Column("tags", "bag", "item"),
    Column("price", "number", "item"),
)


def fields_of(rows: int) -> pa.Table:
    return pa.table(
        {
            "city": pa.array([[None, "a", "b", "new"][n % 4] for n in range(rows)], pa.string()),
            "tags": pa.array([[None, "x|y", "z|x|w|v", ""][n % 4] for n in range(rows)], pa.string()),
            "price": pa.array([None if n % 6 == 0 else n % 9 for n in range(rows)], pa.float64()),
        }
    )


def rest_of(rows: int, **more: Any) -> pa.Table:
    return pa.table({"label": pa.array(np.arange(rows) % 3 == 0).cast(pa.uint8()), **more})


VOCABULARY = fit_vocabulary(lambda name: [chunk(fields_of(11)[name])], COLUMNS, max_slots=2, bins=3)


def write(folder: Path, rows: pa.Table, parts: np.ndarray, cuts: Sequence[int]) -> dict[str, Any]:
    """What the split stage does with the blocks of a table."""
    table = fields_of(len(rows))
    ends = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    tables = [table.slice(start, end - start) for start, end in pairwise(ends)]
    encoder = Encoder(VOCABULARY, lambda name: [chunk(part[name]) for part in tables])
    with SplitWriter(folder, encoder.schema, rows, parts) as writer:
        writer.write(tables, encoder)
    return writer.report


@pytest.mark.slow
@given(
    parts=st.lists(st.sampled_from([TRAIN, VALID, TEST]), max_size=40),
    cuts=st.lists(st.integers(0, 40), max_size=4),
    some=st.integers(1, 50),
)
def test_the_files_hold_each_row_of_a_part_in_order_whatever_the_blocks(
    tmp_path_factory: pytest.TempPathFactory, parts: list[int], cuts: list[int], some: int
):
    folder, whole = tmp_path_factory.mktemp("parts"), tmp_path_factory.mktemp("whole")
    where = np.array(parts, np.uint8)
    group, truth = np.arange(len(parts), dtype=np.int32) % 5, np.arange(len(parts)) / 50
    rows = rest_of(len(parts), group=group, truth=truth, time=np.arange(len(parts)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.split.vocabulary.ROWS_PER_CHUNK", some)
        report = write(folder, rows, where, cuts)
    assert write(whole, rows, where, []) == report
    assert folder_digest(folder) == folder_digest(whole)
    expected = {
        "ids": apply(VOCABULARY, fields_of(len(parts))),
        "label": rows["label"].to_numpy(),
        "row": np.arange(len(parts)),
        "group": group,
        "time": np.arange(len(parts)),
        "truth": truth,
    }
    assert {path.name for path in folder.iterdir()} == {
        f"{part}.{key}.npy" for part in SPLITS for key in expected
    }
    for number, part in enumerate(SPLITS):
        for key, values in expected.items():
            found = np.load(folder / f"{part}.{key}.npy")
            assert found.dtype == values.dtype
            assert np.array_equal(found, values[where == number])
        ids = np.load(folder / f"{part}.ids.npy", mmap_mode="r")
        assert ids.flags.c_contiguous and ids.dtype == np.int32
        label = np.load(folder / f"{part}.label.npy")
        assert report[part] == {
            "rows": len(label),
            "clicks": int(label.sum()),
            "unseen": storage.unseen(schema(VOCABULARY), ids),
        }


def test_a_part_that_gets_no_row_is_an_empty_file(tmp_path: Path):
    report = write(tmp_path, rest_of(10), np.zeros(10, np.uint8), [4])
    assert np.load(tmp_path / "valid.ids.npy").shape == (0, schema(VOCABULARY).slots)
    assert report["test"] == {"rows": 0, "clicks": 0, "unseen": {"city": 0, "tags": 0, "price": 0}}


def test_unseen_ids_are_counted_by_part_and_field(tmp_path: Path):
    vocabulary = fit_vocabulary(lambda name: [pa.array(["a", "b"])], COLUMNS[:1])
    table = pa.table({"city": pa.array(["a", "x", "y", None, "x", "b"])})
    parts = np.array([TRAIN, TRAIN, VALID, VALID, TEST, TEST], np.uint8)
    encoder = Encoder(vocabulary, lambda name: [chunk(table[name])])
    with SplitWriter(tmp_path, encoder.schema, rest_of(6), parts) as writer:
        writer.write([table], encoder)
    assert [writer.report[part]["unseen"]["city"] for part in SPLITS] == [1, 2, 1]


def test_a_row_too_few_is_a_defect_that_shows(tmp_path: Path):
    """Else the file would be shorter than its header says, and a later stage would fail far from here."""
    parts, table = np.zeros(4, np.uint8), fields_of(3)
    encoder = Encoder(VOCABULARY, lambda name: [chunk(table[name])])
    with (
        pytest.raises(AssertionError, match="1 rows without ids"),
        SplitWriter(tmp_path, schema(VOCABULARY), rest_of(4), parts) as writer,
    ):
        writer.write([table], encoder)
