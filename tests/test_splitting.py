from datetime import date

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.common.errors import PipelineError
from pipeline.common.permutation import drawn, mix, permutation
from pipeline.schema import SPLITS
from pipeline.split.assign import TEST, TRAIN, VALID, Part, assign, remark, scarce


def log(rows: int, **columns: object) -> pa.Table:
    label = np.arange(rows) % 2
    return pa.table({"label": pa.array(label.astype(np.uint8)), **columns})


def test_mix_is_splitmix64():
    # the first outputs of the reference generator started at 1234567
    state = np.uint64(1234567) + np.arange(3, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    assert mix(state).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_the_permutation_is_the_same_everywhere_for_ever():
    assert permutation(10, seed=1024).tolist() == [3, 5, 8, 6, 0, 7, 4, 2, 1, 9]
    assert permutation(10, seed=1).tolist() == [8, 6, 7, 9, 0, 5, 1, 3, 2, 4]
    assert sorted(permutation(1000, seed=3).tolist()) == list(range(1000))


@pytest.mark.parametrize("ends", [[0, 0], [0, 300], [200, 300], [300, 1000], [1000, 1000]])
def test_rows_are_drawn_as_a_permutation_has_them(ends: list[int]) -> None:
    found, expected = drawn(1000, 7, ends), permutation(1000, 7)
    for start, end in zip([0, *ends], [*ends, 1000], strict=True):
        assert set(found[start:end]) == set(expected[start:end])


def test_parts_have_the_exact_counts_and_depend_on_the_seed():
    table = log(100_000)
    parts = assign(table)
    assert np.bincount(parts).tolist() == [72_000, 8_000, 20_000]
    assert parts.dtype == np.uint8
    assert (assign(table) == parts).all()
    assert 0.6 < (assign(table, seed=1) != parts).sum() / (2 * 0.28 * 0.72 * 100_000) < 1.2


@given(
    rows=st.integers(20, 400), test=st.floats(0.1, 0.5), valid=st.floats(0.1, 0.5), seed=st.integers(0, 2**64)
)
def test_counts_are_met_to_the_row(rows: int, test: float, valid: float, seed: int):
    table = pa.table({"label": pa.array(np.arange(rows) % 2)})
    try:
        parts = assign(table, seed=seed, test=test, valid=valid)
    except PipelineError:  # a small part may have one class
        return
    tests = int(rows * test + 0.5)
    assert (parts == TEST).sum() == tests
    assert (parts == VALID).sum() == int((rows - tests) * valid + 0.5)


def test_by_time_the_oldest_rows_train_and_the_newest_test_with_ties_in_row_order():
    time = np.array([5, 1, 1, 9, 9, 9, 2, 3, 4, 1, 0, 0, 9, 9, 1, 2, 3, 4, 5, 6])
    parts = assign(log(20, time=time), method="time", test=0.2, valid=0.25)
    order = sorted(range(20), key=lambda row: (time[row], row))
    assert [parts[row] for row in order] == [TRAIN] * 12 + [VALID] * 4 + [TEST] * 4


def test_by_user_whole_groups_go_to_one_part_and_counts_are_nearly_met():
    group = pa.chunked_array([np.arange(2000) % 97, np.arange(2000, 5000) % 97]).cast(pa.int32())
    parts = assign(log(5000, group=group), method="user", seed=3)
    of_group: dict[int, set[int]] = {}
    for code, part in zip(group.to_pylist(), parts.tolist(), strict=True):
        of_group.setdefault(code, set()).add(part)
    assert all(len(found) == 1 for found in of_group.values())
    assert abs((parts == TEST).sum() - 1000) <= 52
    assert abs((parts == VALID).sum() - 400) <= 52
    assert (assign(log(5000, group=group), method="user", seed=4) != parts).any()


DAY = 86_400


def days_of(hours: list[float], **settings: object) -> list[list[int]]:
    """The days of the train, valid and test rows of a log with two rows at each of these hours."""
    time = np.repeat(np.array(hours) * 3600, 2).astype(np.int64)
    parts = assign(log(len(time), time=time), "toy", method="days", **settings)
    return [sorted({int(each // DAY) for each in time[parts == part]}) for part in (TRAIN, VALID, TEST)]


NOON = [24.0 * day + 12 for day in range(6)]


def test_by_days_the_last_complete_day_is_tested_and_the_one_before_it_chooses():
    assert days_of(NOON) == [[0, 1, 2], [3], [4]]  # day 5 goes on
    assert days_of([*NOON, 24 * 5 + 23.5]) == [[0, 1, 2, 3], [4], [5]]  # it has rows of its last hour


@pytest.mark.parametrize("day", [2, "1970-01-02", date(1970, 1, 2)])
def test_a_day_is_a_number_of_the_log_or_a_date_and_later_rows_go_nowhere(day: object):
    assert days_of(NOON, day=day) == [[0, 1], [2], [3]]


def test_of_the_days_before_it_some_may_be_enough():
    assert days_of(NOON, day=4, train_days=2) == [[2, 3], [4], [5]]


def test_days_begin_by_the_clock_of_their_place():
    late = [*NOON, 24 * 3 + 20.0]  # already the next day in Shanghai
    time = np.repeat(np.array(late) * 3600, 2).astype(np.int64)
    table = log(len(time), time=time)
    utc = assign(table, method="days", day="1970-01-03")
    there = assign(table, method="days", day="1970-01-03", utc_offset="+08:00")
    assert utc.tolist() == [0] * 6 + [1] * 2 + [2] * 2 + [3] * 2 + [1] * 2
    assert there.tolist() == [0] * 6 + [1] * 2 + [2] * 2 + [3] * 2 + [2] * 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"day": "1970-01-06"},
            "the valid split, rows on 1970-01-07, is empty: the log has days from",
        ),
        ({"day": "1969-12-31"}, "the train split, rows up to 1969-12-31, is empty"),
        ({"day": "yesterday"}, "data.toy.split.day: 'yesterday' is no day: write a date like"),
        ({"day": "1970-02-30"}, "'1970-02-30' is no day"),
        ({"utc_offset": "China"}, "data.toy.split.utc_offset: the offset 'China' is not written like"),
    ],
)
def test_a_day_that_is_not_there_is_an_error(settings: dict[str, object], message: str):
    with pytest.raises(PipelineError, match=message):
        days_of(NOON, **settings)


WORDS = ["train", "train", "valid", "valid", "test", "test"]


@pytest.mark.parametrize(
    "values",
    [
        WORDS,
        [0, 0, 1, 1, 2, 2],
        [0.0, 0.0, 1.0, 1.0, 2.0, 2.0],
        ["0", "0", "1", "1", "2", "2"],
        pa.array(WORDS).dictionary_encode(),
        pa.chunked_array([pa.array(WORDS[:3]).dictionary_encode(), pa.array(WORDS[3:]).dictionary_encode()]),
    ],
    ids=["words", "integers", "numbers", "digits", "coded", "coded-in-blocks"],
)
def test_a_given_column_decides(values: object):
    parts = assign(log(6, part=values), method="column", column="part")
    assert parts.tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("column", ["group", "label", "time", "truth"])
def test_a_column_that_means_something_else_is_no_given_column(column: str):
    """The codes of three groups would pass for parts."""
    table = log(6, group=[0, 0, 1, 1, 2, 2], time=[0, 0, 1, 1, 2, 2], truth=[0.0, 0.0, 1.0, 1.0, 2.0, 2.0])
    with pytest.raises(PipelineError, match=f"toy: '{column}' cannot be the split column"):
        assign(table, "toy", method="column", column=column)


def test_a_given_column_with_anything_else_is_an_error_with_the_row():
    for odd in ("dev", None):
        with pytest.raises(PipelineError, match=f"'part' contains {odd!r} in row 2"):
            assign(log(3, part=["train", "test", odd]), method="column", column="part")


FILES = {"train.csv": "train", "valid.csv": "valid", "test.csv": "test"}


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        (
            ["train.csv", "test.csv"],
            FILES,
            (
                "toy: the valid split is empty: no row of 40 has a value of the column 'part' that stands "
                "for valid; `values` says so of valid.csv. Look for these rows, or mend data.toy.split."
                "values; with `valid: 0.1` under data.toy.split they are drawn from the train rows"
            ),
        ),
        (
            ["train.csv", "valid.csv"],
            FILES,
            (
                "toy: the test split is empty: no row of 40 has a value of the column 'part' that stands for "
                "test; `values` says so of test.csv. Look for these rows, or mend data.toy.split.values"
            ),
        ),
        (
            ["train.csv", "old.csv"],
            {"train.csv": "train", "old.csv": None},
            "stands for test; `values` has train.csv: train, old.csv: null. Add to data.toy.split.values",
        ),
        (["test", "valid"], None, "stands for train; expected train or 0. Say under data.toy.split what"),
    ],
)
def test_a_part_that_no_row_is_of_is_told_with_the_values_that_stand_for_it(
    part: list[str], values: dict[str | int, Part | None] | None, message: str
) -> None:
    """A file without records has no row, and train rows in its place are not what was asked for."""
    with pytest.raises(PipelineError) as caught:
        assign(log(40, part=np.repeat(part, 20)), "toy", method="column", column="part", values=values)
    assert message in str(caught.value)
    assert "raise" not in str(caught.value)


