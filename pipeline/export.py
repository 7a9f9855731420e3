"""From a run's files back to a model, and to the form in which others use it."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.errors import PipelineError
from pipeline.files import read_json
from pipeline.schema import EMPTY, Schema
from pipeline.zoo import build


class ClickProbability(nn.Module):
    """What a trained model is used for: ids (B, S) -> click probability (B,), on the CPU, no dropout."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).cpu().requires_grad_(False)
        self.eval()

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, " B"]:
        """Return the click probability of each row."""
        return torch.sigmoid(self.model(ids))


def load(folder: Path, run: dict[str, Any], schema: Schema, seed: int) -> nn.Module:
    """Rebuild the model of one seed from a run's folder, on the CPU.

    Args:
        folder: holds `seed-<seed>.safetensors`.
        run: the content of its run.json.
        schema: of the dataset it was trained on.

    Raises:
        PipelineError: the weights are missing, damaged, or belong to another schema.
    """
    model = build(run["model"], schema, run["params"]["model"], seed=seed)
    path = folder / f"seed-{seed}.safetensors"
    try:
        model.load_state_dict(load_file(path))
    except FileNotFoundError:
        raise PipelineError(f"{path} is missing; run `dvc repro` (or `dvc pull`) to have it again") from None
    except (SafetensorError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise PipelineError(
            f"{path}: the weights do not fit the model that run.json and the dataset's schema describe "
            f"({reason}); run `dvc repro` to train it again"
        ) from None
    return model


def read_schema(folder: Path) -> Schema:
    """Read the schema of a processed dataset.

    Raises:
        PipelineError: the dataset is not there.
    """
    path = folder / "schema.json"
    if not path.exists():
        raise PipelineError(f"{path} is missing; run `dvc repro` (or `dvc pull`) to have it again")
    return Schema.from_json(read_json(path))


def example(schema: Schema) -> NDArray[np.int64]:
    """Return two rows (2, S) of valid ids: all unseen, and the last of each field with bags of one value."""
    unseen, last = [], []
    seen: set[int] = set()
    for index in schema.slot_field:
        first = schema.first[index]
        unseen.append(EMPTY if index in seen else first)
        last.append(EMPTY if index in seen else first + schema.fields[index].size - 1)
        seen.add(index)
    return np.array([unseen, last], dtype=np.int64)
