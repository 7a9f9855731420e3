"""The reject log: no raw record vanishes, and corrupted ones have a limit."""

import json
from itertools import permutations

import pytest

from pipeline.common.errors import PipelineError
from pipeline.preprocess.rejects import SHOWN_PER_FILE, RejectLog


def log_of(**files: tuple[int, int]) -> RejectLog:
    """A reject log of files: how many records each has and how many of them are rejected."""
    rejects = RejectLog()
    for name, (records, rejected) in files.items():
        rejects.count(name, records)
        for line in range(rejected):
            rejects.reject(name, line + 1, "bad")
    return rejects


def test_the_counts_add_up_and_are_plain_json():
    rejects = RejectLog()
    for block in (6, 4):
        rejects.count("log", block)
    rejects.count("side", 3, side_table=True)
    rejects.reject("log", 4, "no number")
    rejects.reject("side", 2, "no name")
    rejects.drop("log", 2)
    account = rejects.check(7, max_rejected=0.5, name="toy")
    assert json.loads(json.dumps(account)) == {
        "rows_in": 10,
        "rows_out": 7,
        "rejected": 1,
        "dropped": 2,
        "first_rejects": ["log:4: no number", "side:2: no name"],
        "files": {
            "log": {"records": 10, "rejected": 1, "dropped": 2},
            "side": {"records": 3, "rejected": 1, "dropped": 0},
        },
    }


@pytest.mark.parametrize("rows_out", [6, 8])
def test_a_row_that_vanished_or_came_from_nowhere_is_a_defect_of_the_reader(rows_out: int):
    rejects = log_of(log=(10, 1))
    rejects.drop("log", 2)
    with pytest.raises(AssertionError):
        rejects.check(rows_out, max_rejected=1, name="toy")


def test_each_file_has_its_own_limit_and_its_own_lines_in_the_message():
    rejects = log_of(big=(1000, 2 * SHOWN_PER_FILE), small=(10, 2))
    rejects.check(1010 - 2 * SHOWN_PER_FILE - 2, max_rejected=0.2, name="toy")
    with pytest.raises(PipelineError) as caught:
        rejects.check(1010 - 2 * SHOWN_PER_FILE - 2, max_rejected=0.1, name="toy")
    assert str(caught.value) == (
        "toy: 2 of 10 records of small are corrupted, more than max_rejected = 0.1 allows:\n"
        "  small:1: bad\n  small:2: bad\n"
        "Fetch the file again, or raise preprocess.max_rejected of this dataset in params.yaml, which leaves "
        "such records out."
    )


def test_a_limit_of_zero_allows_none_and_is_met_by_none():
    log_of(log=(5, 0)).check(5, max_rejected=0, name="toy")
    with pytest.raises(PipelineError, match=r"1 of 1000000 records of log"):
        log_of(log=(1_000_000, 1)).check(999_999, max_rejected=0, name="toy")


@pytest.mark.parametrize("order", list(permutations([3, 1, 2])), ids=str)
def test_rejected_records_are_listed_by_line_in_whatever_order_they_are_found(order: tuple[int, ...]):
    rejects = log_of(log=(3, 0))
    for line in order:
        rejects.reject("log", line, "bad")
    assert rejects.first == ["log:1: bad", "log:2: bad", "log:3: bad"]


def test_the_first_rejected_records_of_a_file_are_listed_and_all_are_counted():
    rejects = log_of(log=(100, 0))
    for line in range(100, 0, -1):
        rejects.reject("log", line, "bad")
    assert rejects.first == [f"log:{line}: bad" for line in range(1, SHOWN_PER_FILE + 1)]
    assert rejects.files["log"].rejected == 100


def test_would_show_predicts_which_reasons_are_listed():
    rejects = log_of(log=(100, 0), other=(1, 1))
    for line in range(SHOWN_PER_FILE, 0, -1):
        assert rejects.would_show("log", 2 * line)
        rejects.reject("log", 2 * line, "bad")
    assert rejects.would_show("log", 2 * SHOWN_PER_FILE - 1)
    assert not rejects.would_show("log", 2 * SHOWN_PER_FILE + 1)
    assert rejects.would_show("other", 50)


def test_the_first_reason_with_a_hint_gets_it():
    rejects = log_of(log=(9, 0), other=(9, 0))
    assert not rejects.add_hint(lambda reason: "; try this")
    for file, reason in (("log", "odd"), ("other", "torn"), ("other", "torn")):
        rejects.reject(file, len(rejects.first) + 1, reason)
    assert not rejects.add_hint(lambda reason: "")
    assert rejects.add_hint(lambda reason: "try this" if reason == "torn" else "")
    assert rejects.first == ["log:1: odd", "other:2: torn; try this", "other:3: torn"]


def test_no_row_left_is_an_error_that_says_where_they_went():
    rejects = log_of(log=(5, 2))
    rejects.drop("log", 3)
    with pytest.raises(
        PipelineError, match=r"toy: no row is left of 5 \(2 corrupted, 3 left out by its rules\)"
    ):
        rejects.check(0, max_rejected=1, name="toy")
    with pytest.raises(PipelineError, match="toy holds no rows"):
        RejectLog().check(0, max_rejected=1, name="toy")
