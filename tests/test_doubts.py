"""Rows that can be scored and are written otherwise than those of training are told of; others are not."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scoring_rows as mine

from pipeline.common.errors import PipelineError
from pipeline.scoring import Model, doubts, score
from pipeline.scoring.package import Package
from pipeline.watch.reference import counted

DAY, SINCE, UNTIL = 86400, 1_709_251_200, 1_711_670_340  # March 2024
TIMES = {"type": "timestamp", "domain": "context", "parts": ["hour"], "format": "milliseconds"}


def packed(folder: Path, name: str = "lr", **more: Any) -> tuple[Package, pd.DataFrame]:
    """A package and its log, whose times are in milliseconds."""
    rows = mine.log(300)
    for row in rows:
        row[5] = str(int(pd.Timestamp(row[5]).timestamp()) * 1000)
    mine.write_csv(folder / "log/log.csv", rows)
    made = mine.package(folder / "log", name, **{"fields": {**mine.FIELDS, "ts": TIMES}, **more})
    made = replace(made, trained_on={**made.trained_on, "since": SINCE, "until": UNTIL})
    return made, pd.read_csv(folder / "log/log.csv", dtype=str, keep_default_na=False)


def told(package: Package, frame: pd.DataFrame, folder: Path) -> str:
    """What `predict` says about rows."""
    frame.to_csv(folder / "rows.csv", index=False)
    model = Model(package)
    return score.run(model, folder / "rows.csv", folder / "scores.csv", layout=model.reading.layout)


def moved(frame: pd.DataFrame, change: Any) -> pd.DataFrame:
    return frame.assign(ts=[str(change(int(time))) for time in frame.ts])


@pytest.mark.parametrize("name", ["lr", "din"])
def test_seconds_where_training_had_milliseconds_are_told_of(name: str, tmp_path: Path) -> None:
    """Whether the times are a field alone or also tell the model what was before."""
    package, frame = packed(tmp_path, name)
    (line,) = [line for line in told(package, moved(frame, lambda t: t // 1000), tmp_path).splitlines()
               if "warning" in line]  # fmt: skip
    assert "the times in 'ts', read as milliseconds as in training, lie years before" in line
    assert "(2024-03-01 to 2024-03-28), and near them in another unit: multiply them by 1,000" in line
    assert "warning" not in told(package, frame, tmp_path)


@pytest.mark.parametrize("days", [1, 400, 4000, -1, -400, -4000, -15000])
def test_a_log_of_another_time_is_no_doubt(days: int, tmp_path: Path) -> None:
    package, frame = packed(tmp_path)
    assert "warning" not in told(package, moved(frame, lambda t: t + days * DAY * 1000), tmp_path)


def test_times_that_count_from_the_first_row_are_no_doubt(tmp_path: Path) -> None:
    package, frame = packed(tmp_path)
    package = replace(package, trained_on={**package.trained_on, "since": 0, "until": 30 * DAY})
    for start in (0, 30 * DAY):
        frame = moved(frame, lambda t, start=start: t - SINCE * 1000 + start * 1000)
        assert "warning" not in told(package, frame, tmp_path)


def test_nothing_is_said_where_the_times_of_training_are_not_known_or_not_read(tmp_path: Path) -> None:
    package, frame = packed(tmp_path)
    earlier = replace(package, trained_on={"dataset": "mine", "until": UNTIL})  # of an earlier version
    seconds = moved(frame, lambda t: t // 1000)
    assert "warning" not in told(earlier, seconds, tmp_path)
    fields = {name: block for name, block in mine.FIELDS.items() if name != "ts"}
    package, _ = packed(tmp_path, fields=fields, time={"column": "ts", "format": "milliseconds"})
    assert "warning" not in told(package, seconds, tmp_path)
    assert "warning" not in told(package, seconds.drop(columns="ts"), tmp_path)


def marked(words: str) -> list[str]:
    return [line.split()[0] for line in words.splitlines() if line.endswith("%  !")]


def known(package: Package) -> Package:
    """The package with the unseen values that its log has."""
    rows = mine.clean(Path(package.trained_on["folder"]), fields={**mine.FIELDS, "ts": TIMES})
    model = Model(package)
    return replace(package, reference={"counts": [n.tolist() for n in counted(model, [model.encode(rows)])]})


@pytest.mark.parametrize("reference", [False, True])
def test_a_list_that_arrives_as_text_is_marked(reference: bool, tmp_path: Path) -> None:
    package, frame = packed(tmp_path)
    package = replace(package, trained_on={**package.trained_on, "folder": str(tmp_path / "log")})
    package = known(package) if reference else package
    assert marked(words := told(package, frame, tmp_path)) == []
    assert "far more unseen" not in words
    tags = [f"({tags})" if tags else "(nothing)" for tags in frame.tags]
    words = told(package, frame.assign(tags=tags), tmp_path)
    assert marked(words) == ["tags"]
    than = "than in the test rows" if reference else "than one would expect"
    assert f"\n! far more unseen values {than}: tags; are they written as in training" in words


def test_values_that_were_as_new_in_the_test_rows_are_not_marked(tmp_path: Path) -> None:
    """Such as the users of a log that is split by its users."""
    package, frame = packed(tmp_path)
    strangers = frame.assign(user_id=[f"x{row}" for row in range(len(frame))])
    assert marked(told(package, strangers, tmp_path)) == ["user_id"]
    counts = [[1.0] + [0.0] * field.size for field in package.schema.fields]
    assert marked(told(replace(package, reference={"counts": counts}), strangers, tmp_path)) == []


def test_few_rows_say_little(tmp_path: Path) -> None:
    package, frame = packed(tmp_path)
    model = Model(package)
    assert doubts.unseen(model, 2, {"user_id": 2}) == []
    assert doubts.unseen(model, 100, {"user_id": 60}) == []
    assert doubts.unseen(model, 100_000, {"user_id": 51_000, "age": 50_000}) == ["user_id"]
    assert "!" not in told(package, frame.head(3).assign(user_id="x"), tmp_path)


def test_without_a_calibration_both_probabilities_are_one_number(tmp_path: Path) -> None:
    package, frame = packed(tmp_path)
    told(replace(package, calibration={"method": "none"}), frame, tmp_path)
    found = pd.read_csv(tmp_path / "scores.csv", dtype=str)
    assert (found["probability"] == found["raw_probability"]).all()
    kept = replace(package, calibration={"method": "none", "negatives_kept": 0.1})
    both = Model(kept).predict(frame)
    assert np.all(both["probability"] < both["raw_probability"])


def test_a_text_in_another_encoding_is_told_of_an_option_of_predict(tmp_path: Path) -> None:
    package, frame = packed(tmp_path)
    model, out = Model(package), tmp_path / "scores.csv"
    frame.to_csv(tmp_path / "latin.csv", index=False, encoding="latin-1")
    with pytest.raises(PipelineError, match="not in UTF-8, name its encoding: --encoding latin-1") as caught:
        score.run(model, tmp_path / "latin.csv", out, layout=model.reading.layout)
    assert "`encoding" not in str(caught.value)
    layout = score.with_changes(model.reading.layout, encoding="latin-1")
    words = score.run(model, tmp_path / "latin.csv", out, layout=layout)
    assert "300 scored" in words
    np.testing.assert_array_equal(pd.read_csv(out)["probability"].astype("float32"),
                                  model.predict(frame)["probability"])  # fmt: skip
