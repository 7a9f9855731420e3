"""Whose property a column really is, where the rows say that its name is wrong.

A price of items is the same in nearly all rows of an item. A bid price has `price` in its name as well, but
is another one in every row: it belongs to the context.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.inspection.guessing import Guess, is_id
from pipeline.preprocess.parse import codes_of

FEWEST = 50  # pairs of rows of one user or item, below which they say nothing
SAME = 0.5  # of the pairs that chance does not make equal, those that are: a property may change now and then


def corrected(
    sample: Mapping[str, pa.DictionaryArray], guesses: Mapping[str, Guess], roles: Mapping[str, str]
) -> dict[str, Guess]:
    """Return the columns that are called a property of users or items and vary from row to row of each.

    A list is not asked, since a history of a user grows; nor is an id, which is the user or item itself.

    Args:
        roles: the columns that identify the user and the item.
    """
    found = {}
    for column, guess in guesses.items():
        feature = guess.feature
        if feature is None or feature.type in ("bag", "vector") or is_id(column):
            continue
        key = roles.get(feature.domain)
        if key in (None, column) or not _varies(sample[column], sample[key]):
            continue
        found[column] = replace(guess, feature=feature.model_copy(update={"domain": "context"}))
    return found


def _varies(values: pa.DictionaryArray, keys: pa.DictionaryArray) -> bool:
    """Whether rows of one key that follow each other are hardly more alike than any two rows."""
    one, other = (codes_of(each, len(each.dictionary)) for each in (values, keys))
    there = (one < len(values.dictionary)) & (other < len(keys.dictionary))
    one, other = one[there], other[there]
    order = np.argsort(other, kind="stable")
    pairs = np.diff(other[order]) == 0
    if pairs.sum() < FEWEST:
        return False
    equal, chance = float((np.diff(one[order]) == 0)[pairs].mean()), _by_chance(one)
    return chance < 1 and (equal - chance) / (1 - chance) < SAME


def _by_chance(codes: NDArray[np.int32]) -> float:
    share = np.bincount(codes) / len(codes)
    return float(share @ share)
