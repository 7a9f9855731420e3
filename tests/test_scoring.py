"""A package scores raw rows as training read them, in whatever form they come."""

import gzip
import io
import sys
import threading
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scoring_rows as mine

from pipeline.common.errors import PipelineError
from pipeline.datasets import tabular
from pipeline.preprocess import parse, text
from pipeline.scoring import Model, export, load, pack, reading, score
from pipeline.scoring.package import Package
from pipeline.split import vocabulary

RAW, CALIBRATED = "raw_probability", "probability"


@pytest.fixture(scope="module", name="folder")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("log")
    mine.write_csv(folder / "log.csv", mine.log(400))
    return folder


@pytest.fixture(scope="module", name="package")
def _package(folder: Path) -> Package:
    return mine.package(folder, options={"embedding_size": 4, "hidden": [8]})


@pytest.fixture(scope="module", name="model")
def _model(package: Package) -> Model:
    return Model(package)


@pytest.fixture(scope="module", name="frame")
def _frame(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "log.csv", dtype=str, keep_default_na=False)


@pytest.fixture(scope="module", name="raw")
def _raw(folder: Path, package: Package) -> Any:
    """What the parts of training say about the rows."""
    return mine.expected(package, mine.clean(folder))


# ---- rows in memory ----


def test_texts_are_scored_as_training_read_them(model: Model, frame: pd.DataFrame, raw: Any) -> None:
    found = model.predict(frame)
    np.testing.assert_allclose(found[RAW], raw, rtol=1e-6)
    logit = np.log(raw / (1 - raw))
    np.testing.assert_allclose(found[CALIBRATED], 1 / (1 + np.exp(1 - 0.5 * logit)), rtol=1e-5)
    assert raw.std() > 0.05