def test_valid_rows_are_drawn_where_none_is_named_or_a_share_is_given() -> None:
    table = log(200, part=np.repeat(["train.csv", "test.csv"], 100))
    some: dict[str | int, Part | None] = {"train.csv": "train", "test.csv": "test"}
    for values, share in (({**some, "valid.csv": "valid"}, {"valid": 0.1}), (some, {})):
        parts = assign(table, method="column", column="part", values=values, **share)
        assert np.bincount(parts).tolist() == [90, 10, 100]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "time"}, "needs the column 'time', which this dataset does not have"),
        ({"method": "days"}, "needs the column 'time', which this dataset does not have"),
        ({"method": "user"}, "needs the column 'group'"),
        ({"method": "column"}, "needs the key `column`"),
        ({"method": "column", "column": "fold"}, "needs the column 'fold'"),
        ({"test": 0.001}, "toy: the test split of 50 rows is empty"),
        ({"valid": 0.001}, "toy: the valid split of 50 rows is empty; raise `valid` under `split`"),
        ({"test": 0.9999}, "toy: the train split of 50 rows is empty; lower `test` or `valid` under"),
    ],
)
def test_what_cannot_be_split_is_an_error(settings: dict[str, object], message: str):
    with pytest.raises(PipelineError, match=message):
        assign(log(50), "toy", **settings)


