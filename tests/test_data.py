"""Batches: every row once, in an order that the generator alone decides."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rows import SCHEMAS, random_ids

from pipeline.data import Batch, Split
from pipeline.files import write_json
from pipeline.schema import PARTS, Field, Schema

# the single column holds the row's number, and the label tells it too
NUMBERED = Schema((Field("row", 10_000),))


def numbered(n: int) -> Split:
    row = torch.arange(n)
    return Split(NUMBERED, row[:, None].int(), (row % 2).float(), row * 3)


def rows_of(batches: list[Batch]) -> list[int]:
    for batch in batches:  # label and time stay with their row
        assert batch.time is not None
        assert torch.equal(batch.label, (batch.ids[:, 0] % 2).float())
        assert torch.equal(batch.time, batch.ids[:, 0].long() * 3)
    return [row for batch in batches for row in batch.ids[:, 0].tolist()]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


sizes = given(n=st.integers(1, 80), size=st.integers(1, 90))


@sizes
def test_without_a_generator_rows_come_in_order(n: int, size: int) -> None:
    assert rows_of(list(numbered(n).batches(size))) == list(range(n))


@sizes
def test_an_epoch_is_a_permutation(n: int, size: int) -> None:
    assert sorted(rows_of(list(numbered(n).batches(size, seeded(1))))) == list(range(n))


@sizes
def test_count_says_how_many_batches_come(n: int, size: int) -> None:
    split = numbered(n)
    assert len(list(split.batches(size))) == split.count(size)


@sizes
def test_batches_are_full_but_the_last_and_no_row_is_left_alone(n: int, size: int) -> None:
    *whole, last = (len(batch.label) for batch in numbered(n).batches(size))
    assert set(whole) <= {size}
    assert last > 1 or n == 1 or size == 1
    assert last <= size or (last == size + 1 and size > 1)


@given(n=st.integers(1, 60), size=st.integers(1, 20), skip=st.integers(0, 70))
def test_skip_leaves_the_tail_of_the_same_epoch(n: int, size: int, skip: int) -> None:
    whole = list(numbered(n).batches(size, seeded(3)))
    tail = list(numbered(n).batches(size, seeded(3), skip=skip))
    assert [b.ids.tolist() for b in tail] == [b.ids.tolist() for b in whole[skip:]]


def test_a_single_last_row_joins_the_batch_before() -> None:
    assert [len(b.label) for b in numbered(9).batches(4)] == [4, 5]
    assert [len(b.label) for b in numbered(10).batches(4)] == [4, 4, 2]
    assert [len(b.label) for b in numbered(1).batches(4)] == [1]


def test_the_order_depends_on_the_generator_alone() -> None:
    split = numbered(500)
    first = rows_of(list(split.batches(64, seeded(7))))
    torch.manual_seed(99)
    assert rows_of(list(split.batches(64, seeded(7)))) == first
    assert rows_of(list(split.batches(100, seeded(7)))) == first, "the size must not change the order"
    assert rows_of(list(split.batches(64, seeded(8)))) != first
    generator = seeded(7)
    assert rows_of(list(split.batches(64, generator))) == first
    assert rows_of(list(split.batches(64, generator))) != first, "the next epoch has another order"


def test_batches_leave_the_split_and_the_global_generator_alone() -> None:
    split, before = numbered(50), torch.get_rng_state()
    list(split.batches(8, seeded(1)))
    assert torch.equal(torch.get_rng_state(), before)
    assert split.ids[:, 0].tolist() == list(range(50))


@pytest.mark.parametrize("part", PARTS)
def test_load_reads_a_processed_folder(part: str, tmp_path: Path) -> None:
    schema = SCHEMAS["two-domains"]
    for seed, name in enumerate(PARTS):
        np.save(tmp_path / f"{name}.ids.npy", random_ids(schema, 20, seed).numpy())
        np.save(tmp_path / f"{name}.label.npy", np.arange(20, dtype=np.uint8) % 2)
    np.save(tmp_path / "train.time.npy", np.arange(20))
    write_json(tmp_path / "schema.json", schema.to_json())
    split = Split.load(tmp_path, part)
    assert split.schema == schema
    assert len(split) == 20
    assert torch.equal(split.ids, random_ids(schema, 20, PARTS.index(part)))
    assert split.ids.dtype == torch.int32
    assert split.label.tolist() == [0.0, 1.0] * 10
    assert split.label.dtype == torch.float32
    if part == "train":
        assert split.time is not None
        assert split.time.tolist() == list(range(20))
    else:
        assert split.time is None


def test_loaded_rows_are_a_copy_of_the_file(tmp_path: Path) -> None:
    schema = SCHEMAS["no-bags"]
    np.save(tmp_path / "train.ids.npy", random_ids(schema, 5).numpy())
    np.save(tmp_path / "train.label.npy", np.zeros(5, dtype=np.uint8))
    write_json(tmp_path / "schema.json", schema.to_json())
    Split.load(tmp_path, "train").ids.zero_()
    assert np.load(tmp_path / "train.ids.npy").any()
