"""Whose property a column really is, where its name is wrong about it, or silent.

A price of items is the same in nearly all rows of an item. A bid price has `price` in its name as well, but
is another one in every row: it belongs to the context. And what has a name that says nothing, but never
changes within a user, while it does within an item, is a property of users.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.inspection.guessing import Guess, is_id
from pipeline.preprocess.parse import codes_of
from pipeline.schema import Domain

FEWEST = 50  # pairs of rows of one user or item, below which they say nothing
# of the pairs that chance does not make equal, the share that is equal
SAME = 0.5  # at least, of a property by its name: it may change now and then
CONSTANT = 0.99  # at least, of a property that nothing but the rows calls one


def corrected(
    sample: Mapping[str, pa.DictionaryArray], guesses: Mapping[str, Guess], roles: Mapping[str, str]
) -> dict[str, Guess]:
    """Return the columns whose domain the rows of users and items contradict.

    Those are called a property of one and vary from row to row of each; or they are called none, never change
    within one and do within the other. A list is not asked, since a history of a user grows; nor is an id,
    which is the user or item itself.

    Args:
        roles: the columns that identify the user and the item.
    """
    found = {}
    for column, guess in guesses.items():
        feature = guess.feature
        if feature is None or feature.type in ("bag", "vector") or is_id(column):
            continue
        if column in roles.values():
            continue
        asked = roles if feature.domain == "context" else roles.keys() & {feature.domain}
        alike = {domain: _alike(sample[column], sample[roles[domain]]) for domain in asked}
        domain = _domain(feature.domain, alike)
        if domain != feature.domain:
            found[column] = replace(guess, feature=feature.model_copy(update={"domain": domain}))
    return found


def _domain(named: Domain, alike: Mapping[str, float | None]) -> Domain:
    """Return whose property a column is by its name and by how alike the rows of a user, or an item, are."""
    if named != "context":
        share = alike.get(named)
        return "context" if share is not None and share < SAME else named
    owners: tuple[tuple[Domain, Domain], ...] = (("user", "item"), ("item", "user"))
    for owner, other in owners:
        own, others = alike.get(owner), alike.get(other)
        if own is not None and own >= CONSTANT and others is not None and others < SAME:
            return owner
    return named


def _alike(values: pa.DictionaryArray, keys: pa.DictionaryArray) -> float | None:
    """Return how much more alike rows of one key that follow each other are than any two rows, 1 if equal.

    None if they say nothing: there are too few, or chance makes all of them equal.
    """
    one, other = (codes_of(each, len(each.dictionary)) for each in (values, keys))
    there = (one < len(values.dictionary)) & (other < len(keys.dictionary))
    one, other = one[there], other[there]
    order = np.argsort(other, kind="stable")
    pairs = np.diff(other[order]) == 0
    if pairs.sum() < FEWEST:
        return None
    equal, chance = float((np.diff(one[order]) == 0)[pairs].mean()), _by_chance(one)
    return (equal - chance) / (1 - chance) if chance < 1 else None


def _by_chance(codes: NDArray[np.int32]) -> float:
    share = np.bincount(codes) / len(codes)
    return float(share @ share)
