"""Batches: every row once, in an order that the generator alone decides."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rows import SCHEMAS, random_ids

from pipeline.common.errors import PipelineError
from pipeline.common.files import seal, write_json
from pipeline.data import streaming
from pipeline.data.batches import Batch, Split
from pipeline.data.streaming import StreamedSplit
from pipeline.schema import SPLITS, Field, Schema

# the single column holds the row's number, and the label tells it too
NUMBERED = Schema((Field("row", 10_000),))


def numbered(n: int) -> Split:
    row = torch.arange(n)
    return Split(NUMBERED, row[:, None].int(), (row % 2).float(), row * 3, (row % 5).to(torch.uint8))


def rows_of(batches: list[Batch]) -> list[int]:
    for batch in batches:  # label, time and grade stay with their row
        assert batch.time is not None
        assert batch.grade is not None
        assert torch.equal(batch.grade, batch.ids[:, 0] % 5)
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


@pytest.mark.parametrize("part", SPLITS)
def test_load_reads_a_processed_folder(part: str, tmp_path: Path) -> None:
    schema = SCHEMAS["two-domains"]
    for seed, name in enumerate(SPLITS):
        np.save(tmp_path / f"{name}.ids.npy", random_ids(schema, 20, seed).numpy())
        np.save(tmp_path / f"{name}.label.npy", np.arange(20, dtype=np.uint8) % 2)
    np.save(tmp_path / "train.time.npy", np.arange(20))
    write_json(tmp_path / "schema.json", schema.to_json())
    seal(tmp_path)
    split = Split.load(tmp_path, part)
    assert split.schema == schema
    assert len(split) == 20
    assert torch.equal(split.ids, random_ids(schema, 20, SPLITS.index(part)))
    assert split.ids.dtype == torch.int32
    assert split.label.tolist() == [0.0, 1.0] * 10
    assert split.label.dtype == torch.float32
    if part == "train":
        assert split.time is not None
        assert split.time.tolist() == list(range(20))
    else:
        assert split.time is None


@pytest.mark.parametrize("rows_in_memory", [1, 100])
@pytest.mark.parametrize("left", [0, 3, 150])
def test_a_file_that_was_cut_off_is_told(rows_in_memory: int, left: int, tmp_path: Path) -> None:
    schema = SCHEMAS["no-bags"]
    np.save(tmp_path / "valid.ids.npy", random_ids(schema, 50).numpy())
    np.save(tmp_path / "valid.label.npy", np.zeros(50, dtype=np.uint8))
    write_json(tmp_path / "schema.json", schema.to_json())
    seal(tmp_path)
    path = tmp_path / "valid.ids.npy"
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(PipelineError, match=r"valid\.ids\.npy was changed .*run the split stage again"):
        Split.load(tmp_path, "valid", rows_in_memory=rows_in_memory)


def test_loaded_rows_are_a_copy_of_the_file(tmp_path: Path) -> None:
    schema = SCHEMAS["no-bags"]
    np.save(tmp_path / "train.ids.npy", random_ids(schema, 5).numpy())
    np.save(tmp_path / "train.label.npy", np.zeros(5, dtype=np.uint8))
    write_json(tmp_path / "schema.json", schema.to_json())
    seal(tmp_path)
    Split.load(tmp_path, "train").ids.zero_()
    assert np.load(tmp_path / "train.ids.npy").any()


# ---- streamed parts ----


def write(folder: Path, ids: np.ndarray, label: np.ndarray, schema: Schema = NUMBERED) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "train.ids.npy", ids.astype(np.int32))
    np.save(folder / "train.label.npy", label.astype(np.uint8))
    np.save(folder / "train.time.npy", ids[:, 0].astype(np.int64) * 3)
    np.save(folder / "train.grade.npy", (ids[:, 0] % 5).astype(np.uint8))
    write_json(folder / "schema.json", schema.to_json())
    seal(folder)
    return folder


@pytest.fixture(name="small_windows")
def _small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "ROWS_PER_BLOCK", 4)
    monkeypatch.setattr(streaming, "ROWS_PER_WINDOW", 20)


@pytest.fixture(scope="module", name="folders")
def _folders(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Processed folders of the first n numbers."""
    root = tmp_path_factory.mktemp("numbered")
    rows = {n: np.arange(n)[:, None] for n in range(1, 81)}
    return {n: write(root / str(n), row, row[:, 0] % 2) for n, row in rows.items()}


def streamed(folder: Path) -> Split:
    return Split.load(folder, "train", rows_in_memory=0)


