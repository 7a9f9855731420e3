"""The champion in MLflow's clothes: MLflow copies this file beside a logged model and runs it to load it.

In MLflow's server it answers a request of rows in JSON itself. MLflow's own way makes a table of pandas of
them, a series of each column for the signature, and objects of Python of the answer's table, which is most of
what a row costs. All else, and whatever is wrong with a request, is left to MLflow, which words the error.
"""

import json
import sys
from collections.abc import Callable
from inspect import signature
from typing import Any

import numpy as np
import pandas as pd
import torch
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.protos.databricks_pb2 import BAD_REQUEST
from mlflow.pyfunc.model import PythonModel
from mlflow.types import DataType, Schema

from pipeline.common.errors import PipelineError
from pipeline.scoring import load


class ClickProbability(PythonModel):
    """Raw rows -> `probability`, calibrated, and `raw_probability`."""

    def load_context(self, context: Any) -> None:
        """Read the package; `rows` and `bytes` of the model's config limit a request."""
        self.model, self.rows = load(context.artifacts["package"]), int(context.model_config["rows"])
        if "mlflow.pyfunc.scoring_server.app" in sys.modules:  # this process is MLflow's server
            torch.set_num_threads(1)  # requests are in threads of their own already
            bound(int(context.model_config["bytes"]))
            quicken(self.answer)
        self.required = set(self.model.columns) - self.model.optional_columns
        # what is imported, made or looked up once is not left to the first request
        self.model.predict(self.model.example())

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:  # noqa: ARG002
        """Score rows; what is wrong with them is a bad request that names the column."""
        if len(model_input) > self.rows:
            raise MlflowException(
                f"{len(model_input)} rows, and one request may have {self.rows}: send them in parts, or use "
                f"load_model(..., model_config={{'rows': {len(model_input)}}})",
                error_code=BAD_REQUEST,
            )
        try:
            return self.model.predict(model_input, optional=True)
        except PipelineError as error:
            raise MlflowException(str(error), error_code=BAD_REQUEST) from None

    def answer(self, body: bytes) -> str | None:
        """Answer rows in JSON as MLflow's server does, to the byte; None for a request that it must look at.

        Args:
            body: of a request whose content is JSON.
        """
        try:
            columns = rows_of(json.loads(body))
            size = len(next(iter(columns.values()), ()))
            if not 0 < size <= self.rows or not self.required <= columns.keys():
                return None
            own = {name: columns[name] for name in self.model.columns if name in columns}
            scores = self.model.scores(own, optional=True)
        except (ValueError, RecursionError, PipelineError):
            return None
        lists = {name: values.tolist() for name, values in scores.items()}
        rows = [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)]
        return json.dumps({"predictions": rows})


def rows_of(given: Any) -> dict[str, list[Any]]:
    """Return the columns of a request that has `dataframe_split` or `dataframe_records`, and no more.

    Raises:
        ValueError: it is another request, or a malformed one.
    """
    if not isinstance(given, dict) or len(given) != 1:
        raise ValueError
    ((form, rows),) = given.items()
    if form == "dataframe_records" and isinstance(rows, list) and all(type(row) is dict for row in rows):
        names = dict.fromkeys(name for row in rows for name in row)
        return {name: [row.get(name) for row in rows] for name in names}
    if form != "dataframe_split" or not isinstance(rows, dict) or rows.keys() != {"columns", "data"}:
        raise ValueError
    names, data = rows["columns"], rows["data"]
    if not (isinstance(names, list) and isinstance(data, list)):
        raise ValueError
    if not all(type(name) is str for name in names) or len(set(names)) < len(names):
        raise ValueError
    if not data or not all(type(row) is list and len(row) == len(names) for row in data):
        raise ValueError
    return dict(zip(names, map(list, zip(*data, strict=True)), strict=True))


def quicken(answer: Callable[[bytes], str | None]) -> None:
    """Let MLflow's server ask a model for the answer to a request in JSON before it reads it itself."""
    from mlflow.pyfunc import scoring_server

    usual: Any = scoring_server.invocations
    if list(signature(usual).parameters) != ["data", "content_type", "model", "input_schema"]:
        return  # another version of MLflow

    def invocations(data: bytes, content_type: str, model: Any, input_schema: Any) -> Any:
        if content_type == scoring_server.CONTENT_TYPE_JSON and (found := answer(data)) is not None:
            return scoring_server.InvocationsResponse(found, 200, scoring_server.CONTENT_TYPE_JSON)
        return usual(data, content_type, model, input_schema)

    setattr(scoring_server, "invocations", invocations)  # noqa: B010


def bound(most: int) -> None:
    """Let MLflow's server refuse a body of more bytes before it has read it, and one that may grow when read.

    MLflow has no option for it: the server reads any body whole before a model sees it.
    """
    from fastapi import HTTPException, Request
    from mlflow.pyfunc import scoring_server

    async def body(request: Request) -> bytes:
        read, length = bytearray(), request.headers.get("content-length", "0")
        over = int(length) > most
        if not over:
            async for part in request.stream():
                read += part
                if over := len(read) > most:
                    break
        if over:
            raise HTTPException(
                413,
                f"a request may have {most} bytes: send the rows in parts, or start the server with "
                f"SERVING_MODEL_CONFIG='{{\"bytes\": N}}'",
            )
        return bytes(read)

    def refuse(parquet_input: object) -> None:  # noqa: ARG001
        raise MlflowException(
            "Parquet is not taken, since a small file may hold any number of values: send JSON or CSV, or "
            "use `ctr predict` on the file",
            error_code=BAD_REQUEST,
        )

    setattr(Request, "body", body)  # noqa: B010
    setattr(scoring_server, "parse_parquet_input", refuse)  # noqa: B010


def _pandas_types(schema: Schema) -> list[np.dtype[Any]]:
    return [
        spec.type.to_pandas() if isinstance(spec.type, DataType) else np.dtype(object)
        for spec in schema.inputs
    ]


# columns are of the type `any`, a text or a number; MLflow's server reads JSON into them and would refuse CSV
setattr(Schema, "pandas_types", _pandas_types)  # noqa: B010 (a method, to mypy)
set_model(ClickProbability())
