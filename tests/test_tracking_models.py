"""A logged model in MLflow: any form of rows in its process, bad requests, no checkout."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import scoring_rows as mine
from mlflow.exceptions import MlflowException
from test_scoring import FORMS

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
