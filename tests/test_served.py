"""Four ways to the same probability: the report's file, `predict`, MLflow in process, MLflow over HTTP.

A log with bags, numbers, times, missing and unseen values goes through all stages, and so do `synthetic` and,
where its files are, MovieLens-100K; the server is a real one. The commands of docs/scoring.md are run, too.
"""

import gzip
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import requests
import scoring_rows as mine

from pipeline import tracking
from pipeline.common.files import read_json
from tests import project

pytestmark = [pytest.mark.slow, pytest.mark.thorough, pytest.mark.filterwarnings("ignore")]
ROWS = 10_000
RAW = "raw_probability"
MIRROR = Path(__file__).parents[2] / "shared/datasets"
REAL = "movielens-100k"
NAMES = ["mine", "synthetic", *([REAL] if (MIRROR / REAL / "u.data").exists() else [])]
without_real_data = pytest.mark.skipif(
    REAL not in NAMES, reason=f"no real data: ../shared/datasets/{REAL}/u.data and the files beside it"
)


@pytest.fixture(scope="module", name="root")
def _root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with two evaluated datasets of 10,000 test rows each, and their champions in MLflow."""
    root = tmp_path_factory.mktemp("served")
    mine.write_csv(root / "clicks.csv", mine.log(12_500, users=4000))
    values = project.small_params(datasets=NAMES, models=["din"])
    entry = values["data"]["synthetic"]
    entry["download"]["rows"] = 12_500
    entry["settings"]["train"] |= {"epochs": 1, "seeds": [1]}
    entry["settings"]["tune"]["trials"] = 1
    entry["split"]["test"] = 0.8
    preprocess = {**mine.ENTRY, "user": "user_id", "item": "item"}
    own = {"source": "tabular", "download": {"path": "clicks.csv"}, "preprocess": preprocess}
    values["data"]["mine"] = {**entry, **own}
    few = {"train": {"epochs": 1, "batch_size": 4096, "seeds": [1], "threads": 1}, "tune": {"trials": 1}}
    values["data"][REAL] |= {"split": {"method": "random", "seed": 1, "test": 0.1}, "settings": few}
    project.make_project(root, **values)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CTR_TRACKING", "off")
        for name in NAMES:
            project.prepare(root, name, MIRROR if name == REAL else None)
            for stage, model in (("train", "din"), ("tune", "din"), ("evaluate", None)):
                done = project.run(root, stage, model, dataset=name, CTR_TRACKING="off")
                assert done.returncode == 0, done.stderr
    tracking.sync(root)
    return root


def reported(root: Path, name: str) -> pd.DataFrame:
    """The champion's test predictions, as evaluate left them."""
    best = read_json(root / "data/reports" / name / "report.json")["champion"]
    frame = pd.read_parquet(root / f"data/predictions/{name}/{best['model']}.parquet")
    return frame[(frame["variant"] == best["variant"]) & (frame["seed"] == best["seed"])]


def raw(root: Path, name: str, rows: Any) -> pd.DataFrame:
    """The raw columns of these rows of the log."""
    if name == "mine":
        log = pd.read_csv(root / "clicks.csv", dtype=str, keep_default_na=False)
    else:
        log = pd.read_parquet(root / f"data/interim/{name}/table.parquet")
    return log.iloc[rows].drop(columns=["click", "label", "truth"], errors="ignore")


