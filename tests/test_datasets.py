"""Readers on a few raw lines of each format, the awkward ones among them, and stages from end to end."""

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import project
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import metrics
from pipeline.datasets import DATASETS, movielens_100k, synthetic
from pipeline.encode import TYPES
from pipeline.errors import PipelineError
from pipeline.files import sha256
from pipeline.raw import Ledger, records
from pipeline.schema import PARTS

MIRROR = Path(__file__).parent.parent.parent / "shared/datasets"
GENRES = ["unknown", "Action", "Children's"]
ITEMS = (
    "1|Toy Story (1995)|01-Jan-1995||http://x|0|1|1\n"
    "267|unknown||||1|0|0\n"
    "543|Misérables, Les (1995)|01-Jan-1995||http://x|0|0|0\n"
    "1412|Land Before Time III (1995) (V)|01-Jan-1995||http://x|0|0|1\n"
)
USERS = "1|24|M|technician|85711\n2|53|F|other|T8H1N\n3|7|M|student|98107-2117\n"
DATA = "1\t1\t5\t881250949\n2\t267\t3\t891717742\n3\t543\t4\t878887116\n9\t1412\t1\t878887116\n"


@pytest.fixture
def movielens(tmp_path: Path) -> Callable[..., Path]:
    def write(**changed: str) -> Path:
        genres = "".join(f"{genre}|{number}\n" for number, genre in enumerate(GENRES)) + "\n"
        files = {"genre": genres, "item": ITEMS, "user": USERS, "data": DATA, **changed}
        for name, text in files.items():
            (tmp_path / f"u.{name}").write_bytes(text.encode("latin-1"))
        return tmp_path

    return write


def read(source: Any, folder: Path, **options: Any) -> tuple[list[dict[str, Any]], Ledger]:
    ledger = Ledger()
    table = pa.concat_tables(source.read(folder, ledger, **options))
    return table.to_pylist(), ledger


def test_movielens_rows_are_joined_and_awkward_values_kept(movielens: Callable[..., Path]):
    rows, ledger = read(movielens_100k, movielens())
    assert [row["label"] for row in rows] == [1, 0, 1, 0]
    assert rows[0] == {
        "user": "1", "gender": "M", "age": "24", "occupation": "technician", "zip3": "857",
        "movie": "1", "year": "1995", "genres": ["Action", "Children's"],
        "label": 1, "group": "1", "time": 881250949,
    }  # fmt: skip
    # movie 267 has neither date nor year; zip codes may hold letters and dashes
    assert (rows[1]["year"], rows[1]["genres"], rows[1]["zip3"]) == (None, ["unknown"], "T8H")
    assert (rows[2]["zip3"], rows[2]["genres"], rows[2]["year"]) == ("981", [], "1995")
    # user 9 is not in u.user: the row stays, what is known of the user is missing
    assert (rows[3]["user"], rows[3]["gender"], rows[3]["age"], rows[3]["movie"]) == ("9", None, None, "1412")
    account = ledger.check(len(rows), max_rejected=0, name="m")
    assert (account["rows_in"], account["rejected"]) == (4, 0)
    assert account["files"]["u.genre"]["records"] == 3


def test_movielens_threshold_is_the_label_rule(movielens: Callable[..., Path]):
    rows, _ = read(movielens_100k, movielens(), threshold=5)
    assert [row["label"] for row in rows] == [1, 0, 0, 0]


def test_corrupted_lines_are_refused_with_file_line_and_reason(movielens: Callable[..., Path]):
    bad = "1\t1\t5\n1\t1\t6\t881250949\n\n1\tone\t5\t881250949\n" + DATA + "1\t1\t5\t99x\n2\t1"
    rows, ledger = read(movielens_100k, movielens(data=bad))
    assert len(rows) == 4
    assert ledger.first == [
        "u.data:1: 3 fields where 4 belong: '1\\t1\\t5'",
        "u.data:2: rating '6' is not 1 to 5",
        "u.data:4: movie 'one' is not a whole number",
        "u.data:9: time '99x' is not a whole number",
        "u.data:10: 2 fields where 4 belong: '2\\t1'",
    ]
    account = ledger.check(len(rows), max_rejected=0.6, name="m")
    assert account["rows_in"] == 9 == account["rows_out"] + account["rejected"]
    with pytest.raises(PipelineError, match=r"m: 5 of 9 records of u\.data .*\n  u\.data:1: 3 fields"):
        ledger.check(len(rows), max_rejected=0.5, name="m")


def test_a_corrupted_side_table_is_counted_on_its_own(movielens: Callable[..., Path]):
    rows, ledger = read(movielens_100k, movielens(user=USERS + "4|x|M|writer|00000\n"))
    assert len(rows) == 4
    assert ledger.first == ["u.user:4: age 'x' is not a whole number"]
    assert ledger.check(len(rows), max_rejected=0.3, name="m")["rejected"] == 0
    with pytest.raises(PipelineError, match=r"1 of 4 records of u\.user"):
        ledger.check(len(rows), max_rejected=0.1, name="m")