FORMS: dict[str, Any] = {
    "numbers, as pandas reads them": lambda f: pd.read_csv(io.StringIO(f.to_csv(index=False))),
    "int32 and nullable integers": lambda f: f.assign(
        user_id=f.user_id.astype("int32"), age=pd.to_numeric(f.age).astype("Int64")
    ),
    "objects": lambda f: pd.read_csv(io.StringIO(f.to_csv(index=False))).astype(object),
    "categories": lambda f: f.astype({"user_id": "category", "item_id": "category"}),
    "times": lambda f: f.assign(ts=pd.to_datetime(f.ts)),
    "lists": lambda f: f.assign(tags=[text.split("|") if text else [] for text in f.tags]),
    "no list at all": lambda f: f.assign(tags=[text.split("|") if text else None for text in f.tags]),
    "arrow": pa.Table.from_pandas,
    "lists of a dict": lambda f: {name: list(f[name]) for name in f},
    "more columns in another order": lambda f: f.assign(more=1)[["more", *reversed(f.columns)]],
    "spaces around names": lambda f: f.rename(columns={"price": " price "}),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_form_of_the_rows_does_not_matter(form: str, model: Model, frame: pd.DataFrame, raw: Any) -> None:
    np.testing.assert_allclose(model.predict(FORMS[form](frame))[RAW], raw, rtol=1e-6)


@pytest.mark.parametrize("few", [0, 128])
def test_few_rows_get_the_probability_that_they_have_among_many(
    model: Model, frame: pd.DataFrame, raw: Any, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of few rows strings are looked through one by one, and columns together: whatever is in them."""
    wild = frame.head(6).assign(
        user_id=["1003.0", " 1004", "nobody", "NA", "1006\u2003", "1007"],
        item_id=["", "i01 ", "\xa0i02", "i03.0", "1.0", None],
        tags=["new|new| sale ", "Caf\xe9|new", "[new, 'sale']", "never|neither|new", "|", "1.0|1+1"],
        age=["31.0", "31", "+31.0", "031", "nan", ""],
    )
    alone = model.predict(wild)
    monkeypatch.setattr(reading, "FEW_ROWS", few)
    monkeypatch.setattr(parse, "FEW", few)
    monkeypatch.setattr(vocabulary, "FEW", few)
    pd.testing.assert_frame_equal(model.predict(wild), alone, rtol=1e-6)
    np.testing.assert_allclose(
        [model.predict(frame.iloc[row : row + 1])[RAW].item() for row in range(20)], raw[:20], rtol=1e-6
    )


def test_a_request_starts_no_thread(
    model: Model, frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two threads a request would cost as much as all its work."""
    model.predict(frame.head(1))
    monkeypatch.setattr(threading.Thread, "start", lambda _self: pytest.fail("a thread was started"))
    for rows in (1, 100):
        assert len(model.predict(frame.head(rows))) == rows


def test_the_types_of_the_rows_before_say_nothing_of_the_next(model: Model, frame: pd.DataFrame) -> None:
    model.predict(frame)
    with pytest.raises(PipelineError, match="the column 'age' holds struct"):
        model.predict(frame.head(3).assign(age=[{"a": 1}] * 3))
    assert len(model.predict(frame.head(3).astype(object))) == 3


def test_the_index_stays_and_no_row_gives_no_score(model: Model, frame: pd.DataFrame) -> None:
    some = frame.iloc[[7, 3]]
    assert list(model.predict(some).index) == [7, 3]
    assert len(model.predict(frame.iloc[:0])) == 0


def test_an_unseen_value_and_a_missing_one_are_scored(model: Model, frame: pd.DataFrame) -> None:
    new = model.predict(
        frame.head(3).assign(user_id="nobody", price=np.nan, tags=None, age=[None, "", "NULL"])
    )
    assert new[RAW].between(0, 1, inclusive="neither").all()
    other = model.predict(frame.head(3).assign(user_id="4711", price="NA", tags="", age=np.nan))
    np.testing.assert_array_equal(new, other)


WRONG: dict[str, tuple[Any, str]] = {
    "a column is not there": (lambda f: f.drop(columns="price"), "no column 'price', which the model reads"),
    "and is called otherwise": (lambda f: f.rename(columns={"price": "prices"}), "did you mean 'prices'"),
    "a column is there twice": (lambda f: pd.concat([f, f[["age"]]], axis=1), "several columns 'age'"),
    "no number": (lambda f: f.assign(price=["1", "2", "dear"]), "row:3: price 'dear' is not a number"),
    "no time": (lambda f: f.assign(ts=["2024-02-30", "", ""]), "row:1: ts '2024-02-30' is not a time"),
    "several types": (lambda f: f.assign(age=[1, "x", None]), "column 'age': its values are not of one type"),
    "and the cure": (lambda f: f.assign(age=[1, "x", None]), "give all of them as texts, or all as numbers"),
    "dicts": (lambda f: f.assign(age=[{"a": 1}] * 3), "the column 'age' holds struct<a: int64>"),
    "bytes": (lambda f: f.assign(item_id=[b"x"] * 3), "the column 'item_id' holds binary"),
    "lists where one value belongs": (lambda f: f.assign(age=[[1]] * 3), "the column 'age' holds list"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named_with_its_column(case: str, model: Model, frame: pd.DataFrame) -> None:
    change, message = WRONG[case]
    with pytest.raises(PipelineError) as caught:
        model.predict(change(frame.head(3)))
    assert message in str(caught.value)


def test_an_optional_column_may_be_left_out(model: Model, frame: pd.DataFrame) -> None:
    without = model.predict(frame.drop(columns=["price", "tags"]), optional=True)
    np.testing.assert_array_equal(without, model.predict(frame.assign(price="", tags="")))


# ---- a package ----


def test_a_package_is_the_same_bytes_again_and_loads_elsewhere(
    package: Package, model: Model, frame: pd.DataFrame, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        package.write(tmp_path / name)
    package.write(tmp_path / "a")  # replaces itself
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in files)
    assert [name for name in files if not name.endswith(".json")] == ["SHA256SUMS", "weights.safetensors"]
    loaded = load(tmp_path / "a")
    pd.testing.assert_frame_equal(loaded.predict(frame), model.predict(frame))


@pytest.mark.parametrize("name", ["weights.safetensors", "vocabulary.json", "reading.json", "package.json"])
def test_a_changed_file_of_a_package_is_named(package: Package, tmp_path: Path, name: str) -> None:
    package.write(tmp_path / "p")
    path = tmp_path / "p" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(PipelineError, match=name):
        load(tmp_path / "p")


def test_no_folder_of_something_else_is_replaced(package: Package, tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    with pytest.raises(PipelineError, match="is no package"):
        package.write(tmp_path)
    with pytest.raises(PipelineError, match="is no package"):
        load(tmp_path)
    assert (tmp_path / "precious").exists()


def test_a_package_below_a_file_says_what_is_in_the_way(package: Package, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").touch()
    for write in (package.write, lambda folder: export.write(package, folder, "torch")):
        with pytest.raises(PipelineError, match=r"/p cannot be written: .*rows\.csv is a file, not a folder"):
            write(tmp_path / "rows.csv/p")


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("fm", "`dvc repro tune@installs-fm`, with installs in `datasets` and fm in `models` of params.yaml"),
        (
            "fm-x",
            "`dvc repro tune-variant@installs-fm-x`, with installs in `datasets` and fm-x in `variants`",
        ),
    ],
)
def test_a_model_that_was_not_trained_is_named_with_the_list_that_dvc_needs_it_in(
    model: str, told: str, tmp_path: Path
) -> None:
    with pytest.raises(PipelineError) as caught:
        pack.pack(tmp_path, "installs", model, "tuned")
    assert told in str(caught.value)


def test_weights_of_another_model_are_refused(package: Package) -> None:
    with pytest.raises(PipelineError, match=r"weights\.safetensors does not fit fm"):
        Model(replace(package, architecture="fm", options={}))


def test_a_timed_model_needs_the_time_of_each_row(folder: Path) -> None:
    plain, timed = (Model(mine.package(folder, name)) for name in ("lr", "din"))
    assert not plain.timed
    assert timed.timed
    rows = pd.DataFrame({name: [None, None] for name in timed.columns}).assign(ts=["2024-03-05", ""])
    assert len(plain.predict(rows)) == 2
    with pytest.raises(PipelineError, match=r"row:2: ts .*is missing, and `time` needs it"):
        timed.predict(rows)


# ---- files ----


def scores(model: Model, rows: Path, out: Path, **more: Any) -> tuple[pd.DataFrame, str]:
    words = score.run(model, rows, out, layout=model.reading.layout, **more)
    read = pd.read_csv if out.suffix == ".csv" else pd.read_parquet
    return read(out), words


def test_a_file_of_any_kind_gives_the_same_scores(
    folder: Path, model: Model, frame: pd.DataFrame, raw: Any, tmp_path: Path
) -> None:
    frame.to_csv(tmp_path / "rows.csv", index=False)
    frame.to_csv(tmp_path / "rows.tsv", index=False, sep="\t")
    frame.to_parquet(tmp_path / "rows.parquet")
    (tmp_path / "rows.csv.gz").write_bytes(gzip.compress((tmp_path / "rows.csv").read_bytes()))
    for name, first in (("rows.csv", 2), ("rows.tsv", 2), ("rows.csv.gz", 2), ("rows.parquet", 1)):
        for ending in ("csv", "parquet"):
            found, _ = scores(
                model, tmp_path / name, tmp_path / f"scores.{ending}", keep=["item_id", "click"]
            )
            assert list(found) == ["row", "item_id", "click", CALIBRATED, RAW]
            np.testing.assert_allclose(found[RAW], raw, rtol=1e-5)
            assert list(found["row"]) == list(range(first, first + len(raw)))
            assert list(found["click"].astype(str)) == list(frame["click"])


def test_a_folder_is_scored_file_by_file(model: Model, frame: pd.DataFrame, raw: Any, tmp_path: Path) -> None:
    days = tmp_path / "days"
    days.mkdir()
    frame.iloc[:150].to_csv(days / "1.csv", index=False)
    frame.iloc[150:].to_csv(days / "2.csv", index=False)
    found, _ = scores(model, days, tmp_path / "scores.parquet")
    assert found.groupby("file").size().to_dict() == {"1.csv": 150, "2.csv": len(raw) - 150}
    np.testing.assert_allclose(found[RAW], raw, rtol=1e-6)


def test_the_size_of_the_blocks_does_not_matter(
    model: Model, frame: pd.DataFrame, raw: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame.to_csv(tmp_path / "rows.csv", index=False)
    monkeypatch.setattr(text.TextFile.pieces, "__defaults__", (999,))
    found, _ = scores(model, tmp_path / "rows.csv", tmp_path / "scores.parquet")
    np.testing.assert_allclose(found[RAW], raw, rtol=1e-6)
    assert pq.ParquetFile(tmp_path / "scores.parquet").num_row_groups > 5


def test_unseen_and_missing_values_are_counted_per_field(
    model: Model, frame: pd.DataFrame, tmp_path: Path
) -> None:
    rows = frame.head(10).assign(
        item_id=["NA", *["i01"] * 9],
        user_id=["x", "y", "x", *frame.user_id[3:10]],
        age="",
        price=["", "NA", *["5"] * 8],
        tags=["new|never", "never", "", *["new"] * 7],
    )
    rows.to_csv(tmp_path / "rows.csv", index=False)
    seen = score.Seen()
    opened = score.open_rows(model, tmp_path / "rows.csv", model.reading.layout)
    list(score.scored(model, opened, score.RejectLog(), seen))
    assert seen.rows == 10
    assert {k: v for k, v in seen.unseen.items() if v} == {"user_id": 3, "tags": 2}
    counted = {k: v for k, v in seen.missing.items() if v}
    assert counted == {"age": 10, "price": 2, "tags": 1, "item": 1}


def test_bad_rows_are_left_out_and_listed_and_many_are_an_error(
    model: Model, frame: pd.DataFrame, raw: Any, tmp_path: Path
) -> None:
    lines = frame.to_csv(index=False).splitlines()
    lines[5] = lines[5].replace(",2024-", ",in 2024-")
    lines.insert(8, "1,2,3")
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    found, words = scores(model, tmp_path / "rows.csv", tmp_path / "scores.parquet", max_rejected=0.1)
    assert "401 rows in, 399 scored, 2 rejected" in words
    assert "rows.csv:6: ts 'in 2024" in words
    assert "rows.csv:9: 3 fields where 7 belong" in words
    np.testing.assert_allclose(found[RAW], np.delete(raw, 4), rtol=1e-6)
    before = (tmp_path / "scores.parquet").read_bytes()
    with pytest.raises(PipelineError, match=r"2 of 401 rows are corrupted, more than --max-rejected 0\.001"):
        scores(model, tmp_path / "rows.csv", tmp_path / "scores.parquet")
    assert (tmp_path / "scores.parquet").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "keep", "message"),
    [
        ("nowhere.csv", [], "does not exist"),
        ("rows.csv", ["clicks"], "--keep: unknown column 'clicks'; did you mean 'click'?"),
        ("short.csv", [], "short.csv: no column 'price', which the model reads (there are: "),
        ("misspelt.csv", [], "no column 'price', which the model reads; did you mean 'prize'?"),
        ("empty", [], "holds no file whose name ends like that of a table"),
    ],
)
def test_what_cannot_be_scored_is_said(
    model: Model, frame: pd.DataFrame, tmp_path: Path, name: str, keep: list[str], message: str
) -> None:
    frame.to_csv(tmp_path / "rows.csv", index=False)
    frame.drop(columns="price").to_csv(tmp_path / "short.csv", index=False)
    frame.rename(columns={"price": "prize"}).to_csv(tmp_path / "misspelt.csv", index=False)
    (tmp_path / "empty").mkdir()
    with pytest.raises(PipelineError) as caught:
        scores(model, tmp_path / name, tmp_path / "scores.csv", keep=keep)
    assert message in str(caught.value)
    assert not (tmp_path / "scores.csv").exists()


def test_the_rows_and_earlier_scores_are_never_overwritten_by_nothing(
    model: Model, frame: pd.DataFrame, tmp_path: Path
) -> None:
    rows, head, out = (tmp_path / name for name in ("rows.csv", "head.csv", "scores.csv"))
    frame.to_csv(rows, index=False)
    before = rows.read_bytes()
    with pytest.raises(PipelineError, match=r"rows\.csv holds the rows: write the scores into another file"):
        scores(model, rows, rows)
    assert rows.read_bytes() == before
    scores(model, rows, out)
    before = out.read_bytes()
    frame.head(0).to_csv(head, index=False)
    with pytest.raises(PipelineError, match=r"head\.csv holds no rows"):
        scores(model, head, out)
    assert out.read_bytes() == before


def test_rows_as_mappings_and_single_values(model: Model, frame: pd.DataFrame) -> None:
    rows = frame.head(3).to_dict("records")
    np.testing.assert_allclose(model.predict(rows)[RAW], model.predict(frame.head(3))[RAW], rtol=1e-6)
    with pytest.raises(PipelineError, match=r"is one value, .*: give a list, with a value a row"):
        model.predict(rows[0])


@pytest.mark.parametrize("packed", [False, True])
def test_rows_from_the_standard_input(
    model: Model, frame: pd.DataFrame, raw: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    data = frame.to_csv(index=False).encode()
    stdin = io.TextIOWrapper(io.BytesIO(gzip.compress(data) if packed else data))
    monkeypatch.setattr(sys, "stdin", stdin)
    with score.source("-") as rows:
        found, words = scores(model, rows, tmp_path / "scores.csv")
    assert not rows.exists()
    assert words.startswith("<stdin>: 400 rows in")
    np.testing.assert_allclose(found[RAW], raw, rtol=1e-5)


def test_scores_go_to_the_standard_output_once_they_are_whole(
    model: Model, frame: pd.DataFrame, raw: Any, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    frame.to_csv(tmp_path / "rows.csv", index=False)
    with score.destination("-") as out:
        words = score.run(model, tmp_path / "rows.csv", out, layout=model.reading.layout, keep=["item_id"])
        assert capsysbinary.readouterr().out == b""
    assert words.endswith("\n-> <stdout>")
    found = pd.read_csv(io.BytesIO(capsysbinary.readouterr().out))
    assert list(found) == ["row", "item_id", CALIBRATED, RAW]
    np.testing.assert_allclose(found[RAW], raw, rtol=1e-5)
    assert not out.exists()
    frame.assign(price="dear").to_csv(tmp_path / "rows.csv", index=False)
    with pytest.raises(PipelineError, match="400 of 400 rows are corrupted"), score.destination("-") as out:
        score.run(model, tmp_path / "rows.csv", out, layout=model.reading.layout)
    assert capsysbinary.readouterr().out == b""


@pytest.mark.parametrize("name", ["-", "rows.csv"])
def test_rows_without_a_header_are_told_of_names(
    model: Model, frame: pd.DataFrame, raw: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    rows = frame.to_csv(index=False, header=False).encode()
    (tmp_path / "rows.csv").write_bytes(rows)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(rows)))
    message = (
        r"its first line \('1\d+', [^()]* and \d+ more\) names no column that the model reads: user_id, "
        r".*`predict --names"
    )
    with pytest.raises(PipelineError, match=message), score.source(name) as path:
        scores(model, path, tmp_path / "scores.csv")
    layout = score.with_changes(model.reading.layout, names=list(frame))
    score.run(model, tmp_path / "rows.csv", tmp_path / "scores.csv", layout=layout)
    np.testing.assert_allclose(pd.read_csv(tmp_path / "scores.csv")[RAW], raw, rtol=1e-5)


def test_what_training_rejected_may_be_rejected_again(
    package: Package, frame: pd.DataFrame, tmp_path: Path
) -> None:
    frame.assign(price=["dear", *frame.price[1:]]).to_csv(tmp_path / "rows.csv", index=False)
    with pytest.raises(PipelineError, match=r"1 of 400 rows are corrupted, more than --max-rejected 0\.001"):
        scores(Model(package), tmp_path / "rows.csv", tmp_path / "scores.csv")
    allowed = Model(replace(package, reading={**package.reading, "max_rejected": 0.01}))
    assert "1 rejected" in scores(allowed, tmp_path / "rows.csv", tmp_path / "scores.csv")[1]


def test_what_is_wrong_with_the_standard_input_is_said_of_it(
    model: Model, frame: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for change, message in (
        (lambda f: f.drop(columns="price"), r"^<stdin>: no column 'price'"),
        (lambda f: f.assign(price="dear"), r"^<stdin>: 400 of 400 rows .*\n  <stdin>:2: price 'dear'"),
    ):
        data = change(frame).to_csv(index=False).encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        with pytest.raises(PipelineError, match=message), score.source("-") as rows:
            scores(model, rows, tmp_path / "scores.csv")


def test_every_argument_of_read_is_known_to_scoring_or_about_labels_and_splits() -> None:
    arguments = set(signature(tabular.read).parameters) - {"folder", "rejects"}
    assert arguments - {*reading.OF_FILES, *reading.OF_VALUES} == {"label", "group", "keep", "file"}