@contextmanager
def serving(root: Path, model: str) -> Iterator[str]:
    """Start `mlflow models serve`; yield the address of its invocations."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["mlflow", "models", "serve", "--model-uri", model, "--env-manager", "local", "--port", str(port)]
    env = project.environment(MLFLOW_TRACKING_URI=f"sqlite:///{root}/mlflow.db")
    del env["PYTHONPATH"]
    with open(root / "serve.log", "w", encoding="utf-8") as log:
        server = subprocess.Popen(words, cwd=root, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        for _ in range(240):
            try:
                requests.get(f"http://127.0.0.1:{port}/ping", timeout=1)
                break
            except requests.ConnectionError:
                assert server.poll() is None, (root / "serve.log").read_text()
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def post(url: str, body: Any, kind: str | None = "application/json", **headers: str) -> requests.Response:
    given = {**headers, **({"Content-Type": kind} if kind else {})}
    return requests.post(url, data=body, headers=given, timeout=120)


@pytest.mark.parametrize("name", [*NAMES[:2], pytest.param(REAL, marks=without_real_data)])
def test_four_ways_give_the_same_probability(root: Path, name: str, tmp_path: Path) -> None:
    report = reported(root, name)
    expected = report["probability"].to_numpy()
    assert len(expected) == ROWS
    frame = raw(root, name, report["row"])

    frame.to_csv(tmp_path / "rows.csv", index=False)
    done = project_command(
        root, "predict", "--dataset", name, str(tmp_path / "rows.csv"), "-o", "scores.parquet"
    )
    assert "unseen" in done
    scores = pd.read_parquet(root / "scores.parquet")
    np.testing.assert_allclose(scores[RAW], expected, atol=1e-6)

    tracking.configure(root).client  # noqa: B018 (tells MLflow where its models are)
    model = f"models:/ctr-{name}@champion"
    inside = mlflow.pyfunc.load_model(model).predict(frame)
    np.testing.assert_allclose(inside[RAW], expected, atol=1e-6)

    with serving(root, model) as url:
        split = json.loads(frame.to_json(orient="split", index=False))
        answers = [
            post(url, json.dumps({"dataframe_split": {key: split[key] for key in ("columns", "data")}})),
            post(url, json.dumps({"dataframe_records": json.loads(frame.to_json(orient="records"))})),
            post(url, frame.to_csv(index=False).encode(), "text/csv"),
        ]
    for answer in answers:
        assert answer.status_code == 200, answer.text[-500:]
        np.testing.assert_allclose([row[RAW] for row in answer.json()["predictions"]], expected, atol=1e-6)
        np.testing.assert_allclose(
            [row["probability"] for row in answer.json()["predictions"]], scores["probability"], atol=1e-6
        )


def test_the_commands_of_the_page_on_scoring_run(root: Path) -> None:
    section = (project.ROOT / "docs/scoring.md").read_text(encoding="utf-8")
    commands, server, files = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    (python,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    commands = f'ctr() {{ python -m pipeline "$@"; }}\n{commands}'
    call = {"cwd": root, "env": project.environment(), "capture_output": True, "text": True}
    done = subprocess.run(["bash", "-e", "-c", commands], **call)
    assert done.returncode == 0, done.stderr
    scores = pd.read_parquet(root / "scores.parquet")
    assert list(scores) == ["row", "user", "item", "probability", RAW]
    np.testing.assert_allclose(pd.read_csv(root / "scores.csv")[RAW], scores[RAW], atol=1e-6)

    frame = "import pandas\nframe = pandas.read_parquet('data/interim/synthetic/table.parquet').head(3)\n"
    done = subprocess.run([sys.executable, "-c", f"{frame}{python}print(len(scores))"], **call)
    assert done.stdout == "3\n", done.stderr

    _, serve, curl = server.split("\n", 2)
    curl = curl.replace('"user":', '"time": 1497000000, "user":')  # din, the champion here, reads times
    with serving(root, shlex.split(serve)[4]) as url:
        done = subprocess.run(["bash", "-c", curl.replace("http://127.0.0.1:5001/invocations", url)], **call)
    answer = json.loads(done.stdout)
    assert 0 < answer.get("predictions", [{}])[0].get("probability", 0) < 1, answer

    rows = pd.read_parquet(root / "data/interim/synthetic/table.parquet").head(20)
    rows.drop(columns=["label", "truth"]).to_csv(root / "rows.csv", index=False)
    done = subprocess.run(["bash", "-e", "-c", files], **call)
    assert done.returncode == 0, done.stderr
    found = [row[RAW] for row in read_json(root / "scores.json")["predictions"]]
    np.testing.assert_allclose(found, scores[RAW].head(20), atol=1e-6)
    assert "FROM" in (root / "image/Dockerfile").read_text()
    needs = (root / "image/model_dir/requirements.txt").read_text()
    assert {"mlflow", "torch", "pyarrow", "safetensors"} <= {
        line.partition("==")[0] for line in needs.split()
    }
    assert (root / "image/model_dir/artifacts/package/weights.safetensors").exists()


def project_command(root: Path, *words: str) -> str:
    """Run a command of the library in a project; return what it prints."""
    done = subprocess.run(
        ["python", "-m", "pipeline", *words],
        cwd=root,
        env=project.environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# ---- bad requests ----

ROW = {
    "user_id": "1003",
    "age": 31,
    "item_id": "i04",
    "price": 3.5,
    "tags": ["new"],
    "ts": "2024-03-05 12:00",
}


def records(*rows: Any) -> str:
    return json.dumps({"dataframe_records": list(rows)})


def split(columns: Any, *rows: Any) -> str:
    return json.dumps({"dataframe_split": {"columns": columns, "data": list(rows)}})


def without(*names: str) -> dict[str, Any]:
    return {key: value for key, value in ROW.items() if key not in names}


# name of the case -> body, and what the answer must name
BAD: dict[str, tuple[Any, str]] = {
    "no user": (records(without("user_id")), "user_id"),
    "no time": (records(without("ts")), "ts"),
    "neither": (records(without("ts", "user_id")), "user_id"),
    "no columns": (records({}), "user_id"),
    "other columns": (records({"a": 1}), "user_id"),
    "no rows": (records(), "user_id"),
    "another case": (records({**without("user_id"), "USER_ID": "1"}), "user_id"),
    "price in words": (records({**ROW, "price": "dear"}), "price"),
    "price with a comma": (records({**ROW, "price": "3,5"}), "price"),
    "price a list": (records({**ROW, "price": [1]}), "price"),
    "price an object": (records({**ROW, "price": {"amount": 1}}), "price"),
    "second price in words": (records(ROW, {**ROW, "price": "dear"}), "price"),
    "prices of two types": (records(ROW, {**ROW, "price": "x"}), "price"),
    "time in words": (records({**ROW, "ts": "today"}), "ts"),
    "30 February": (records({**ROW, "ts": "2024-02-30"}), "ts"),
    "time an object": (records({**ROW, "ts": {}}), "ts"),
    "time a list": (records({**ROW, "ts": ["2024-03-05"]}), "ts"),
    "time null": (records({**ROW, "ts": None}), "ts"),
    "time empty": (records({**ROW, "ts": ""}), "ts"),
    "time true": (records({**ROW, "ts": True}), "ts"),
    "user a list": (records({**ROW, "user_id": ["1"]}), "user_id"),
    "user an object": (records({**ROW, "user_id": {"id": 1}}), "user_id"),
    "user nested deeply": (records({**ROW, "user_id": [[[["1"]]]]}), "user_id"),
    "users of two types": (records(ROW, {**ROW, "user_id": 5}), "user_id"),
    "age a list": (records({**ROW, "age": [31]}), "age"),
    "tags nested": (records({**ROW, "tags": [["new"]]}), "tags"),
    "tags an object": (records({**ROW, "tags": {"a": 1}}), "tags"),
    "tags of two types": (records({**ROW, "tags": ["new", 1]}), "tags"),
    "tags objects": (records({**ROW, "tags": [{"name": "new"}]}), "tags"),
    "too many rows": (f"{','.join(ROW)}\n" + "1003,31,i04,3.5,new,2024-03-05\n" * 100_001, "100000"),
    "a million rows": (
        f"{','.join(ROW)}\n" + "1003,31,i04,3.5,new,2024-03-05\n" * 1_100_000,
        "33554432 bytes",
    ),
    "records no list": (json.dumps({"dataframe_records": ROW}), "list of records"),
    "records of numbers": (records(1, 2), "user_id"),
    "records of lists": (records([1], [2]), "user_id"),
    "split without data": (json.dumps({"dataframe_split": {"columns": ["a"]}}), "data"),
    "split with more": (json.dumps({"dataframe_split": {"data": [], "more": 1}}), "more"),
    "split ragged": (split(["user_id", "ts"], [1]), "columns"),
    "split a list": (json.dumps({"dataframe_split": [1]}), "dictionary"),
    "split without user": (split(["ts"], ["2024-03-05"]), "user_id"),
    "columns no list": (split("user_id", ["1"]), ""),
    "columns twice": (split([*ROW, "ts"], [*ROW.values(), "2024-03-05"]), ""),
    "two formats": (json.dumps({"dataframe_records": [ROW], "dataframe_split": {}}), ""),
    "no format": (json.dumps({"rows": [ROW]}), ""),
    "a list": (json.dumps([ROW]), "list"),
    "a number": ("3", ""),
    "a text": ('"x"', ""),
    "null": ("null", ""),
    "NaN": ('{"dataframe_records": [NaN]}', ""),
    "no JSON": ("{", "JSON"),
    "empty": ("", "JSON"),
    "bytes": (b"\x00\xff\xfe", "JSON"),
    "UTF-16": ("{}".encode("utf-16"), ""),
    "gzip": (gzip.compress(records(ROW).encode()), "JSON"),
}
LARGE = ("too many rows", "a million rows")  # as CSV
OTHER_KINDS: dict[str, tuple[Any, str, int]] = {
    "CSV without user": ("ts\n2024-03-05\n", "text/csv", 400),
    "CSV ragged": ("user_id,ts\n1,2,3,4\n1\n1,2,3,4,5,6\n", "text/csv", 400),
    "empty CSV": ("", "text/csv", 400),
    "CSV in latin-1": ("user_id,ts\né,1\n".encode("latin-1"), "text/csv", 400),
    "a picture": (b"\x89PNG", "image/png", 415),
    "XML": ("<row/>", "application/xml", 415),
    "another charset": (records(ROW), "application/json; charset=latin-1", 415),
    "Parquet": (b"PAR1", "application/vnd.apache.parquet", 400),
    "another parameter": (records(ROW), "application/json; format=pandas-split", 415),
}


def test_bad_requests_get_4xx_with_the_columns_name_and_the_server_lives(root: Path) -> None:
    wrong = []
    with serving(root, "models:/ctr-mine@champion") as url:
        good = post(url, records(ROW))
        assert good.status_code == 200, good.text[-500:]
        for case, (body, named) in BAD.items():
            answer = post(url, body, "text/csv" if case in LARGE else "application/json")
            if not 400 <= answer.status_code < 500 or named not in answer.text:
                wrong.append((case, answer.status_code, answer.text[-300:]))
        for case, (body, kind, status) in OTHER_KINDS.items():
            answer = post(url, body, kind)
            if answer.status_code != status:
                wrong.append((case, answer.status_code, answer.text[-300:]))
        bomb = gzip.compress(b" " * (1 << 26))  # is never unpacked
        packed = post(url, bomb, **{"Content-Encoding": "gzip"})
        unmeasured = post(url, (b" " * (1 << 20) for _ in range(40)))  # in chunks, of no length told before
        again = post(url, records(ROW))
    assert packed.status_code == 400
    assert (unmeasured.status_code, "33554432 bytes" in unmeasured.text) == (413, True)
    assert wrong == []
    assert again.json() == good.json()