@pytest.mark.parametrize("file", ["data", "user", "item", "genre"])
def test_an_empty_or_missing_file_is_an_error_that_names_it(movielens: Callable[..., Path], file: str):
    folder = movielens(**{file: ""})
    with pytest.raises(PipelineError, match=rf"u\.{file} is empty"):
        read(movielens_100k, folder)
    (folder / f"u.{file}").unlink()
    with pytest.raises(PipelineError, match=rf"u\.{file} is missing"):
        read(movielens_100k, folder)


def test_nothing_but_corrupted_lines_is_an_error(movielens: Callable[..., Path]):
    rows, ledger = read(movielens_100k, movielens(data="x\ny\n"))
    assert rows == []
    with pytest.raises(PipelineError, match="no row is left of 2"):
        ledger.check(0, max_rejected=1.0, name="m")


@given(
    data=st.lists(
        st.one_of(
            st.sampled_from(
                ["1\t2\t3\t4", "a\tb\tc\td", "1\t2", "", "\t\t\t", "1\t2\t3\t4\t5", "\x00", "é\tx\t\t"]
            ),
            st.text(alphabet='ab\t\r\n|\x00"é', max_size=8),
        ),
        max_size=12,
    ),
    ending=st.sampled_from(["\n", "\r\n"]),
    block=st.integers(1, 40),
)
def test_records_lose_nothing_and_know_their_lines(
    tmp_path_factory: pytest.TempPathFactory, data: list[str], ending: str, block: int
):
    content = (ending.join(data) + "1\t2\t3\t4").encode("latin-1")
    path = tmp_path_factory.mktemp("raw") / "f"
    path.write_bytes(content)
    ledger, kept = Ledger(), {}
    for table, lines in records(
        path, ["a", "b", "c", "d"], ledger, delimiter="\t", encoding="latin-1", block=block
    ):
        for line, row in zip(lines.tolist(), table.to_pylist(), strict=True):
            kept[line] = list(row.values())
    expected = {
        number: line.replace("\r", " ").split("\t")
        for number, line in enumerate(content.decode("latin-1").replace("\r\n", "\n").split("\n"), 1)
        if line
    }
    assert kept == {number: values for number, values in expected.items() if len(values) == 4}
    assert ledger.files["f"].records == len(expected)
    assert ledger.files["f"].rejected == len(expected) - len(kept)


def test_bytes_of_another_encoding_cost_only_their_line(tmp_path: Path):
    (tmp_path / "f").write_bytes(b"a,b\nx,1\n\xff,2\n\xc3\xa4,3\n")
    ledger = Ledger()
    table, lines = next(records(tmp_path / "f", ["a", "b"], ledger, delimiter=",", header=True))
    assert table["a"].to_pylist() == ["x", "ä"]
    assert lines.tolist() == [2, 4]
    assert ledger.first == ["f:3: byte 0xff at column 1 is not utf-8"]
    assert ledger.files["f"].records == 3


def test_another_header_is_an_error(tmp_path: Path):
    (tmp_path / "f").write_bytes(b"a;b\n1;2\n")
    with pytest.raises(PipelineError, match="f:1: the header is 'a;b', expected 'a,b'"):
        list(records(tmp_path / "f", ["a", "b"], Ledger(), delimiter=",", header=True))


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic")
    synthetic.download(folder, folder, rows=20_000, seed=7)
    return folder


def test_the_synthetic_log_has_these_very_bytes(tmp_path: Path):
    synthetic.download(tmp_path, tmp_path, rows=2000, seed=7)
    assert (
        sha256(tmp_path / "clicks.csv") == "c39f9c395abf9547ffdaf52c8dda8553f0df0344fa29ed72161d9c9661f6c511"
    )
    assert (
        sha256(tmp_path / "truth.csv") == "681654144867f0040537d9ce99caa90901368d412441e18ff96ac714eac2106b"
    )


