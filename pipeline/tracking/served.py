"""The champion in MLflow's clothes: MLflow copies this file beside a logged model and runs it to load it."""

import sys
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
