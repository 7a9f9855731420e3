"""A logged model in MLflow: any form of rows in its process, bad requests, no checkout."""

import json
import subprocess
import sys
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import scoring_rows as mine
from mlflow.exceptions import MlflowException
from test_scoring import FORMS
from test_served import BAD as BAD_REQUESTS

from pipeline.scoring import Model, load
from pipeline.tracking import models
from tests import project

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module", name="saved")
def _saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of MLflow's, and beside it the log."""
    folder = tmp_path_factory.mktemp("saved")
    mine.write_csv(folder / "log/log.csv", mine.log(200))
    mine.package(folder / "log", options={"embedding_size": 4, "hidden": [8]}).write(folder / "package")
    models.save(folder / "package", folder / "model")
    return folder


@pytest.fixture(scope="module", name="frame")
def _frame(saved: Path) -> pd.DataFrame:
    return pd.read_csv(saved / "log/log.csv", dtype=str, keep_default_na=False)


@pytest.fixture(scope="module", name="ours")
def _ours(saved: Path) -> Model:
    return load(saved / "package")


@pytest.fixture(scope="module", name="pyfunc")
def _pyfunc(saved: Path) -> Any:
    import mlflow.pyfunc.scoring_server  # which warns of its own type hints

    return mlflow.pyfunc.load_model(str(saved / "model"))


FRAMES = [form for form in FORMS if form not in ("arrow", "lists of a dict", "spaces around names")]


@pytest.mark.parametrize("form", FRAMES)
def test_any_form_of_a_frame_is_scored(form: str, frame: pd.DataFrame, ours: Model, pyfunc: Any) -> None:
    found = pyfunc.predict(FORMS[form](frame))
    np.testing.assert_allclose(found, ours.predict(frame), rtol=1e-6)


def test_the_signature_names_the_raw_columns_and_the_optional_ones(frame: pd.DataFrame, pyfunc: Any) -> None:
    inputs = pyfunc.metadata.get_input_schema()
    assert set(inputs.input_names()) == set(frame) - {"click"}
    assert set(inputs.required_input_names()) == {"user_id", "ts"}
    assert list(pyfunc.input_example.columns) == inputs.input_names()
    assert pyfunc.predict(pyfunc.input_example)["probability"].between(0, 1).all()
    assert set(pyfunc.input_example["user_id"]) <= set(frame["user_id"])


