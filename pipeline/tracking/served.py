"""The champion in MLflow's clothes: MLflow copies this file beside a logged model and runs it to load it."""

from typing import Any

import numpy as np
import pandas as pd
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
        """Read the package; `rows` of the model's config limits a request."""
        self.model, self.rows = load(context.artifacts["package"]), int(context.model_config["rows"])

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


def _pandas_types(schema: Schema) -> list[np.dtype[Any]]:
    return [
        spec.type.to_pandas() if isinstance(spec.type, DataType) else np.dtype(object)
        for spec in schema.inputs
    ]


# columns are of the type `any`, a text or a number; MLflow's server reads JSON into them and would refuse CSV
setattr(Schema, "pandas_types", _pandas_types)  # noqa: B010 (a method, to mypy)
set_model(ClickProbability())
