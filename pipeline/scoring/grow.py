"""A package that also knows the vectors of values that came after it, such as of tomorrow's items.

Training saw none of these values, and none is needed: what a model says of a value with a given vector is a
function of the vector (see `pipeline/layers/vectors.py`). Nothing else changes, neither a weight nor what the
package says of any other row.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays
from safetensors.torch import load, save
from torch import Tensor

from pipeline.common.errors import PipelineError, unknown
from pipeline.data.batches import Batch
from pipeline.datasets import tabular
from pipeline.layers.embedding import FieldEmbedding, FieldLinear
from pipeline.layers.vectors import blank
from pipeline.models import build
from pipeline.preprocess.vectors import Keyed, Matrix
from pipeline.schema import Schema
from pipeline.scoring.package import Member, Package
from pipeline.split import vectors, vocabulary
from pipeline.train import warm
from pipeline.train.predict import logits

OF_KEYS = ("fields", "missing", "decimal")  # what decides how a key is read
CLOSE = 1e-5  # of vectors in units of their root mean square: float32's rounding, and no more
PROBES, SAME = 1024, 1e-5  # rows that are scored before and after, and by how much logits may differ


def grown(package: Package, files: Sequence[Path]) -> tuple[Package, dict[str, int]]:
    """Return the package with the vectors of files, and how many values each field gained.

    Args:
        package: of a model with fields of `type: vector` that are read from files.
        files: with the names and columns of those that training had; what these have may be left out.

    Raises:
        PipelineError: a file is of no field, cannot be read as one, or says nothing new; a value has another
            vector than in the package; or the model keeps more of a value than a row.
    """
    found = _read(package, files)
    before, arrays = package.schema, load_arrays(package.vectors)
    entries = {entry["name"]: dict(entry) for entry in package.vocabulary}
    added = {}
    for name, keyed in found.items():
        arrays[name], new = _joined(entries[name], arrays[name], keyed)
        entries[name]["values"] = entries[name]["values"] + new
        added[name] = len(new)
    if not any(added.values()):
        names = ", ".join(map(str, files))
        raise PipelineError(f"{names}: the package has all these values; is it the file that training had?")
    for entry in entries.values():
        if (shared := entry.get("table")) in found:
            entry["values"] = entries[shared]["values"]
    words, after = list(entries.values()), vocabulary.schema(list(entries.values()))
    larger = replace(package, vocabulary=words, vectors=save_arrays(arrays))
    if package.members:
        members = tuple(replace(one, weights=_with_rows(one, before, after)) for one in package.members)
        larger = replace(larger, members=members)
    else:
        larger = replace(larger, weights=_with_rows(package, before, after))
    _check(package, larger)
    return larger, added


def _read(package: Package, files: Sequence[Path]) -> dict[str, Keyed]:
    """Return the vectors of files, by field."""
    how: dict[str, Any] = {key: package.reading[key] for key in OF_KEYS if key in package.reading}
    plan = tabular.plan_of(**{"fields": {}, **how})
    found = {}
    for file in files:
        if file.name not in plan.aside:
            raise PipelineError(f"vectors: {unknown('file', file.name, plan.aside)} of this package's fields")
        if not file.exists():
            raise PipelineError(f"{file} does not exist")
        for name, field in plan.fields.items():
            if field.file == file.name:
                found[name] = tabular.vectors_of(file, name, plan)
    return found


def _joined(entry: dict[str, Any], old: Matrix, keyed: Keyed) -> tuple[Matrix, list[str]]:
    """Return the vectors of a field's ids with those of the values that are new, and these values."""
    name, keys, width = entry["name"], keyed[0].to_pylist(), keyed[1].shape[1]
    if width != entry["width"]:
        raise PipelineError(
            f"the vectors of the field {name!r} have {width} numbers, those of the package {entry['width']}: "
            "they are of another model"
        )
    here = vectors.tables([{**entry, "values": keys}], {name: keyed})[name][1:]
    place, new = {value: row for row, value in enumerate(entry["values"], 1)}, []
    for row, key in enumerate(keys):
        if key not in place:
            new.append(row)
        elif (had := old[place[key]]).any() and not np.allclose(had, here[row], CLOSE, CLOSE):
            raise PipelineError(
                f"the field {name!r}: {key!r} has another vector than in the package, and vectors of two "
                "models cannot be compared: take them from the model of those of training, or train anew"
            )
    return np.concatenate([old, here[new]]), [keys[row] for row in new]


def _with_rows(part: Package | Member, before: Schema, after: Schema) -> bytes:
    """Return the weights with rows for the new values, which are zero: nothing was learnt of them."""
    if before.rows == after.rows:
        return part.weights
    old, new = (
        dict(build(part.architecture, blank(schema), part.options, seed=0).named_modules())
        for schema in (before, after)
    )
    weights = load(part.weights)
    for name, layer in old.items():
        if isinstance(layer, FieldEmbedding | FieldLinear):
            key, larger = f"{name}.table" if name else "table", new[name]
            assert isinstance(larger, FieldEmbedding | FieldLinear)
            weights[key] = weights[key][warm.rows(layer.schema, larger.schema, of_new="empty")]
    return save(weights)


def _check(package: Package, larger: Package) -> None:
    """Check that rows of values that were known score as before, whatever a model keeps of ids.

    Raises:
        PipelineError: they do not.
    """
    schema, order = package.schema, torch.Generator().manual_seed(0)
    sizes = torch.tensor([schema.fields[field].size for field in schema.field_of_slot])
    place = (torch.rand(PROBES, schema.slots, generator=order) * sizes).long()
    try:
        same = torch.allclose(_scores(package, place), _scores(larger, place), rtol=0, atol=SAME)
    except (PipelineError, IndexError, RuntimeError):  # what it keeps does not fit any more
        same = False
    if not same:
        raise PipelineError(
            f"{package.architecture} keeps more of its values than a row for each, so that new ones would "
            "change what it says of the others: train anew, with the new file of vectors"
        )


def _scores(package: Package, place: Tensor) -> Tensor:
    """Return the logits of rows (B,) whose values have these places in their fields (B, S)."""
    schema = package.schema
    ids = place + torch.tensor([schema.offsets[field] for field in schema.field_of_slot])
    time = torch.zeros(len(ids), dtype=torch.int64)
    with torch.no_grad():
        return logits(package.network(), Batch(ids, time.float(), time))
