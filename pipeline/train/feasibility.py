"""Which models cannot be trained on a schema, and which need much memory: known before any training."""

import sys
from collections.abc import Mapping
from typing import Any

import torch

from pipeline.common.errors import PipelineError
from pipeline.data.batches import Batch
from pipeline.models import build
from pipeline.schema import Schema
from pipeline.train.predict import logits

MUCH_BYTES = 1 << 30  # of a step: less is not worth a word


def warn(
    dataset: str, schema: Schema, models: Mapping[str, tuple[str, dict[str, Any]]], batch_size: int
) -> None:
    """Print what `obstacles` finds."""
    for words in obstacles(schema, models, batch_size):
        print(f"warning: {dataset}: {words}", file=sys.stderr)


def obstacles(schema: Schema, models: Mapping[str, tuple[str, dict[str, Any]]], batch_size: int) -> list[str]:
    """Return a sentence for each model that cannot be built on the schema, or whose steps need much memory.

    Nothing is computed: the tensors have shapes alone. The memory is that of what a step keeps for its
    gradient, as the equations say; kernels may need less.

    Args:
        models: name -> its class in `MODELS`, and its options.
        batch_size: rows of a step.
    """
    found = []
    for name, (architecture, options) in models.items():
        try:
            kept = _kept_bytes(schema, architecture, options, batch_size)
        except PipelineError as error:
            found.append(f"{name} cannot be trained on these fields ({error}): take it out of the list")
            continue
        except NotImplementedError:  # it computes with values while it is built: nothing to say
            continue
        if kept > MUCH_BYTES:
            found.append(
                f"{name} needs some {kept / 2**30:.1f} GiB for a step of {batch_size:,} rows with "
                f"{len(schema.fields)} fields: with less memory lower `batch_size` under `train`"
            )
    return found


def _kept_bytes(schema: Schema, architecture: str, options: dict[str, Any], rows: int) -> int:
    """Return the bytes of all tensors that a forward pass keeps for its backward pass."""
    with torch.device("meta"):
        model = build(architecture, schema, options, seed=0).to("meta")
        ids = torch.zeros((rows, schema.slots), dtype=torch.int64)
        kept: dict[int, torch.Tensor] = {}  # alive, so that no number is given twice

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            kept[id(tensor)] = tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            logits(model, Batch(ids, ids[:, 0].float(), ids[:, 0]))
    parameters = {id(parameter) for parameter in model.parameters()}
    return sum(t.numel() * t.element_size() for key, t in kept.items() if key not in parameters)
