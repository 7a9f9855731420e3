"""A new log beside the test rows: silent by chance, loud where something has changed."""

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scoring_rows as mine

from benchmarks import watch as logs
from pipeline import __main__ as commands
from pipeline.common.errors import PipelineError
from pipeline.common.files import read_json
from pipeline.config.settings import Watch
from pipeline.datasets import tabular
from pipeline.schema import EMPTY, Field
from pipeline.scoring.model import RAW, Model
from pipeline.watch import drift, picture, reference, report
from pipeline.watch import span as span_of_log
from pipeline.watch.drift import Noise
from pipeline.watch.span import Span
from pipeline.watch.units import misread, quartiles

LIMITS = Watch()
FIRST = 10  # id of a field


# ---- figures ----


def test_a_row_counts_once_whatever_the_kind_of_a_field() -> None:
    category = {"kind": "category", "values": ["a", None]}
    ids = np.array([[10], [11], [12], [12]])
    np.testing.assert_equal(drift.counts(category, Field("f", 3), FIRST, ids), [1, 1, 2, 0])
    bag = {"kind": "bag", "values": ["a", "b"]}
    ids = np.array([[11, 12], [EMPTY, EMPTY], [11, EMPTY], [10, EMPTY]])
    np.testing.assert_equal(drift.counts(bag, Field("f", 3, 2), FIRST, ids), [1, 1.5, 0.5, 1])
    steps = {"kind": "number", "missing": True}  # unseen, missing, two bins
    ids = np.array([[12, EMPTY], [12, 13], [11, EMPTY]])
    np.testing.assert_equal(drift.counts(steps, Field("f", 4, 2), FIRST, ids), [0, 1, 1, 1, 0])


def test_the_stability_index_is_that_of_its_formula() -> None:
    q, p = np.array([0.5, 0.3, 0.2]), np.array([0.3, 0.3, 0.4])
    found, chance, _ = drift.stability(q * 1e6, p * 1e6, Noise(10**6, 10**6, 1))
    assert found == pytest.approx((0.3 - 0.5) * np.log(0.3 / 0.5) + (0.4 - 0.2) * np.log(0.4 / 0.2), rel=1e-4)
    assert chance == pytest.approx(2 * 2e-6)


@pytest.mark.parametrize("rows", [100, 1000, 20_000])
def test_of_two_samples_of_one_log_the_index_is_what_chance_gives(rows: int) -> None:
    """A field of 3,000 values, few of them frequent: the mean of 200 samples, and no alarm."""
    draw, entry = np.random.default_rng(rows), {"name": "f", "kind": "category", "values": ["v"] * 3000}
    share = 1 / np.arange(1, 3002)
    share[0] = 0.01  # unseen
    share /= share.sum()
    found, expected, alarms = [], [], 0
    for _ in range(200):
        old, new = (np.r_[draw.multinomial(n, share), 0.0] for n in (20_000, rows))
        noise = Noise(rows, 20_000, 30)
        psi, chance, _bound = drift.stability(*drift.banded(old, new, [0]), noise)
        found.append(psi)
        expected.append(chance)
        alarms += any(check.alarm for check in drift.of_field(entry, old, new, 0.0, LIMITS, noise))
    assert np.mean(found) == pytest.approx(np.mean(expected), rel=0.25)
    assert alarms == 0


def test_unseen_and_missing_values_are_told_apart() -> None:
    entry = {"name": "f", "kind": "category", "values": ["a", "b"]}  # training saw no row without a value
    old, new = np.array([10.0, 500, 490, 0]), np.array([310.0, 400, 290, 0])
    noise = Noise(1000, 1000, 1)
    found = {c.what: c for c in drift.of_field(entry, old, new, 0.3, LIMITS, noise)}
    assert (found["unseen"].new, found["missing"].new) == (pytest.approx(0.01), 0.3)
    assert not found["unseen"].alarm
    assert found["missing"].alarm
    found = {c.what: c for c in drift.of_field(entry, old, new, 0.0, LIMITS, noise)}
    assert found["unseen"].alarm
    assert not found["missing"].alarm


