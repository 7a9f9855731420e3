"""Whole stages: what they leave behind, run twice, killed and run again, untracked and on bad input."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.common.errors import PipelineError
from pipeline.common.files import digest, folder_digest, read_json, seal, sha256, write_json
from pipeline.schema import SPLITS
from pipeline.train import cache, runs
from stages import preprocess, split, train, tune
from tests import project

pytestmark = pytest.mark.slow

Run = Callable[..., Path]


# ---- download, preprocess and split, in this process ----


def test_the_three_stages_write_the_same_bytes_twice_and_fit_on_train_rows_alone(tmp_path: Path, run: Run):
    first, second = run(tmp_path / "a", "synthetic"), run(tmp_path / "b", "synthetic")
    produced = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    for path in produced:
        assert (first / path).read_bytes() == (second / path).read_bytes(), path
    processed = first / "processed/synthetic"
    report = read_json(processed / "report.json")
    rows = [np.load(processed / f"{part}.row.npy") for part in SPLITS]
    assert sorted(np.concatenate(rows).tolist()) == list(range(4000))
    assert [report[part]["rows"] for part in SPLITS] == [2880, 320, 800]
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
    seal(second / "interim/synthetic")  # as if preprocess had written it
    changed = run(tmp_path / "b", "synthetic", "split") / "processed/synthetic"
    for name in ("vocabulary.json", "schema.json", "train.ids.npy"):
        assert (changed / name).read_bytes() == (processed / name).read_bytes()
    fields = read_json(changed / "schema.json")
    city = [field["name"] for field in fields].index("city")
    unseen = 1 + sum(field["size"] for field in fields[:city])
    assert (np.load(changed / "test.ids.npy")[:, city] == unseen).all()


def with_corrupted_lines(data: Path, count: int) -> None:
    """Give so many lines of the raw log one field more, as if it had come like that."""
    raw = data / "raw/synthetic/clicks.csv"
    raw.write_text(raw.read_text().replace(",phone,", ",phone,,", count))
    manifest = read_json(raw.parent / "manifest.json")
    manifest["files"]["clicks.csv"]["sha256"] = sha256(raw)
    write_json(raw.parent / "manifest.json", manifest)
    seal(raw.parent)


@pytest.mark.parametrize("count", [0, 1, 4])
def test_the_first_corrupted_lines_are_shown(
    tmp_path: Path, run: Run, count: int, capfd: pytest.CaptureFixture[str]
) -> None:
    data = run(tmp_path, "synthetic", "download")
    with_corrupted_lines(data, count)
    run(tmp_path, "synthetic", "preprocess")
    printed = capfd.readouterr().out
    assert f"{4000 - count} out, {count} corrupted" in printed
    shown = [line for line in printed.splitlines() if line.startswith("  clicks.csv:")]
    assert shown == [
        f"  {line}" for line in read_json(data / "interim/synthetic/report.json")["first_rejects"][:3]
    ]
    assert all("fields where" in line for line in shown)
    assert ("  more of them: data/interim/synthetic/report.json" in printed) == (count > 3)


def test_too_many_corrupted_lines_fail_the_stage_and_leave_nothing(tmp_path: Path, run: Run):
    data = run(tmp_path, "synthetic", "download")
    with_corrupted_lines(data, 50)
    with pytest.raises(PipelineError) as caught:
        run(tmp_path, "synthetic", "preprocess")
    assert "50 of 4000 records of clicks.csv are corrupted" in str(caught.value)
    assert "\n  clicks.csv:" in str(caught.value)
    assert [path.name for path in (data / "interim").iterdir()] == [".synthetic.lock"]


def with_blocks(folder: Path, **blocks: Any) -> Path:
    """A small project whose synthetic item has other blocks."""
    values = project.small_params()
    values["data"][project.DATASET].update(blocks)
    return project.make_project(folder, data=values["data"])


def test_a_log_cut_short_and_narrowed_by_its_params_adds_up(tmp_path: Path, run: Run):
    fields = ["price", "user", "tags"]
    folder = with_blocks(tmp_path, preprocess={"rows": 1500, "fields": fields})
    data = run(folder, "synthetic")
    report = read_json(data / "interim/synthetic/report.json")
    assert report["rows_out"] == 1500
    assert report["rows_in"] == report["rows_out"] + report["rejected"] + report["dropped"]
    assert report["files"]["clicks.csv"]["dropped"] == report["dropped"] > 0
    table = pq.read_table(data / "interim/synthetic/table.parquet")
    assert table.column_names[:3] == fields
    assert report["clicks"] == sum(table["label"].to_pylist())
    whole = pq.read_table(run(tmp_path / "whole", "synthetic") / "interim/synthetic/table.parquet")
    assert table.drop_columns("price") == whole.select(table.column_names).slice(0, 1500).drop_columns(
        "price"
    )
    processed = data / "processed/synthetic"
    assert [field["name"] for field in read_json(processed / "schema.json")] == fields
    assert sum(len(np.load(processed / f"{part}.ids.npy")) for part in SPLITS) == 1500


@pytest.mark.parametrize(
    ("preprocess", "message"),
    [
        ({"row": 10}, "data.synthetic.preprocess: unknown key 'row'; did you mean 'rows'"),
        ({"rows": 0}, "data.synthetic.preprocess.rows: must be at least 1"),
        ({"rows": "10"}, "data.synthetic.preprocess.rows: "),
        (
            {"fields": ["user", "itme"]},
            "synthetic: preprocess.fields: unknown field 'itme'; did you mean 'item'",
        ),
        ({"max_rejected": 2}, "data.synthetic.preprocess.max_rejected: must be at least 0 and at most 1"),
    ],
)
def test_wrong_options_of_preprocess_are_named(
    tmp_path: Path, run: Run, preprocess: dict[str, Any], message: str
):
    run(with_blocks(tmp_path), "synthetic", "download")
    with_blocks(tmp_path, preprocess=preprocess)
    with pytest.raises(PipelineError) as caught:
        run(tmp_path, "synthetic", "preprocess")
    assert message in str(caught.value)
    assert not (tmp_path / "data/interim/synthetic").exists()


@pytest.mark.parametrize("method", ["user", "time"])
def test_a_split_goes_by_what_the_rows_have_besides_their_fields(tmp_path: Path, run: Run, method: str):
    data = run(with_blocks(tmp_path, split={"method": method}), "synthetic")
    rest = pq.read_table(data / "interim/synthetic/table.parquet")
    rows = {part: np.load(data / f"processed/synthetic/{part}.row.npy") for part in SPLITS}
    if method == "time":
        time = rest["time"].to_numpy()
        assert time[rows["train"]].max() <= time[rows["valid"]].min() <= time[rows["valid"]].max()
        assert time[rows["valid"]].max() <= time[rows["test"]].min()
    else:
        users = {part: set(rest["group"].take(pa.array(of)).to_pylist()) for part, of in rows.items()}
        assert not (
            users["train"] & users["test"]
            or users["train"] & users["valid"]
            or users["valid"] & users["test"]
        )


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("device", "split column 'device' contains 'phone'"),
        ("fold", "needs the column 'fold', which this dataset does not have"),
        ("group", "'group' cannot be the split column"),
    ],
)
def test_a_column_that_says_no_parts_is_named(tmp_path: Path, run: Run, column: str, message: str):
    folder = with_blocks(tmp_path, split={"method": "column", "column": column})
    with pytest.raises(PipelineError, match=f"synthetic: .*{message}"):
        run(folder, "synthetic")
    assert not (tmp_path / "data/processed/synthetic").exists()


def test_a_field_may_say_the_parts(tmp_path: Path, run: Run):
    data = run(with_blocks(tmp_path, split={"method": "column", "column": "gender"}), "synthetic", "download")
    clicks = data / "raw/synthetic/clicks.csv"
    lines = clicks.read_text().splitlines(keepends=True)
    words = ["train", "valid", "test"]
    for number, line in enumerate(lines[1:]):
        values = line.split(",")
        values[3] = words[number % 3]
        lines[1 + number] = ",".join(values)
    clicks.write_text("".join(lines))
    manifest = read_json(clicks.parent / "manifest.json")
    manifest["files"]["clicks.csv"]["sha256"] = sha256(clicks)
    write_json(clicks.parent / "manifest.json", manifest)
    seal(clicks.parent)
    run(tmp_path, "synthetic", "preprocess", "split")
    for number, part in enumerate(SPLITS):
        rows = np.load(data / f"processed/synthetic/{part}.row.npy")
        assert rows.tolist() == list(range(number, 4000, 3))


def test_a_split_with_few_clicks_is_told(tmp_path: Path, run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    run(with_blocks(tmp_path, split={"method": "random", "seed": 1, "valid": 0.004}), "synthetic")
    told = [line for line in capfd.readouterr().err.splitlines() if line.startswith("warning: synthetic: ")]
    assert len(told) == 1 and "the valid split has " in told[0]
    assert told[0].endswith(" of 13: what is chosen by it is chosen by chance")


def test_a_split_without_rows_leaves_nothing(tmp_path: Path, run: Run):
    project.make_project(tmp_path)
    text = (tmp_path / "params.yaml").read_text().replace("test: 0.2", "test: 0.0001")
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(PipelineError, match="synthetic: the test split of 4000 rows is empty"):
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
    assert "it must contain movielens-100k/u.data" in str(caught.value)
    assert "https://files.grouplens.org/datasets/movielens/ml-100k.zip" in str(caught.value)
    assert [path.name for path in (tmp_path / "data/raw").iterdir()] == [".movielens-100k.lock"]


# ---- stages as processes ----


@pytest.fixture(scope="module", name="data")
def _data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose data is prepared."""
    folder = project.make_project(tmp_path_factory.mktemp("stages") / "prepared")
    project.prepare(folder)
    return folder