BAD: dict[str, tuple[Callable[[pd.DataFrame], Any], str]] = {
    "a required column is not there": (lambda f: f.drop(columns="user_id"), "user_id"),
    "no number": (lambda f: f.assign(price="dear"), "price 'dear' is not a number"),
    "no time": (lambda f: f.assign(ts="today"), "ts 'today' is not a time"),
    "dicts": (lambda f: f.assign(age=[{"a": 1}] * len(f)), "'age' holds struct"),
    "too many rows": (
        lambda f: f.iloc[np.zeros(100_001, int)],
        "100001 rows, and one request may",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_a_bad_request_that_names_the_column(
    case: str, frame: pd.DataFrame, pyfunc: Any
) -> None:
    change, message = BAD[case]
    with pytest.raises(MlflowException) as caught:
        pyfunc.predict(change(frame.head(3)))
    assert caught.value.get_http_status_code() == 400
    assert message in str(caught.value)


def of_server(pyfunc: Any, body: Any) -> str:
    """What MLflow's server makes of a request in JSON, its errors included."""
    try:
        schema = pyfunc.metadata.get_input_schema()
        answer: str = mlflow.pyfunc.scoring_server.invocations(
            body, "application/json", pyfunc, schema
        ).response
    except MlflowException as error:
        return str(error)
    return answer


SAME: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "texts": lambda f: f,
    "one row": lambda f: f.head(1),
    "numbers, as pandas reads them": FORMS["numbers, as pandas reads them"],
    "a column of nulls": lambda f: f.assign(price=None),
    "nulls among whole numbers": lambda f: f.head(3).assign(age=pd.array([31, None, 33], "Int64")),
    "nulls among flags and fractions": lambda f: f.head(3).assign(
        age=[True, None, False], price=[1, None, 2.5]
    ),
    "lists": FORMS["lists"],
    "lists and none": FORMS["no list at all"],
    "without an optional column": lambda f: f.drop(columns=["price", "tags"]),
    "further columns, another order": FORMS["more columns in another order"],
    "unseen values": lambda f: f.head(3).assign(user_id="nobody", item_id="é\u2003", tags="a|b"),
}


@pytest.mark.parametrize("case", SAME)
def test_the_short_way_of_the_server_gives_the_bytes_of_mlflows_own(
    case: str, frame: pd.DataFrame, pyfunc: Any
) -> None:
    rows = SAME[case](frame)
    split = json.loads(rows.to_json(orient="split", index=False))
    records = json.loads(rows.to_json(orient="records"))
    ragged = [{k: v for k, v in row.items() if v is not None} for row in records]
    for given in (
        {"dataframe_split": {key: split[key] for key in ("columns", "data")}},
        {"dataframe_records": records},
        {"dataframe_records": ragged},
    ):
        body = json.dumps(given).encode()
        assert pyfunc.unwrap_python_model().answer(body) == of_server(pyfunc, body)


OTHERS: dict[str, Any] = {
    "params": lambda rows: {"dataframe_records": rows, "params": {"a": 1}},
    "an index": lambda rows: {"dataframe_split": {"columns": ["ts"], "data": [["x"]], "index": [0]}},
    "instances": lambda rows: {"instances": rows},
    "a name twice": lambda rows: {"dataframe_split": {"columns": ["ts", "ts"], "data": [["x", "y"]]}},
    "names that are numbers": lambda rows: {"dataframe_split": {"columns": [1, 2], "data": [["x", "y"]]}},
    "spaces around a name": lambda rows: {"dataframe_records": [{f" {k} ": v for k, v in rows[0].items()}]},
    "no rows of a split": lambda rows: {"dataframe_split": {"columns": list(rows[0]), "data": []}},
    "too many rows": lambda rows: {"dataframe_records": rows[:1] * 100_001},
}


def test_every_other_request_is_left_to_mlflow(frame: pd.DataFrame, pyfunc: Any) -> None:
    model = pyfunc.unwrap_python_model()
    rows = json.loads(frame.head(2).to_json(orient="records"))
    bodies = {case: json.dumps(make(rows)).encode() for case, make in OTHERS.items()}
    bodies |= {case: body for case, (body, _) in BAD_REQUESTS.items() if not str(body).startswith("user_id")}
    assert len(bodies) > 50
    taken = {case: model.answer(body) for case, body in bodies.items()}
    good = {case: answer for case, answer in taken.items() if answer is not None}
    assert set(good) == {"time null", "time empty"}  # this model does not need to know the time
    assert all(answer == of_server(pyfunc, bodies[case]) for case, answer in good.items())


def test_the_server_asks_the_model_first_and_mlflow_for_the_rest(
    frame: pd.DataFrame, pyfunc: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, schema = pyfunc.unwrap_python_model(), pyfunc.metadata.get_input_schema()
    scoring_server, calls = mlflow.pyfunc.scoring_server, []
    usual = scoring_server.invocations

    def seen(data: Any, content_type: Any, model: Any, input_schema: Any) -> Any:
        calls.append(content_type)
        return usual(data, content_type, model, input_schema)

    monkeypatch.setattr(scoring_server, "invocations", seen)
    sys.modules[type(model).__module__].quicken(model.answer)
    good = json.dumps({"dataframe_records": json.loads(frame.head(2).to_json(orient="records"))}).encode()
    found = scoring_server.invocations(good, "application/json", pyfunc, schema)
    assert (found.status, found.mimetype, calls) == (200, "application/json", [])
    assert found.response == usual(good, "application/json", pyfunc, schema).response
    rows = frame.head(2).to_csv(index=False).encode()
    by_mlflow = scoring_server.invocations(rows, "text/csv", pyfunc, schema)
    assert (by_mlflow.response, calls) == (found.response, ["text/csv"])
    with pytest.raises(MlflowException):
        scoring_server.invocations(b"{}", "application/json", pyfunc, schema)
    monkeypatch.setattr(scoring_server, "invocations", lambda data, model: None)  # another version
    sys.modules[type(model).__module__].quicken(model.answer)
    assert list(signature(scoring_server.invocations).parameters) == ["data", "model"]


def test_more_rows_if_asked_for(saved: Path, frame: pd.DataFrame) -> None:
    few = mlflow.pyfunc.load_model(str(saved / "model"), model_config={"rows": 2})
    assert len(few.predict(frame.head(2))) == 2
    with pytest.raises(MlflowException, match="3 rows, and one request may have 2"):
        few.predict(frame.head(3))


def test_the_served_folder_holds_what_it_needs_and_no_pickle(saved: Path, tmp_path: Path) -> None:
    """In an interpreter that knows nothing of this checkout; a fresh environment: benchmarks/serving.py."""
    code = f"""
import mlflow, pandas, sys
model = mlflow.pyfunc.load_model({str(saved / "model")!r})
print(model.predict(model.input_example)["probability"].tolist())
import pipeline
assert pipeline.__file__.startswith({str(saved)!r}), pipeline.__file__
for name in ("dvc", "optuna", "sklearn", "matplotlib", "lightgbm"):
    assert name not in sys.modules, name
"""
    env = project.environment()
    del env["PYTHONPATH"]
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("[0.")
    names = [path.name for path in (saved / "model").rglob("*")]
    assert not [name for name in names if name.endswith((".pkl", ".pickle", ".pt", ".joblib"))]
