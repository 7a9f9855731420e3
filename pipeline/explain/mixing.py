"""Rows some fields of which are taken from other rows, and a model's logits of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from pipeline.common.errors import PipelineError, unknown
from pipeline.data.batches import Split
from pipeline.metrics import Array
from pipeline.schema import Schema
from pipeline.train.predict import is_timed, logits

TIME = "(time)"  # the seconds of a row, which timed models read besides its fields
ROWS_PER_THREAD = 2048  # at a time, as in `train.predict`
Together = Sequence[Sequence[str]]  # names of fields; each list is one unit


@dataclass(frozen=True)
class Unit:
    """What is taken from another row at once: a field, or several.

    Attributes:
        name: of the fields, joined by " + ".
        columns: which columns of the ids (S,).
        time: whether the row's time, too.
    """

    name: str
    columns: Bool[Tensor, " S"]
    time: bool = False


def units(network: nn.Module, schema: Schema, together: Together = ()) -> list[Unit]:
    """Return all that a model reads of a row, in the order of the schema.

    Neighbour fields have no columns: the model derives them from user and item, and they go with these.

    Args:
        together: fields that are one unit; the others are one each.

    Raises:
        PipelineError: there is no such field, or it is named twice.
    """
    names = [field.name for field in schema.fields] + [TIME] * is_timed(network)
    named = [name for unit in together for name in unit]
    for name in named:
        if name not in names:
            raise PipelineError(unknown("field", name, names))
        if named.count(name) > 1:
            raise PipelineError(f"the field {name!r} is named twice among those that belong together")
    slots = [names[i] for i in schema.field_of_slot]
    parts = [next((unit for unit in together if name in unit), [name]) for name in names]
    found = {}
    for part in parts:
        columns = torch.tensor([name in part for name in slots], dtype=torch.bool)
        found[" + ".join(part)] = Unit(" + ".join(part), columns, TIME in part)
    return list(found.values())


def spread(rows: Split, most: int) -> tuple[Split, Array]:
    """Return at most so many rows, evenly spread over all and in memory, and their numbers (n,)."""
    return _picked(rows, _places(len(rows), most))


def balanced(rows: Split, most: int) -> tuple[Split, Array]:
    """Do what `spread` does, but half of the rows have the rarer label, if there are so many.

    Where clicks are few, their number decides how exact an AUC is.
    """
    if most >= len(rows):
        return spread(rows, most)
    is_click = rows.label.cpu().numpy() > 0.5
    rare, common = sorted((np.flatnonzero(is_click), np.flatnonzero(~is_click)), key=len)
    rare = rare[_places(len(rare), most // 2)]
    common = common[_places(len(common), most - len(rare))]
    return _picked(rows, np.sort(np.concatenate([rare, common])))


def _places(size: int, most: int) -> Array:
    count = min(most, size)
    return np.arange(count) * size // max(count, 1)


def _picked(rows: Split, number: Array) -> tuple[Split, Array]:
    index = torch.from_numpy(number).to(rows.ids.device)
    picked = rows.whole().rows(index).each(lambda column: column.to(rows.device))
    return Split(rows.schema, picked.ids, picked.label, picked.time), number


def mixed(rows: Split, other: Int[Tensor, " N"], *taken: Unit) -> Split:
    """Return the rows with some units from other rows.

    Args:
        other: for each row the number of the row to take them from.
    """
    columns = torch.stack([unit.columns for unit in taken]).any(0).to(rows.device)
    ids, time = torch.where(columns, rows.ids[other], rows.ids), rows.time
    if time is not None and any(unit.time for unit in taken):
        time = time[other]
    return replace(rows, ids=ids, time=time)


@torch.inference_mode()
def logits_of(network: nn.Module, rows: Split) -> Array:
    """Return the logit of each row (N,) float64, in evaluation mode."""
    was_training = network.training
    network.eval()
    size = ROWS_PER_THREAD * torch.get_num_threads()
    found = [logits(network, batch).cpu().double() for batch in rows.batches(size)]
    network.train(was_training)
    return torch.cat([torch.empty(0, dtype=torch.float64), *found]).numpy()