def test_a_limit_is_at_least_what_chance_does() -> None:
    """One row in ten is no share of a log yet; and fewer unseen values are no fault."""
    few, many = Noise(10, 10_000, 30), Noise(10_000, 10_000, 30)
    assert few.of_share(0.0, 0.1) > 0.2
    assert many.of_share(0.0, 0.1) < LIMITS.unseen
    check = drift.Check("unseen", "f", 0.5, 0.1, -0.4, 0.05)
    assert not check.alarm


def test_a_figure_that_is_not_a_number_is_an_alarm() -> None:
    assert drift.Check("auc", None, 0.7, float("nan"), float("nan"), 0.02).alarm


# ---- the command ----


@pytest.fixture(scope="module", name="project")
def _project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("watched")
    logs.make(folder, 4000, "lr")
    return folder


def watch(project: Path, frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch, *more: str) -> None:
    frame.to_csv(project / "new.csv", index=False)
    words = ["pipeline", "--root", str(project), "watch", logs.DATASET, str(project / "new.csv"), *more]
    monkeypatch.setattr("sys.argv", words)
    commands.main()


@pytest.mark.thorough
@pytest.mark.slow
def test_another_sample_of_the_log_is_silent(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    watch(project, logs.log(1500, 1), monkeypatch, "--out", str(tmp_path))
    assert "1,500 rows in, 0 rejected, labels: event" in capsys.readouterr().out
    found = read_json(tmp_path / "watch.json")
    result = read_json(project / "data/reports/mine/report.json")["results"][0]["seeds"][0]
    promised = {c["what"]: c["reference"] for c in found["checks"] if c["field"] is None}
    assert promised["auc"] == pytest.approx(result["auc"], abs=1e-6)
    for name in ("logloss", "ece"):
        assert promised[name] == pytest.approx(result[f"calibrated_{name}"], abs=1e-6)
    assert (tmp_path / "watch.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.parametrize(("change", "own"), logs.DRIFTS.values(), ids=logs.DRIFTS)
def test_a_drift_is_named(project: Path, change: Any, own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PipelineError, match=own):
        watch(project, change(logs.log(1500, 2), np.random.default_rng(2)), monkeypatch)


@pytest.mark.thorough
@pytest.mark.slow
def test_a_log_without_labels_is_watched_for_its_fields_alone(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    watch(project, logs.log(1500, 3).drop(columns="event"), monkeypatch, "--out", str(tmp_path))
    whats = {check["what"] for check in read_json(tmp_path / "watch.json")["checks"]}
    assert whats == {"rejected", "psi", "unseen", "missing"}


@pytest.mark.thorough
@pytest.mark.slow
def test_rows_that_cannot_be_read_are_counted_and_raise_an_alarm(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    frame = logs.log(1500, 4)
    frame.loc[:49, "price"] = "dear"
    with pytest.raises(PipelineError, match=r"is not like the test rows: rejected$"):
        watch(project, frame, monkeypatch, "--out", str(tmp_path))
    found = read_json(tmp_path / "watch.json")
    assert (found["rows_in"], found["rejected"], found["rows"]) == (1500, 50, 1450)


# ---- from a package alone ----


def command(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr("sys.argv", ["pipeline", *words])
    commands.main()


@pytest.mark.thorough
@pytest.mark.slow
def test_a_package_alone_says_what_the_project_says(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The same checks to the last digit, in a folder without a project."""
    logs.log(1500, 6).to_csv(project / "new.csv", index=False)
    rows, package = str(project / "new.csv"), str(tmp_path / "package")
    command(monkeypatch, "--root", str(project), "package", "--dataset", "mine", "-o", package)
    command(monkeypatch, "--root", str(project), "watch", "mine", rows, "-o", str(tmp_path / "a"))
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    command(monkeypatch, "watch", "--package", package, rows, "-o", str(tmp_path / "b"))
    found, alone = (read_json(tmp_path / name / "watch.json") for name in "ab")
    assert alone == found
    drift = logs.twice_the_rate(logs.log(1500, 2), np.random.default_rng(2))
    drift.to_csv(tmp_path / "drift.csv", index=False)
    with pytest.raises(PipelineError, match="label_rate"):
        command(monkeypatch, "watch", "--package", package, str(tmp_path / "drift.csv"))


def test_a_package_without_test_rows_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mine.write_csv(tmp_path / "log" / "log.csv", mine.log(100))
    mine.package(tmp_path / "log", "lr").write(tmp_path / "package")
    words = ["watch", "--package", str(tmp_path / "package"), str(tmp_path / "log" / "log.csv")]
    with pytest.raises(PipelineError, match=r"package does not say .* `dvc repro evaluate@DATASET`"):
        command(monkeypatch, *words)
    with pytest.raises(PipelineError, match="name the model by one of"):
        command(monkeypatch, "watch", str(tmp_path / "log" / "log.csv"))


# ---- fields of time ----


def spanning(first: str, last: str) -> Span:
    plan = tabular.plan_of(
        fields={
            "at": {"domain": "context", "type": "timestamp", "parts": ["hour", "weekday", "month"]},
            "hour": {"domain": "context"},
        },
        time="at",
    )
    span = Span(plan)
    for moment in (first, last, "", "no time"):
        span.add(pa.table({"at": [moment]}))
    return span


@pytest.mark.parametrize(
    ("last", "left_out"),
    [
        ("2024-03-04 10:59:00", ["at_hour", "at_month", "at_weekday", "hour"]),
        ("2024-03-04 23:10:00", ["at_month", "at_weekday"]),
        ("2024-03-09 23:59:00", ["at_month", "at_weekday"]),
        ("2024-03-10 00:30:00", ["at_month"]),
        ("2025-03-04 00:00:00", []),
    ],
)
def test_fields_of_time_are_left_out_where_a_log_does_not_span_their_cycle(
    last: str, left_out: list[str]
) -> None:
    found = spanning("2024-03-04 00:20:00", last).uncovered(None)
    assert sorted(found) == left_out
    assert all("the new log spans" in why for why in found.values())


def test_and_where_the_test_rows_do_not() -> None:
    found = spanning("2022-01-01", "2024-03-04").uncovered([0, 3 * 86400])
    assert found == dict.fromkeys(["at_weekday"], "the test rows span 3.0 days, less than a week") | {
        "at_month": "the test rows span 3.0 days, less than a year"
    }


MONDAY = 1_709_510_400  # 2024-03-04 00:00, of the log below


@pytest.mark.parametrize(
    ("days", "left_out"),
    [
        ((0, 1.4), ["at_hour", "at_month", "at_weekday", "hour"]),  # ten hours twice
        ((0, 5.5), ["at_month", "at_weekday"]),
        ((0, 7), ["at_month"]),
        ((0, 8), ["at_month", "at_weekday"]),  # two Mondays
        ((0, 10), ["at_month", "at_weekday"]),
        ((0, 30), ["at_month"]),
    ],
)
def test_and_where_the_ends_of_a_span_count(days: tuple[float, float], left_out: list[str]) -> None:
    """Against a week, whole weeks and months say nothing false, and neither do hours of many days."""
    test_rows = [MONDAY + int(86400 * day) for day in days]
    found = spanning("2024-03-04 00:00:00", "2024-03-10 23:59:59").uncovered(test_rows)
    assert sorted(found) == left_out
    if days == (0, 1.4):
        assert found["hour"].startswith("the new log spans 7.0 days, the test rows 33.6 hours: too few")


def test_a_log_without_times_has_no_field_left_out() -> None:
    plan = tabular.plan_of(fields={"hour": {"domain": "context"}})
    assert Span(plan).uncovered([0, 0]) == {}


@pytest.mark.parametrize("rows", [0, 1, 31, 32, 33, 1000])
def test_of_a_long_log_every_so_many_times_are_kept(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(span_of_log, "MOST", 32)
    span = Span(tabular.plan_of(fields={"user": "user"}, time="at"))
    for part in np.array_split(np.arange(rows), 7):
        span.add(pa.table({"at": pa.array(part, pa.timestamp("s"))}))
    assert span.rows == rows
    step = max(1, 2 ** int(np.ceil(np.log2(max(rows, 1) / 32))))
    assert span.times.tolist() == list(range(0, rows, step))


# ---- times in another unit ----


def remarks_of(unit: int, form: str, seconds_: Any, reference: Any) -> tuple[list[str], list[str]]:
    """Alarms and remarks about a log whose times, of rows in seconds, are written in units of a second."""
    plan = tabular.plan_of(
        fields={"ts": {"domain": "context", "type": "timestamp", "format": form}}, time="ts"
    )
    span = Span(plan)
    for part in np.array_split((np.asarray(seconds_) * unit).astype(np.int64), 3):
        span.add(pa.table({"ts": part}))
    checks, remarks = misread(span, reference)
    return [check.what for check in checks if check.alarm], remarks


def times_of(start: float, days: float, rows: int, seed: int = 1) -> Any:
    """Times of rows, in seconds: by day three times as many as at night."""
    draw = np.random.default_rng(seed)
    times = start + 86400 * days * draw.random(4 * rows)
    return np.sort(times[draw.random(4 * rows) < 0.5 + 0.25 * np.sin(times / 86400 * 2 * np.pi)][:rows])


def known(times: Any) -> dict[str, Any]:
    """What a package knows of the times of its test rows."""
    whole = np.asarray(times, np.int64)
    ends = [int(whole.min()), int(whole.max())]
    return {"rows": len(whole), "times": ends, "time_quartiles": quartiles(whole)}


WEEK = times_of(MONDAY, 7, 20_000)


@pytest.mark.parametrize("rows", [3, 3000])
def test_seconds_taken_for_milliseconds_are_an_alarm_that_names_the_unit(rows: int) -> None:
    tomorrow = times_of(MONDAY + 7 * 86400, 1, rows)
    alarms, remarks = remarks_of(1, "milliseconds", tomorrow, known(WEEK))
    assert alarms[0] == "year"
    assert len(remarks) == 1
    assert re.fullmatch(
        r"ts: most of its times are of 1970-01-20 or before, those of the test rows of 2024-03-05 or after\. "
        r"Look at the unit of its times \(seconds, milliseconds or microseconds\), which are read as "
        r"milliseconds; multiplied by 1,000 they would be about those of the test rows",
        remarks[0],
    )
    old = {**known(WEEK)}
    del old["time_quartiles"]  # of a package that an earlier version wrote
    assert remarks_of(1, "milliseconds", tomorrow, old)[0] == ["year"]


def test_times_that_a_library_took_for_nanoseconds_are_an_alarm() -> None:
    """A Parquet file has times of its own type: seconds are of the first two seconds of 1970."""
    span = Span(tabular.plan_of(fields={"user": "user"}, time="at"))
    span.add(pa.table({"at": pa.array(WEEK.astype(np.int64), pa.timestamp("ns"))}))
    checks, remarks = misread(span, known(WEEK))
    assert checks[0].alarm
    assert "multiplied by 1,000,000,000 they would be" in remarks[0]
    assert "read as" not in remarks[0]


def test_a_log_that_counts_from_its_own_beginning_tells_by_its_rows_an_hour() -> None:
    reference = known(times_of(0, 30, 20_000))
    alarms, remarks = remarks_of(1, "milliseconds", times_of(0, 7, 4000), reference)
    assert alarms == ["density"]
    assert re.search(
        "the log has [0-9,]+ times as many rows an hour as the test rows. Look at the unit", remarks[0]
    )
    assert remarks_of(1000, "milliseconds", times_of(0, 7, 4000), reference) == ([], [])


@pytest.mark.parametrize(
    "times",
    [
        times_of(MONDAY + 7 * 86400, 1, 3000),  # tomorrow
        times_of(MONDAY - 240 * 86400, 7, 20_000),  # eight months back
        times_of(MONDAY, 7, 100_000),  # the whole log, of which the test rows are a fifth
        times_of(MONDAY + 8 * 86400, 0.02, 1000),  # half an hour at a peak
        MONDAY + 86400 * np.arange(3000) // 1500 * 1.0,  # dates alone
        np.full(3000, MONDAY + 86400.0),
        [MONDAY + 3.0] * 10,  # a page
        [MONDAY + 3.0, MONDAY + 4.0] * 20,
        np.r_[np.zeros(400), times_of(MONDAY + 7 * 86400, 1, 3000)],  # unknown times
    ],
)
@pytest.mark.parametrize("unknown", [0, 1000])
def test_right_times_raise_no_alarm(times: Any, unknown: int) -> None:
    reference = known(np.r_[np.zeros(unknown), WEEK])
    assert remarks_of(1000, "milliseconds", times, reference) == ([], [])


def test_the_report_tells_of_another_unit_and_its_picture_shows_it(tmp_path: Path) -> None:
    def written(rows: list[list[str]], unit: int) -> list[list[str]]:
        moments = np.array([row[5] for row in rows], "datetime64[s]").astype(np.int64) * unit
        return [[*row[:5], str(moment), row[6]] for row, moment in zip(rows, moments, strict=True)]

    mine.write_csv(tmp_path / "log" / "log.csv", written(mine.log(400), 1000))
    ts = {**mine.FIELDS["ts"], "format": "milliseconds"}
    packed = mine.package(tmp_path / "log", "lr", fields={**mine.FIELDS, "ts": ts})
    model = Model(
        replace(packed, trained_on={"dataset": "mine", "model": "lr", "variant": "default", "seed": 1})
    )
    clean = mine.clean(tmp_path / "log", fields={**mine.FIELDS, "ts": ts})
    ids = model.encode(clean)
    raw = model.score(clean, ids)[RAW]
    compared = {
        "counts": [each.tolist() for each in reference.counted(model, [ids])],
        "predictions": drift.binned(raw),
        "bins": 10,
        "label": "no such column",
        **known(clean["time"].to_numpy()),
    }
    whats = []
    for unit in (1, 1000):
        rows = mine.write_csv(tmp_path / "new.csv", written(mine.log(400, seed=2), unit))
        found = report.watch(model, compared, rows, LIMITS)
        whats.append([alarm for alarm in report.alarms(found) if alarm.split()[0] in ("year", "density")])
        assert ("Look at the unit of its times" in report.to_text(found)) == (unit == 1)
        assert picture.changes(found).axes[3].get_yticklabels()[1].get_text() == "year"
    assert whats == [["year ts", "density ts"], []]


def test_a_log_without_times_has_none_to_check() -> None:
    span = Span(tabular.plan_of(fields={"hour": {"domain": "context"}}))
    span.add(pa.table({"hour": ["1"]}))
    assert misread(span, {"times": None}) == ([], [])
    assert remarks_of(1, "milliseconds", WEEK, {"times": None, "rows": 5}) == ([], [])


# ---- without a report ----


@pytest.mark.thorough
@pytest.mark.slow
def test_without_a_report_the_stage_is_named(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(project, copy)
    shutil.rmtree(copy / "data/predictions")
    with pytest.raises(PipelineError, match="run `dvc repro evaluate@mine`"):
        watch(copy, logs.log(300, 5), monkeypatch)