@pytest.mark.slow
@pytest.mark.usefixtures("small_windows")
@sizes
def test_a_streamed_part_in_order_is_the_resident_one(folders: dict[int, Path], n: int, size: int) -> None:
    split = streamed(folders[n])
    assert (len(split), split.device, split.count(size)) == (n, torch.device("cpu"), numbered(n).count(size))
    ours, theirs = list(split.batches(size)), list(numbered(n).batches(size))
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.label.dtype == torch.float32
        assert a.ids.dtype == torch.int32
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.slow
@pytest.mark.usefixtures("small_windows")
@given(n=st.integers(1, 80), size=st.integers(1, 90), skip=st.integers(0, 90))
def test_a_streamed_epoch_is_a_permutation_that_the_generator_decides(
    folders: dict[int, Path], n: int, size: int, skip: int
) -> None:
    split = streamed(folders[n])
    batches = list(split.batches(size, seeded(7)))
    assert sorted(rows_of(batches)) == list(range(n))
    assert [len(b.label) for b in batches] == [len(b.label) for b in numbered(n).batches(size)]
    assert rows_of(list(split.batches(size + 3, seeded(7)))) == rows_of(batches), "of any size"
    tail = list(split.batches(size, seeded(7), skip=skip))
    assert [b.ids.tolist() for b in tail] == [b.ids.tolist() for b in batches[skip:]]


@pytest.mark.usefixtures("small_windows")
def test_each_epoch_and_each_seed_has_its_own_order(folders: dict[int, Path]) -> None:
    split, before = streamed(folders[80]), torch.get_rng_state()
    generator = seeded(7)
    first, second = (rows_of(list(split.batches(8, generator))) for _ in range(2))
    assert first != second
    assert first == rows_of(list(split.batches(8, seeded(7)))) != rows_of(list(split.batches(8, seeded(8))))
    assert torch.equal(torch.get_rng_state(), before)
    windows = [set(first[i : i + 20]) for i in range(0, 80, 20)]
    assert all(max(window) - min(window) > 30 for window in windows), "from all over the file"


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize("shuffled", [True, False])
def test_what_is_skipped_is_not_read(
    folders: dict[int, Path], shuffled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    plain = StreamedSplit._read

    def reading(self: StreamedSplit, blocks: list[int]) -> Batch:
        read.extend(blocks)
        return plain(self, blocks)

    monkeypatch.setattr(StreamedSplit, "_read", reading)
    list(streamed(folders[80]).batches(8, seeded(1) if shuffled else None, skip=8))
    assert len(read) == 5, "64 rows are left out: three windows of 20 rows, five blocks each"


def test_a_part_is_streamed_where_it_is_longer_than_the_setting(folders: dict[int, Path]) -> None:
    assert not Split.load(folders[9], "train", rows_in_memory=9).streamed
    split = Split.load(folders[10], "train", rows_in_memory=9)
    assert split.streamed
    assert split.device == torch.device("cpu")
    assert rows_of([split.whole()]) == list(range(10))


@pytest.mark.slow
def test_a_sorted_file_is_mixed_as_well_as_the_docstring_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worst case: all negative rows, then all positive ones; the mean label of each batch."""
    monkeypatch.setattr(streaming, "ROWS_PER_BLOCK", 16)
    monkeypatch.setattr(streaming, "ROWS_PER_WINDOW", 2048)
    n, size = 2**15, 128
    split = streamed(write(tmp_path, np.arange(n)[:, None], np.arange(n) >= n / 2))
    means = torch.stack([b.label.mean() for e in range(4) for b in split.batches(size, seeded(e))])
    independent, bound = 0.25 / size, 1 + size * 16 / 2048
    assert means.var().item() < 1.2 * bound * independent
    assert means.mean().item() == pytest.approx(0.5, abs=1e-6)


MEMORY = """
import sys
from pathlib import Path
import torch
from pipeline.data import streaming
from pipeline.data.batches import Split

def own():  # megabytes that are the process's own: pages of the file are the system's to drop
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if "RssAnon" in line)
    return int(line.split()[1]) / 1024

torch.set_num_threads(1)
streaming.ROWS_PER_WINDOW = 2**16
split, start, most, rows = Split.load(Path(sys.argv[1]), "train", rows_in_memory=10**6), own(), 0.0, 0
for batch in split.batches(8192, torch.Generator().manual_seed(1)):
    rows += len(batch.label)
    most = max(most, own())
assert rows == len(split)
print(most - start)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from Linux's /proc")
def test_memory_is_bounded_by_the_window(tmp_path: Path) -> None:
    """A file of 320 MB (with holes: it takes no space), of which no more than a few windows are held."""
    schema = Schema(tuple(Field(f"f{i}", 10) for i in range(40)))
    shape = (2**21, 40)
    np.lib.format.open_memmap(tmp_path / "train.ids.npy", "w+", "<i4", shape)
    np.lib.format.open_memmap(tmp_path / "train.label.npy", "w+", "|u1", shape[:1])
    write_json(tmp_path / "schema.json", schema.to_json())
    seal(tmp_path)
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", MEMORY, tmp_path], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 120, "a window of 10 MB, three times, and what a library allocates"