def test_rows_do_not_depend_on_the_block_they_are_made_in(
    tmp_path: Path, generated: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(synthetic, "BLOCK", 777)
    synthetic.download(tmp_path, tmp_path, rows=20_000, seed=7)
    for name in ("clicks.csv", "truth.csv", "manifest.json"):
        assert (tmp_path / name).read_bytes() == (generated / name).read_bytes()


def test_the_synthetic_log_looks_like_one(generated: Path):
    ledger = Ledger()
    table = pa.concat_tables(synthetic.read(generated, ledger))
    ledger.check(len(table), max_rejected=0, name="s")
    assert len(table) == 20_000
    for column in synthetic.COLUMNS:
        assert table.schema.field(column.name).type == TYPES[column.kind]
    for name, share in synthetic.MISSING.items():
        assert table[name].null_count > 0.2 * share * len(table)
    assert table["user"].null_count == table["item"].null_count == 0
    time = table["time"].to_numpy()
    assert (np.diff(time) >= 0).all()
    assert (time // 3600 % 24 == np.array(table["hour"].to_pylist()).astype(int)).all()
    counts = np.sort(np.unique(table["user"].to_numpy(), return_counts=True)[1])[::-1]
    assert counts[0] > 10 * np.median(counts)
    label, truth = table["label"].to_numpy(), table["truth"].to_numpy()
    assert 0.2 < label.mean() < 0.3
    assert abs(label.mean() - truth.mean()) < 0.01
    assert metrics.calibration_error(label, truth) < 0.03
    assert 0.77 < metrics.auc(label, truth) < 0.83


def test_planted_effects_have_all_three_orders_and_add_nothing_to_lower_ones():
    orders = {len(effect.fields) for effect in synthetic.EFFECTS}
    assert orders == {1, 2, 3}
    fields = {column.name for column in synthetic.COLUMNS}
    world = synthetic._World(7)
    for effect in synthetic.EFFECTS:
        assert set(effect.fields) <= fields
        table = world.tables[effect.fields]
        weights = [world._levels(name, effect.fields) for name in effect.fields]
        assert [len(weight) for weight in weights] == list(table.shape)
        for axis, weight in enumerate(weights):
            assert abs(np.tensordot(weight, table, (0, axis))).max() < 0.003
        spread = np.sqrt((synthetic._outer(weights) * table**2).sum())
        assert spread == pytest.approx(effect.std, abs=0.001)


def test_shuffled_labels_keep_their_rate_and_tell_no_truth(generated: Path):
    plain = pa.concat_tables(synthetic.read(generated, Ledger()))
    shuffled = pa.concat_tables(synthetic.read(generated, Ledger(), shuffle_labels=True))
    assert "truth" not in shuffled.column_names
    label = shuffled["label"].to_numpy()
    assert label.sum() == plain["label"].to_numpy().sum()
    assert shuffled.drop_columns("label") == plain.drop_columns(["label", "truth"])
    assert abs(metrics.auc(label, plain["truth"].to_numpy()) - 0.5) < 0.02


def test_damaged_synthetic_lines_do_not_shift_the_truth(tmp_path: Path, generated: Path):
    lines = (generated / "clicks.csv").read_text().splitlines(keepends=True)
    truth = (generated / "truth.csv").read_text().splitlines()[1:]
    lines[3] = "not a record\n"
    lines[5] = lines[5].replace("2026-01-05", "2026-13-05")
    (tmp_path / "clicks.csv").write_text("".join(lines[:11]))
    (tmp_path / "truth.csv").write_text("probability\n" + "\n".join(truth[:10]))
    rows, ledger = read(synthetic, tmp_path)
    assert [row["truth"] for row in rows] == [float(truth[i]) for i in (0, 1, 3, 5, 6, 7, 8, 9)]
    assert [text.split(":")[1] for text in ledger.first] == ["4", "6"]
    (tmp_path / "truth.csv").write_text("probability\n0.5\n")
    with pytest.raises(PipelineError, match="delete both and run the download stage again"):
        read(synthetic, tmp_path)


def test_every_dataset_file_is_in_the_table_and_every_entry_is_a_dataset():
    files = {path.stem for path in Path(synthetic.__file__).parent.glob("*.py")} - {"__init__"}
    assert files == {source.__name__.rpartition(".")[2] for source in DATASETS.values()}
    for source in DATASETS.values():
        assert source.COLUMNS and callable(source.download) and callable(source.read)
        assert source.__doc__


Run = Callable[..., Path]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run stages in a project folder, in this process; return its data folder."""

    def go(folder: Path, dataset: str, *names: str) -> Path:
        if not (folder / "params.yaml").exists():
            project.make_project(folder)
        monkeypatch.chdir(folder)
        monkeypatch.setattr("sys.argv", ["stage", "--dataset", dataset])
        for name in names or ("download", "preprocess", "split"):
            importlib.import_module(f"stages.{name}").main()
        return folder / "data"

    monkeypatch.delenv("CTR_MIRROR", raising=False)
    return go


def test_the_three_stages_write_the_same_bytes_twice_and_fit_on_train_rows_alone(tmp_path: Path, run: Run):
    first, second = run(tmp_path / "a", "synthetic"), run(tmp_path / "b", "synthetic")
    produced = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    for path in produced:
        assert (first / path).read_bytes() == (second / path).read_bytes(), path
    processed = first / "processed/synthetic"
    report = json.loads((processed / "report.json").read_text())
    rows = [np.load(processed / f"{part}.row.npy") for part in PARTS]
    assert sorted(np.concatenate(rows).tolist()) == list(range(4000))
    assert [report[part]["rows"] for part in PARTS] == [2880, 320, 800]
    table = pq.read_table(first / "interim/synthetic/table.parquet")
    assert (np.load(processed / "test.truth.npy") == table["truth"].to_numpy()[rows[2]]).all()
    group = np.array(table["group"].to_pylist())
    codes = np.load(processed / "test.group.npy")
    assert codes.dtype == np.int32
    assert len(set(zip(codes.tolist(), group[rows[2]].tolist(), strict=True))) == len(set(codes.tolist()))

    # other values in valid and test rows leave everything that was fitted as it was
    held_out = np.ones(len(table), bool)
    held_out[rows[0]] = False
    for name, value in (("city", "nowhere"), ("price", 1e6)):
        values = [value if out else old for out, old in zip(held_out, table[name].to_pylist(), strict=True)]
        column = pa.array(values, table.schema.field(name).type)
        table = table.set_column(table.column_names.index(name), name, column)
    pq.write_table(table, second / "interim/synthetic/table.parquet")
    changed = run(tmp_path / "b", "synthetic", "split") / "processed/synthetic"
    for name in ("vocabulary.json", "schema.json", "train.ids.npy"):
        assert (changed / name).read_bytes() == (processed / name).read_bytes()
    fields = json.loads((changed / "schema.json").read_text())
    city = [field["name"] for field in fields].index("city")
    unseen = 1 + sum(field["size"] for field in fields[:city])
    assert (np.load(changed / "test.ids.npy")[:, city] == unseen).all()


def test_too_many_corrupted_lines_fail_the_stage_and_leave_nothing(tmp_path: Path, run: Run):
    data = run(tmp_path, "synthetic", "download")
    raw = data / "raw/synthetic/clicks.csv"
    raw.write_text(raw.read_text().replace(",phone,", ",phone,,", 50))
    manifest = json.loads((raw.parent / "manifest.json").read_text())
    manifest["files"]["clicks.csv"]["sha256"] = sha256(raw)  # as if it had come like that
    (raw.parent / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(PipelineError) as caught:
        run(tmp_path, "synthetic", "preprocess")
    assert "50 of 4000 records of clicks.csv are corrupted" in str(caught.value)
    assert "\n  clicks.csv:" in str(caught.value)
    assert not list((data / "interim").iterdir())


def test_a_split_without_rows_leaves_nothing(tmp_path: Path, run: Run):
    project.make_project(tmp_path)
    text = (tmp_path / "params.yaml").read_text().replace("test: 0.2", "test: 0.0001")
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(PipelineError, match="synthetic: the test part of 4000 rows is empty"):
        run(tmp_path, "synthetic")
    assert not (tmp_path / "data/processed").exists()


def test_an_unknown_dataset_is_an_error_with_the_nearest_name(tmp_path: Path, run: Run):
    with pytest.raises(PipelineError, match="did you mean 'synthetic'"):
        run(tmp_path, "sinthetic")


def test_a_dataset_that_cannot_be_fetched_is_one_clear_error(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CTR_MIRROR", str(tmp_path / "empty"))
    with pytest.raises(PipelineError) as caught:
        run(tmp_path, "movielens-100k")
    assert "it must hold movielens-100k/u.data" in str(caught.value)
    assert "https://files.grouplens.org/datasets/movielens/ml-100k.zip" in str(caught.value)
    assert not list((tmp_path / "data/raw").iterdir())


@pytest.mark.skipif(
    not (MIRROR / "movielens-100k/u.data").exists(),
    reason="real data is not there: ../shared/datasets/movielens-100k/u.data and the files beside it",
)
def test_the_real_movielens_100k_from_the_mirror(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CTR_MIRROR", str(MIRROR))
    data = run(tmp_path, "movielens-100k")
    manifest = json.loads((data / "raw/movielens-100k/manifest.json").read_text())
    assert manifest["matches_publisher"] is True
    report = json.loads((data / "interim/movielens-100k/report.json").read_text())
    assert (report["rows_in"], report["rows_out"], report["rejected"]) == (100_000, 100_000, 0)
    assert report["clicks"] == 55_375
    table = pq.read_table(data / "interim/movielens-100k/table.parquet")
    assert len(set(table["user"].to_pylist())) == 943
    assert len(set(table["movie"].to_pylist())) == 1682
    assert {c.name for c in movielens_100k.COLUMNS if table[c.name].null_count} == {"year"}
    processed = data / "processed/movielens-100k"
    assert [len(np.load(processed / f"{part}.ids.npy")) for part in PARTS] == [72_000, 8_000, 20_000]
    groups = np.concatenate([np.load(processed / f"{part}.group.npy") for part in PARTS])
    assert sorted(set(groups.tolist())) == list(range(943))