def copy(data: Path, to: Path) -> Path:
    return Path(shutil.copytree(data, to))


def results(folder: Path, model: str = "fm") -> dict[str, str]:
    runs = folder / "data/runs" / project.DATASET / model
    return {path.name: folder_digest(path) for path in sorted(runs.iterdir())}


@pytest.fixture(scope="module", name="whole")
def _whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train and tune run without a break and without tracking."""
    folder = copy(data, tmp_path_factory.mktemp("whole") / "project")
    for stage in ("train", "tune"):
        done = project.run(folder, stage, "fm", CTR_TRACKING="off")
        assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.thorough
def test_tracking_changes_no_output_and_checkpoints_are_gone(data: Path, whole: Path, tmp_path: Path) -> None:
    """This is why dvc.yaml need not name pipeline/tracking."""
    folder = copy(data, tmp_path / "tracked")
    for stage in ("train", "tune"):
        done = project.run(folder, stage, "fm")
        assert done.returncode == 0, done.stderr
    assert (folder / "mlflow.db").exists()
    assert not (whole / "mlflow.db").exists()
    assert results(folder) == results(whole)
    assert not list((folder / "data/checkpoints").rglob("*.pt"))


@pytest.mark.thorough
@pytest.mark.kill
@pytest.mark.parametrize(
    ("stage", "variant", "processes"),
    [("train", "default", "1"), ("train", "default", "2"), ("tune", "tuned", "1")],
)
def test_a_stage_killed_again_and_again_ends_with_the_same_bytes(
    data: Path, whole: Path, tmp_path: Path, stage: str, variant: str, processes: str
) -> None:
    folder = copy(data, tmp_path / "killed")
    project.kill_at_checkpoints(folder, project.command(stage, "fm"), CTR_PROCESSES=processes)
    done = project.run(folder, stage, "fm", CTR_PROCESSES=processes)
    assert done.returncode == 0, done.stderr
    assert results(folder)[variant] == results(whole)[variant]


def fingerprint(folder: Path) -> list[tuple[str, int]]:
    return sorted((path.name, path.stat().st_mtime_ns) for path in folder.rglob("*.pt"))


@pytest.mark.thorough
@pytest.mark.kill
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_their_stage(data: Path, tmp_path: Path, end: signal.Signals) -> None:
    """However it ends; of SIGTERM and of Ctrl-C, which all of a terminal hear, it tells in one line."""
    folder = copy(data, tmp_path / "ended")
    values = project.small_params()
    values["data"][project.DATASET]["settings"]["train"] |= {"epochs": 10_000, "patience": 10_000}
    project.make_project(folder, data=values["data"])
    process = subprocess.Popen(
        project.command("train", "fm"),
        cwd=folder,
        env=project.environment(CTR_PROCESSES="2", CTR_TRACKING="off"),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        while process.poll() is None and len({name[:6] for name, _ in fingerprint(folder)}) < 2:
            time.sleep(0.01)
        workers = psutil.Process(process.pid).children(recursive=True)
        assert workers
        (os.killpg if end == signal.SIGINT else os.kill)(process.pid, end)
        assert psutil.wait_procs(workers, timeout=60)[1] == []
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    left = fingerprint(folder)
    if end != signal.SIGKILL:
        kept = "finished trainings and the last checkpoint are kept"
        assert said == f"stopped; {kept}: run the same command again to go on from here\n"
        assert process.returncode == 128 + end
    time.sleep(0.5)
    assert fingerprint(folder) == left


def test_no_training_is_done_twice(whole: Path) -> None:
    """The search starts from the default and ends with finalists: all were trained before."""
    folder = whole / "data/runs" / project.DATASET / "fm"
    default, tuned = (read_json(folder / name / "run.json") for name in ("default", "tuned"))
    found = tuned["search"]
    trained = [(run["params"], seed["seed"]) for run in (default, tuned) for seed in run["seeds"]]
    trained += [(t["params"], 1) for t in found["trials"] if t["state"] == "COMPLETE"]
    trained += [
        (found["trials"][final["trial"]]["params"], seed)
        for final in found["finalists"]
        for seed in final["seeds"]
    ]
    different = {digest([params["model"], params["train"], seed]) for params, seed in trained}
    assert len(different) < len(trained)
    assert len(list((whole / "data/trainings").iterdir())) == len(different)


class Killed(BaseException):
    """Stands for a process that goes away: nothing may catch it."""


@pytest.mark.thorough
@pytest.mark.parametrize("finals", [1, 3])
@pytest.mark.parametrize("store", ["on", "off"])
def test_a_search_killed_in_its_finals_ends_with_the_same_bytes(
    data: Path,
    whole: Path,
    tmp_path: Path,
    fits: list[int],
    monkeypatch: pytest.MonkeyPatch,
    finals: int,
    store: str,
) -> None:
    """In the middle of a training, and with or without the cache of trainings."""
    folder = copy(data, tmp_path / "killed")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("CTR_TRACKING", "off")
    monkeypatch.setenv("CTR_STORE", store)
    monkeypatch.setattr("sys.argv", ["tune", "--dataset", project.DATASET, "--model", "fm"])
    fit = runs.fit

    def dying(*words: Any, seed: int, log: Any, **more: Any) -> Any:
        last = seed == 2 and fits.count(2) == finals - 1

        def dies(row: dict[str, float], step: int) -> None:
            if log is not None:
                log(row, step)
            if last and row["epoch"] >= 2:
                raise Killed

        return fit(*words, seed=seed, log=dies, **more)

    with monkeypatch.context() as patch:
        patch.setattr(runs, "fit", dying)
        with pytest.raises(Killed):
            tune.main()
    before = len(fits)
    tune.main()
    assert results(folder)["tuned"] == results(whole)["tuned"]
    if store == "on":
        assert fits[before:].count(1) == 0
        assert fits.count(2) == 3 + 1, "the killed one, which was not cached, and the rest"


@pytest.mark.thorough
def test_an_item_with_the_same_rows_finds_its_trainings_and_one_with_others_does_not(
    whole: Path, tmp_path: Path, run: Run, fits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy(whole, tmp_path / "renamed")
    data = project.small_params()["data"]
    data["again"] = deepcopy(data[project.DATASET])
    data["other"] = {**deepcopy(data[project.DATASET]), "split": {"seed": 5}}
    project.make_project(folder, data=data)
    monkeypatch.setenv("CTR_TRACKING", "off")
    for name, trained in (("again", []), ("other", [1, 2])):
        run(folder, name)
        monkeypatch.setattr("sys.argv", ["train", "--dataset", name, "--model", "fm"])
        train.main()
        assert fits == trained
    default = folder / "data/runs" / project.DATASET / "fm/default"
    for path in default.glob("*.safetensors"):
        assert (folder / "data/runs/again/fm/default" / path.name).read_bytes() == path.read_bytes()
        assert (folder / "data/runs/other/fm/default" / path.name).read_bytes() != path.read_bytes()
    said, told = (read_json(at / "run.json") for at in (default, folder / "data/runs/again/fm/default"))
    differs = {key for key in said if said[key] != told[key]}
    assert differs == {"key", "dataset", "input"}


@pytest.mark.thorough
def test_what_was_tried_with_other_code_is_tried_again(
    whole: Path, tmp_path: Path, fits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy(whole, tmp_path / "changed")
    before = results(folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("CTR_TRACKING", "off")
    monkeypatch.setattr("sys.argv", ["tune", "--dataset", project.DATASET, "--model", "fm"])
    tune.main()
    assert (results(folder), fits) == (before, [])
    monkeypatch.setattr(cache, "code_digest", lambda *_: "other")
    tune.main()
    assert results(folder) == before
    assert len(fits) >= 3


def test_the_tuned_run_tells_how_it_was_found(whole: Path) -> None:
    run = read_json(whole / "data/runs" / project.DATASET / "fm/tuned/run.json")
    default = read_json(whole / "data/runs" / project.DATASET / "fm/default/run.json")
    trials = run["search"]["trials"]
    assert [trial["number"] for trial in trials] == [0, 1, 2]
    assert trials[0]["params"] == {k: default["params"][k] for k in ("model", "train")}
    assert trials[0]["curve"] == default["seeds"][0]["curve"]
    won = trials[run["search"]["best"]]
    assert run["seeds"][0]["curve"] == won["curve"]
    assert [seed["seed"] for seed in run["seeds"]] == [seed["seed"] for seed in default["seeds"]]
    finals = {final["trial"]: final for final in run["search"]["finalists"]}
    assert finals.keys() >= {0, won["number"]}
    gain = finals[won["number"]]["mean"] - finals[0]["mean"]
    assert won["number"] == 0 or gain > finals[won["number"]]["error"] > 0
    assert (run["search"]["against_default"] is None) == (finals.keys() == {0})
    for number, seeds in ((0, default["seeds"]), (won["number"], run["seeds"])):
        values = [seed["best"]["valid_auc"] for seed in seeds]
        assert finals[number]["values"] == values
        assert finals[number]["mean"] == pytest.approx(sum(values) / len(values))
    budget = run["search"]["budget"]
    rows = sum(trial["curve"][-1]["epoch"] for trial in trials) * 2880
    assert (budget["trials"], budget["rows"][-1]) == (3, rows)
    table = (whole / "data/runs" / project.DATASET / "fm/tuned/trials.csv").read_text().splitlines()
    assert table[0].startswith("number,state,value,mean,")
    best = read_json(whole / "data/runs" / project.DATASET / "fm/tuned/best.json")
    assert (best["trial"], best["valid_auc"]) == (won["number"], finals[won["number"]]["mean"])


def test_a_training_that_its_epochs_ended_is_marked(whole: Path) -> None:
    for variant in ("default", "tuned"):
        run = read_json(whole / "data/runs" / project.DATASET / "fm" / variant / "run.json")
        for seed in run["seeds"]:
            after_best = len(seed["curve"]) - 1 - seed["curve"].index(seed["best"])
            assert len(seed["curve"]) == 4, "all four epochs, and a patience of four"
            assert seed["capped"] is (after_best < 4)


@pytest.mark.parametrize(
    ("stage", "model", "dataset", "message"),
    [
        ("train", "depfm", "synthetic", "unknown model 'depfm'; did you mean 'deepfm'"),
        ("train", "fm", "sinthetic", "unknown dataset 'sinthetic'; did you mean 'synthetic'"),
        ("download", None, "sinthetic", "unknown dataset 'sinthetic'; did you mean 'synthetic'"),
        ("evaluate", None, "synthetic", "run"),
    ],
)
def test_a_wrong_name_ends_with_one_line_and_no_traceback(
    data: Path, tmp_path: Path, stage: str, model: str | None, dataset: str, message: str
) -> None:
    folder = copy(data, tmp_path / "bad")
    before = folder_digest(folder / "data")
    done = project.run(folder, stage, model, dataset=dataset)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert folder_digest(folder / "data") == before


@pytest.mark.thorough
def test_a_raw_file_changed_after_its_download_is_named(data: Path, tmp_path: Path) -> None:
    folder = copy(data, tmp_path / "changed")
    raw = folder / "data/raw" / project.DATASET / "clicks.csv"
    raw.write_bytes(raw.read_bytes() + raw.read_bytes().splitlines(keepends=True)[-1])
    done = project.run(folder, "preprocess")
    assert done.returncode == 1
    assert "clicks.csv was changed after it was written" in done.stderr
    raw.unlink()
    assert "clicks.csv is missing" in project.run(folder, "preprocess").stderr


@pytest.mark.parametrize(
    ("name", "by", "main"),
    [
        ("raw/synthetic/clicks.csv", "download", preprocess.main),
        ("raw/synthetic/manifest.json", "download", preprocess.main),
        ("interim/synthetic/table.parquet", "preprocess", split.main),
        ("interim/synthetic/columns.json", "preprocess", split.main),
        ("processed/synthetic/schema.json", "split", train.main),
        ("processed/synthetic/valid.ids.npy", "split", tune.main),
    ],
)
def test_a_file_that_is_gone_is_named_with_both_ways_to_have_it_again(
    data: Path, tmp_path: Path, name: str, by: str, main: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy(data, tmp_path / "gone")
    (folder / "data" / name).unlink()
    monkeypatch.chdir(folder)
    words = ["stage", "--dataset", project.DATASET]
    monkeypatch.setattr("sys.argv", words + (["--model", "fm"] if by == "split" else []))
    with pytest.raises(PipelineError) as caught:
        main()
    assert str(caught.value) == (
        f"data/{name} is missing; run the {by} stage again, or `dvc repro {by}@synthetic`, which takes it "
        "from DVC's cache if that has it"
    )


def test_a_raw_file_that_was_replaced_is_named_with_both_ways_to_have_it_again(
    data: Path, tmp_path: Path, run: Run
) -> None:
    folder = copy(data, tmp_path / "replaced")
    raw = folder / "data/raw" / project.DATASET / "clicks.csv"
    raw.write_bytes(b"something else\n")
    both = "run the download stage again, or `dvc repro download@synthetic`, which takes it from DVC's cache"
    with pytest.raises(PipelineError, match=f"was changed after it was written .*; remove .*, then {both}"):
        run(folder, "synthetic", "preprocess")
