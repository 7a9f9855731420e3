"""One map over units by all cores: the same results, errors and rejects whatever the number of workers."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from benchmarks import logs
from pipeline.common import engine
from pipeline.common.errors import PipelineError
from pipeline.common.files import folder_digest, seal
from pipeline.data.storage import SplitWriter
from pipeline.datasets import kuairec_big
from pipeline.preprocess import clean_table
from pipeline.preprocess.rejects import RejectLog
from pipeline.preprocess.text import Dialect, records
from pipeline.split import repeats
from pipeline.split.assign import assign, train_rows
from pipeline.split.vocabulary import Encoder, fit_vocabulary

WORKERS = (1, 2, 4)


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    yield
    engine.use(None)


@pytest.mark.parametrize("workers", WORKERS)
def test_results_come_in_the_order_of_the_units_whoever_is_done_first(workers: int) -> None:
    engine.use(workers)

    def slow_first(unit: int) -> int:
        time.sleep(0.02 if unit % 4 == 0 else 0)
        return unit * unit

    assert list(engine.map_ordered(slow_first, range(20))) == [unit * unit for unit in range(20)]
    assert list(engine.map_ordered(slow_first, [])) == []


def test_the_next_item_is_made_while_one_is_used_and_no_further_one() -> None:
    engine.use(2)
    made = [threading.Event() for _ in range(4)]

    def items() -> Iterator[int]:
        for number, event in enumerate(made):
            event.set()
            yield number

    ahead = engine.ahead(items())
    assert next(ahead) == 0
    assert made[1].wait(timeout=60)
    assert not made[2].is_set()
    assert list(ahead) == [1, 2, 3]


@pytest.mark.parametrize("workers", WORKERS)
def test_a_failure_ahead_is_raised_after_the_items_before_it(workers: int) -> None:
    engine.use(workers)

    def items() -> Iterator[int]:
        yield from range(3)
        raise PipelineError("no further item")

    found = list[int]()
    with pytest.raises(PipelineError, match="no further item"):
        found.extend(engine.ahead(items()))  # keeps what there was before the error
    assert found == [0, 1, 2]
    assert list(engine.ahead([])) == []


@pytest.mark.parametrize("workers", WORKERS)
def test_the_first_failure_in_order_is_raised_after_the_results_before_it(workers: int) -> None:
    engine.use(workers)

    def fails(unit: int) -> int:
        if unit in (3, 5):
            time.sleep(0.02 if unit == 3 else 0)
            raise PipelineError(f"unit {unit}")
        return unit

    def units() -> Iterator[int]:
        yield from range(8)
        raise PipelineError("no further unit")

    def taken(results: Iterator[int], message: str) -> list[int]:
        found = list[int]()
        with pytest.raises(PipelineError, match=message):
            found.extend(results)  # keeps what there was before the error
        return found

    assert taken(engine.map_ordered(fails, range(8)), "unit 3") == [0, 1, 2]
    assert taken(engine.map_ordered(fails, units()), "unit 3") == [0, 1, 2]
    assert taken(engine.map_ordered(lambda unit: unit, units()), "no further unit") == list(range(8))


def test_units_are_read_no_further_than_needed() -> None:
    engine.use(2)
    read = []

    def units() -> Iterator[int]:
        for unit in range(100):
            read.append(unit)
            yield unit

    results = engine.map_ordered(lambda unit: unit, units())
    assert [next(results), next(results)] == [0, 1]
    assert len(read) <= 2 + 1 + 2
    results.close()
    assert len(read) < 10
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("unit")]


def test_the_stages_take_the_number_of_workers_from_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = set[str]()

    def names(_unit: int) -> None:
        time.sleep(0.01)
        seen.add(threading.current_thread().name)

    engine.use(engine.processes(1))
    list(engine.map_ordered(names, range(6)))
    assert seen == {threading.current_thread().name}
    monkeypatch.setenv("CTR_PROCESSES", "3")
    engine.use(engine.processes("auto"))
    list(engine.map_ordered(names, range(6)))
    assert len(seen) > 2


def test_an_engine_that_is_not_installed_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    engine.use(None, "ray")
    with pytest.raises(PipelineError, match=r"needs Ray: install the extra \[scale\]"):
        next(engine.map_ordered(lambda unit: unit, [1]))


# ---- text: ranges at line ends, quoted ones included ----

ROWS = [
    'one,1\n"two\nlines",2\n"three\n\nlines",3\nfour,4\n',
    '"not closed,5\nsix,6\n',
    'ragged\n"x ""y"" \nz",7\n"a\nb\nc\nd",8\n\nnine,9\n',
]
Outcome = tuple[list[dict[str, str]], list[int], list[str], int]


def outcome(path: Path, workers: int, block_bytes: int) -> Outcome:
    """Rows, lines, rejects and number of records of a file."""
    engine.use(workers)
    rejects, rows, lines = RejectLog(), [], []
    read: Callable[..., Iterator[tuple[pa.Table, list[int]]]] = records
    for table, of in read(path, ["a", "b"], rejects, Dialect(quote='"'), block_bytes=block_bytes):
        rows += table.to_pylist()
        lines += list(of)
    tally = rejects.files[path.name]
    return rows, lines, rejects.first, tally.records


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 1, 0), (2, 2, 2)])
def test_records_in_quotes_are_whole_wherever_the_text_is_cut(tmp_path: Path, order: tuple[int, ...]) -> None:
    path = tmp_path / "log.csv"
    path.write_text("".join(ROWS[i] for i in order) * 3, encoding="utf-8")
    whole = outcome(path, 1, 1 << 20)
    assert {"a": "two lines", "b": "2"} in whole[0] or {"a": "a b c d", "b": "8"} in whole[0]
    for size in (8, 17, 40, 90):
        for workers in WORKERS:
            assert outcome(path, workers, size) == whole, (size, workers)


def test_a_piece_that_fails_alone_is_read_with_the_record_before_it(tmp_path: Path) -> None:
    """Speculation may fail where the sequence does not: its error counts only if the piece began a record."""
    path = tmp_path / "log.csv"
    path.write_text('"a\nb",1\n"c\nd",2\n' * 4, encoding="utf-8")
    engine.use(2)

    def strict(table: pa.Table, lines: list[int], rejects: RejectLog) -> list[str]:
        if rejects.files[path.name].rejected:
            raise PipelineError("half a record")
        return table["a"].to_pylist()

    found = records(path, ["a", "b"], RejectLog(), Dialect(quote='"'), block_bytes=7, clean=strict)
    assert [value for block in found for value in block] == ["a b", "c d"] * 4


# ---- a whole log ----


def prepared(raw: Path, folder: Path) -> tuple[object, ...]:
    """Preprocess and split a log of KuaiRec's form; what was written and found."""
    (folder / "interim").mkdir(parents=True)
    (folder / "processed").mkdir()
    rejects = RejectLog()
    log = kuairec_big.read(raw, rejects)
    report = clean_table.write(folder / "interim", log, rejects, "kuairec", max_rejected=0.01)
    table = clean_table.CleanTable(folder / "interim")
    assert len(table.block_rows) > 2
    extra = table.load_extra()
    assignment = assign(extra, "kuairec", repeats.of_log(table.field_blocks(), extra))
    vocabulary = fit_vocabulary(
        lambda field: train_rows(table.column_blocks(field), assignment), table.columns
    )
    encoder = Encoder(vocabulary, table.column_blocks)
    with SplitWriter(folder / "processed", encoder.schema, extra, assignment) as writer:
        truncated = writer.write(table.field_blocks(), encoder)
    seal(folder / "processed")
    return report, vocabulary, truncated, writer.report, folder_digest(folder)


@pytest.mark.slow
def test_preprocess_and_split_write_the_same_bytes_whatever_the_number_of_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = tmp_path / "raw"
    logs.kuairec(raw, 4000)
    lines = (raw / "big_matrix.csv").read_bytes().split(b"\n")
    lines[7], lines[2500] = b"1,2,3", lines[2500].replace(b",", b",x", 1)  # two to reject
    (raw / "big_matrix.csv").write_bytes(b"\n".join(lines))
    monkeypatch.setitem(records.__kwdefaults__, "block_bytes", 30_000)
    monkeypatch.setattr(clean_table, "ROWS_PER_BLOCK", 700)
    found = []
    for workers in WORKERS:
        engine.use(workers)
        found.append(prepared(raw, tmp_path / str(workers)))
    report = found[0][0]
    assert isinstance(report, dict) and (report["rows_in"], report["rejected"]) == (4000, 2)
    assert found[1:] == found[:1] * (len(WORKERS) - 1)