def test_a_part_with_one_class_is_an_error_that_names_part_and_dataset():
    label = np.array([1, 0, 1, 0, 1, 0, 0, 1, 1, 1], np.uint8)
    table = pa.table({"label": label, "time": np.arange(10)})
    with pytest.raises(PipelineError, match="toy: all 2 rows of the test split have the label 1"):
        assign(table, "toy", method="time", valid=0.25)


def test_missing_times_are_an_error():
    with pytest.raises(PipelineError, match="'time' has missing values"):
        assign(log(3, time=[1, None, 2]), method="time")


@pytest.mark.parametrize(
    ("rows", "method", "words"),
    [
        ((21, 2, 6), "random", ""),
        ((10, 10, 10), "time", ""),
        (
            (900, 8_100, 21_000),
            "random",
            (
                "fewer rows to train on (900) than in valid (8,100) and test (21,000): if that is not meant, "
                "lower `test` and `valid`, which is a share of what is not test (`split`)"
            ),
        ),
        ((5, 4, 6), "days", "than in test (6): if that is not meant, raise `train_days`"),
    ],
)
def test_a_train_part_that_is_smaller_than_another_is_told(
    rows: tuple[int, int, int], method: str, words: str
):
    told = remark(dict(zip(SPLITS, rows, strict=True)), method)
    assert words in told and bool(words) == bool(told)


def test_a_class_of_hardly_a_row_is_told_before_anything_is_trained() -> None:
    enough = {"rows": 3_000, "clicks": 10}
    assert scarce(dict.fromkeys(SPLITS, enough)) == []
    report = {"train": {"rows": 20, "clicks": 11}, "valid": {"rows": 2_951, "clicks": 1}, "test": enough}
    assert scarce(report) == [
        "the train split has 9 rows with label 0 of 20: little can be learnt from them",
        "the valid split has 1 row with label 1 of 2,951: what is chosen by it is chosen by chance",
    ]
