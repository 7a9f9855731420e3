"""deepctr-torch beside our models: our schema, ids and weights in its terms.

What that library is: github.com/shenweichen/DeepCTR-Torch, Apache-2.0, an implementation of most of the
zoo's older models that shares no line with ours.
"""

import sys
from collections.abc import Iterable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.schema import EMPTY, Schema

# Importing the library starts a thread that asks the network for a newer version, in a module that has no
# other purpose: an empty one takes its place.
_quiet = ModuleType("deepctr_torch.utils")
_quiet.check_version = lambda version: None  # type: ignore[attr-defined]
sys.modules["deepctr_torch.utils"] = _quiet

from deepctr_torch import models  # noqa: E402
from deepctr_torch.inputs import SparseFeat, VarLenSparseFeat  # noqa: E402

__all__ = ["models"]


def columns(schema: Schema, dim: int) -> list[Any]:
    """Each field as its kind of column, embedded in `dim` numbers; a bag is summed.

    It embeds bags behind all other fields, so a schema must have them there.
    """
    bags = [field.slots > 1 for field in schema.fields]
    assert bags == sorted(bags), "bags come last"
    # one more row in a bag's table: its row 0 is the empty slot
    return [
        VarLenSparseFeat(SparseFeat(field.name, field.size + 1, dim), field.slots, "sum")
        if field.slots > 1
        else SparseFeat(field.name, field.size, dim)
        for field in schema.fields
    ]


def features(schema: Schema, ids: Tensor) -> Tensor:
    """Our ids as it takes them: counted from 0 in each field (in a bag from 1), as floats."""
    first = torch.tensor([schema.offsets[i] - (schema.fields[i].slots > 1) for i in schema.field_of_slot])
    return torch.where(ids == EMPTY, 0, ids - first).double()


def blank(model: Any) -> Any:
    """Make every number of a model of theirs NaN: what is not copied over cannot go unnoticed."""
    model = model.double().eval()
    with torch.no_grad():
        for value in (*model.parameters(), *model.buffers()):
            if value.is_floating_point():
                value.fill_(torch.nan)
    return model


def put(value: Any, into: Tensor) -> None:
    """Set one of their weights, which must have the same shape."""
    value = torch.as_tensor(value, dtype=into.dtype)
    assert value.shape == into.shape, (value.shape, into.shape)
    with torch.no_grad():
        into.copy_(value)


def tables(table: Tensor, schema: Schema) -> list[Tensor]:
    """Our one table, cut into one for each field; a bag's begins with the empty slot."""
    found = []
    for first, field in zip(schema.offsets, schema.fields, strict=True):
        rows = table[first : first + field.size]
        found.append(torch.cat([table[EMPTY : EMPTY + 1], rows]) if field.slots > 1 else rows)
    return found


def put_table(table: Tensor, schema: Schema, into: nn.ModuleDict) -> None:
    """All tables of an embedding."""
    for field, rows in zip(schema.fields, tables(table, schema), strict=True):
        put(rows, into[field.name].weight)


def put_layer(layer: nn.Linear, into: nn.Linear) -> None:
    """A linear layer; both have a bias or neither."""
    into.load_state_dict(layer.state_dict())


def put_out(layer: nn.Linear, theirs: Any) -> None:
    """A last layer whose bias is the only one: theirs stands behind everything."""
    put(layer.weight, theirs.dnn_linear.weight)
    put(layer.bias, theirs.out.bias)


def put_mlp(mlp: Iterable[nn.Module], into: Any) -> None:
    """The hidden layers and the batch norms between them; a first layer of theirs may be left over."""
    for kind, theirs in ((nn.Linear, into.linears), (nn.BatchNorm1d, getattr(into, "bn", []))):
        layers = [layer for layer in mlp if isinstance(layer, kind)]
        for layer, other in zip(reversed(layers), reversed(theirs), strict=False):
            other.load_state_dict(layer.state_dict())


def twin(kind: Any, ours: Any, schema: Schema, *, twice: bool = False, **options: Any) -> Any:
    """A model of theirs with what all models have in common copied over.

    That is the linear term, the embeddings and the network (`linear`, `embedding`, `mlp` of ours). Their one
    bias stands behind everything: it is that of our linear term or of our last layer.

    Args:
        twice: every field stands there twice, with the same embeddings.
    """
    cols = columns(schema, ours.embedding.table.shape[1] if hasattr(ours, "embedding") else 1)
    if twice:
        cols += [column._replace(name=f"{column.name} again") for column in cols]
    wide = cols if hasattr(ours, "linear") else []
    theirs = blank(kind(*([cols] if kind is models.PNN else [wide, cols]), task="regression", **options))
    if twice:
        theirs.register_forward_pre_hook(lambda _, inputs: torch.cat(inputs * 2, 1))
    put(0.0, theirs.out.bias[0])
    if hasattr(ours, "linear"):
        put_table(ours.linear.table, schema, theirs.linear_model.embedding_dict)
        put(ours.linear.bias, theirs.out.bias[0])
    if hasattr(ours, "embedding"):
        put_table(ours.embedding.table, schema, theirs.embedding_dict)
    if hasattr(ours, "mlp") and hasattr(theirs, "dnn"):
        put_mlp(ours.mlp, theirs.dnn)
    return theirs
