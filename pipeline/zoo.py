"""From a model's name and options to a network with its first weights."""

from typing import Any

import torch
from torch import nn

from pipeline.errors import PipelineError, unknown
from pipeline.models import MODELS
from pipeline.schema import Schema


def build(name: str, schema: Schema, options: dict[str, Any], *, seed: int) -> nn.Module:
    """Construct a model on the CPU with weights that depend on `seed` alone.

    Raises:
        PipelineError: no model has that name, or its options do not fit each other or the schema. Where
            they come from the caller knows.
    """
    if name not in MODELS:
        raise PipelineError(unknown("model", name, MODELS))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return MODELS[name](schema, **options)
        except ValueError as error:
            raise PipelineError(str(error)) from None
