"""Which lists of numbers are vectors of a column's values: pre-trained embeddings of items, say."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.datasets.tabular import Feature
from pipeline.inspection.guessing import NUMBERS, Guess, is_plain_id
from pipeline.inspection.profiling import Profile
from pipeline.preprocess import parse
from pipeline.preprocess.parse import codes_of
from pipeline.preprocess.tables import LIST_SEPARATOR

FEWEST = 20  # rows of values that are seen again, below which it means nothing that the lists are, too


def keyed(
    sample: Mapping[str, pa.DictionaryArray], profiles: Mapping[str, Profile], guesses: Mapping[str, Guess]
) -> dict[str, Guess]:
    """Return the columns of lists that are vectors, with the column whose values they belong to as `key`.

    That is a category of which each value has one list, of one length; of several the one with the fewest
    values. A list that is different in every row, or one that no column decides, stays what it was.
    """
    found = {}
    for name, guess in guesses.items():
        if guess.kind != NUMBERS or not parse.usable(profiles[name].type, "vector"):
            continue
        lists = sample[name]
        if (width := _width(lists)) is None:
            continue
        codes = codes_of(lists, len(lists.dictionary))
        of_columns = {
            column: _deciding(sample[column], codes, len(lists.dictionary))
            for column, other in guesses.items()
            if other.feature and other.feature.type == "category" and not other.left_out
        }
        keys = {column: values for column, values in of_columns.items() if values}
        if keys:
            key = min(keys, key=lambda column: keys[column])
            of = guesses[key].feature
            assert of is not None
            feature = Feature(domain=of.domain, type="vector", key=key)
            kind = f"vector of {width} numbers, of {key}"
            found[name] = replace(guess, kind=kind, feature=feature, left_out="")
    return found


def of_rows(
    sample: Mapping[str, pa.DictionaryArray],
    profiles: Mapping[str, Profile],
    guesses: Mapping[str, Guess],
    file: str | None,
) -> dict[str, Guess]:
    """Return the columns of lists of floats, all of one length, that are vectors of a value of every row.

    Args:
        file: of vectors alone, its name: they belong to a log with a column of these values. None for a log,
            in which vectors that no two rows share teach nothing; they are not proposed as fields.
    """
    keys = [
        column
        for column, guess in guesses.items()
        if profiles[column].unique and guess.feature and guess.feature.type == "category"
    ]
    found = {}
    for name, guess in guesses.items():
        type_, lists = profiles[name].type, sample.get(name)
        if not keys or lists is None or not (guess.feature and guess.feature.type == "bag"):
            continue
        if not (parse.usable(type_, "vector") and pa.types.is_floating(type_.value_type)):
            continue
        if (width := _width(lists)) is not None:
            key = next((key for key in keys if is_plain_id(key)), keys[0])
            of = guesses[key].feature
            assert of is not None
            feature = Feature(domain=of.domain, type="vector", key=key, file=file)
            left_out = "" if file else "a list of its own in every row"
            kind = f"vector of {width} numbers, of {key}"
            found[name] = replace(guess, kind=kind, feature=feature, left_out=left_out)
    return found


def _width(lists: pa.DictionaryArray) -> int | None:
    """Return the length of the lists, if all have the same."""
    commas = pc.unique(pc.count_substring(lists.dictionary, LIST_SEPARATOR))
    return commas[0].as_py() + 1 if len(commas) == 1 else None


def _deciding(keys: pa.DictionaryArray, lists: NDArray[np.int32], none: int) -> int:
    """Return how many values a column has, if each has one list; else 0.

    Args:
        none: the code of a missing list, which says nothing.
    """
    codes = codes_of(keys, len(keys.dictionary))
    there = (codes < len(keys.dictionary)) & (lists != none)
    pairs = np.unique(np.stack([codes[there], lists[there]]), axis=1)
    values = len(np.unique(pairs[0]))
    return values if values == pairs.shape[1] and there.sum() - values >= FEWEST else 0
