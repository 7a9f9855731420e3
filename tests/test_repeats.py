"""Rows that repeat another one: which they are, whether they are copies, and what becomes of them."""

from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import metrics
from pipeline.common.errors import PipelineError
from pipeline.split import repeats
from pipeline.split.assign import TEST, TRAIN, assign
from pipeline.split.repeats import DROPPED, Repeats

VALUES = st.tuples(
    st.sampled_from([None, "a", "b", "ab"]),
    st.sampled_from([None, 0.0, -0.0, 1.0, np.nan]),
    st.integers(0, 2),
    st.integers(0, 1),
)


def of(rows: list[tuple[Any, ...]], cut: int = 0) -> Repeats:
    """Rows (city, price, time, label) in two blocks, whose dictionaries differ."""
    table = pa.table(
        {
            "city": pa.array([row[0] for row in rows], pa.string()),
            "price": pa.array([row[1] for row in rows], pa.float64()),
        }
    )
    blocks = [table.slice(0, cut), table.slice(cut)]
    coded = [b.set_column(0, "city", b["city"].dictionary_encode()) for b in blocks]
    rest = {"label": [row[3] for row in rows], "time": [row[2] for row in rows], "fold": range(len(rows))}
    return repeats.of_log(coded, pa.table(rest))


def seen(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """A row as it is compared: every missing number is equal, and so are both zeros."""
    city, price, time, label = row
    return city, None if price is None or np.isnan(price) else abs(price), time, label


@given(rows=st.lists(VALUES, min_size=1, max_size=40), data=st.data())
def test_rows_alike_and_copies_are_found_in_whatever_blocks(rows: list[tuple[Any, ...]], data: st.DataObject):
    found = of(rows, data.draw(st.integers(0, len(rows))))
    alike, first = defaultdict(list), dict[Any, int]()
    for number, row in enumerate(map(seen, rows)):
        alike[row[:3]].append(number)
        first.setdefault(row, number)
    assert found.rows.tolist() == sorted(n for group in alike.values() if len(group) > 1 for n in group)
    assert found.first.tolist() == [first[seen(rows[n])] for n in found.rows]
    assert found.extra.tolist() == [n for n, row in enumerate(map(seen, rows)) if first[row] < n]

    part = np.array(data.draw(st.lists(st.integers(0, 2), min_size=len(rows), max_size=len(rows))), np.uint8)
    train = {seen(row) for row, split in zip(rows, part, strict=True) if split == TRAIN}
    expected = sum(seen(row) in train for row, split in zip(rows, part, strict=True) if split == TEST)
    assert found.report(part)["in_train"]["test"] == expected


def test_the_order_of_columns_counts():
    a, b = pa.array(["x", "y"]).dictionary_encode(), pa.array(["y", "x"]).dictionary_encode()
    one, two = repeats.hashes_of([pa.table({"a": a, "b": b})])
    assert one != two


def events(rows: int, cells: int, seed: int = 1) -> tuple[list[tuple[Any, ...]], np.ndarray]:
    """Separate events: a click has the probability of its cell; and that probability."""
    draw = np.random.default_rng(seed)
    rate = draw.beta(0.5, 1.5, cells)
    cell = draw.integers(0, cells, rows)
    label = draw.random(rows) < rate[cell]
    return [(f"c{c}", None, 0, int(y)) for c, y in zip(cell, label, strict=True)], rate[cell]


def test_agreement_is_the_share_of_the_variance_that_the_fields_explain():
    rows, rate = events(40_000, 50)
    explained = rate.var() / (rate.mean() * (1 - rate.mean()))
    found = of(rows)
    assert found.agreement == pytest.approx(explained, abs=0.02)
    assert not found.are_copies
    assert assign(log_of(rows), "toy", found).shape == (40_000,), (
        "separate events alike are no reason to refuse"
    )


def log_of(rows: list[tuple[Any, ...]]) -> pa.Table:
    label, time = pa.array([row[3] for row in rows], pa.uint8()), [row[2] for row in rows]
    return pa.table({"label": label, "time": time})


def copied(rows: int, times: int, seed: int = 1) -> list[tuple[Any, ...]]:
    """Rows that are all different, each of them several times, in random order."""
    draw = np.random.default_rng(seed)
    distinct = [(f"c{n % 7}", float(n), n, int(draw.random() < 0.2)) for n in range(rows)]
    return [distinct[n] for n in draw.permutation(np.repeat(np.arange(rows), times))]


def test_copies_in_train_and_test_are_refused_with_the_cure():
    rows = copied(500, 6)
    found = of(rows)
    assert found.agreement == 1
    with pytest.raises(PipelineError, match=r"toy: \d+ of 600 test rows are copies .*toy.split.repeated"):
        assign(log_of(rows), "toy", found)
    assert (assign(log_of(rows), "toy", found, repeated="keep") == assign(log_of(rows))).all()


def test_a_few_copies_are_rows_like_others():
    rows = copied(1000, 1) + copied(1000, 1)[:100]
    found = of(rows)
    assert found.agreement == 1
    part = assign(log_of(rows), "toy", found)
    report = found.report(part)
    assert (report["copies"], report["dropped"]) == (100, 0)
    assert 0 < report["in_train"]["test"] < 40
    assert (
        repeats.remark(report)
        == f", 100 copies of earlier rows ({report['in_train']['test']} test rows have one in train)"
    )


def test_with_too_few_clicks_to_tell_nothing_is_refused():
    rows = [("c", float(n % 100), 0, int(n % 100 == 0)) for n in range(200)]
    assert of(rows).agreement is None
    assert not of(rows).are_copies


@pytest.mark.parametrize("method", ["random", "time"])
def test_dropped_copies_are_in_no_split_and_the_fractions_are_those_of_the_others(method: Any):
    rows = copied(500, 6)
    found = of(rows)
    part = assign(log_of(rows), "toy", found, method=method, repeated="drop")
    assert np.bincount(part).tolist() == [360, 40, 100, 2500]
    kept = np.flatnonzero(part != DROPPED)
    assert kept.tolist() == sorted(np.unique([row[2] for row in rows], return_index=True)[1].tolist())
    assert found.report(part)["in_train"] == {"valid": 0, "test": 0}
    assert "dropped" in repeats.remark(found.report(part))


def test_copies_that_stay_together_are_in_the_split_of_the_first():
    rows = copied(500, 6)
    part = assign(log_of(rows), "toy", of(rows), repeated="together")
    splits = defaultdict(set)
    for row, split in zip(rows, part.tolist(), strict=True):
        splits[row].add(split)
    assert Counter(split for (split,) in splits.values()) == {0: 360, 1: 40, 2: 100}


def by_heart(rows: list[tuple[Any, ...]], part: np.ndarray) -> float:
    """Test AUC of the mean label of the train rows with the same fields."""
    train, mean = defaultdict(list), 0.2
    for row, split in zip(rows, part, strict=True):
        if split == TRAIN:
            train[row[:3]].append(row[3])
    test = [row for row, split in zip(rows, part, strict=True) if split == TEST]
    score = np.array([np.mean(train.get(row[:3], [mean])) for row in test])
    return metrics.auc(np.array([row[3] for row in test]), score)


def test_a_log_six_times_says_what_its_rows_say_once():
    """Labels are random, so that nothing but copies can be learnt."""
    rows = copied(500, 6)
    found = of(rows)
    assert by_heart(rows, assign(log_of(rows), "toy", found, repeated="keep")) > 0.95
    for repeated in ("drop", "together"):
        assert by_heart(rows, assign(log_of(rows), "toy", found, repeated=repeated)) == 0.5
