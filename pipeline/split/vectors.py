"""Given vectors as models read them: a row for each id of a field, about the mean, of mean square norm 1.

Mean and norm are those of the values that the train rows have, each once, and stand in the vocabulary: new
vectors of a grown vocabulary are measured by the old ones. A value without a vector, and the unseen id, have
zeros, the mean of the vectors.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.common.errors import PipelineError
from pipeline.preprocess.vectors import Keyed, Matrix

DIGITS = 6  # of mean and norm: what differs between processors lies beyond
KEYS = ("width", "centre", "scale")  # of an entry of the vocabulary, beside `given`


def fit(vectors: Keyed, seen: Sequence[str | None], name: str) -> dict[str, Any]:
    """Return the `KEYS` of a field.

    Args:
        vectors: of its values.
        seen: the values that train rows have.
        name: of the field.

    Raises:
        PipelineError: none of them has a vector, or all have the same one.
    """
    keys, values = vectors
    here = values[_places(keys, [value for value in seen if value is not None])].astype(np.float64)
    if not len(here):
        raise PipelineError(
            f"the field {name!r}: no value of the train rows has a vector; they are written like "
            f"{_some(seen)}, the keys of the vectors like {_some(keys.slice(0, 3).to_pylist())}"
        )
    centre = _rounded(here.mean(0))
    square = float(((here - centre) ** 2).sum(1).mean())
    if not square:
        raise PipelineError(
            f"the field {name!r}: all {len(here)} values of the train rows have the same vector, which says "
            "nothing: take the field out"
        )
    return {
        "width": values.shape[1],
        "centre": centre.tolist(),
        "scale": float(_rounded(np.array(square**0.5))),
    }


def tables(vocabulary: Sequence[Mapping[str, Any]], vectors: Mapping[str, Keyed]) -> dict[str, Matrix]:
    """Return, for each field that is given vectors, that of each id (size, width)."""
    return {
        entry["name"]: _table(entry, *vectors[entry["name"]]) for entry in vocabulary if entry.get("given")
    }


def _table(entry: Mapping[str, Any], keys: pa.Array, values: Matrix) -> Matrix:
    places = {key: place for place, key in enumerate(keys.to_pylist())}
    place = np.array([-1, *(places.get(value, -1) for value in entry["values"])])
    made = np.zeros((len(place), entry["width"]), np.float32)
    there = place >= 0
    made[there] = (values[place[there]] - np.array(entry["centre"])) / entry["scale"]
    return made


def _places(keys: pa.Array, wanted: Collection[str]) -> list[int]:
    places = {key: place for place, key in enumerate(keys.to_pylist())}
    return [places[key] for key in wanted if key in places]


def _rounded(values: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    flat = [float(f"{value:.{DIGITS}g}") for value in values.ravel().tolist()]
    return np.array(flat).reshape(values.shape)


def _some(values: Sequence[str | None]) -> str:
    return ", ".join(repr(value) for value in values[:3])
