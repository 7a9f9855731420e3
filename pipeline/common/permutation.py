"""Seeded permutations by integer arithmetic alone: they do not depend on the version of any library."""

import numpy as np
from numpy.typing import NDArray


def mix(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Hash 64-bit integers one to one: the output function of SplitMix64.

    Source: Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014.
    """
    z = keys + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def permutation(count: int, seed: int) -> NDArray[np.int64]:
    """Return a random permutation of `range(count)`."""
    return np.argsort(_keys(count, seed), kind="stable")


def drawn(count: int, seed: int, ends: list[int]) -> NDArray[np.int64]:
    """Return `permutation(count, seed)`, but for the order of what stands between two ends.

    Which rows these are takes a fifth of the time of their order.
    """
    inside = [end for end in ends if 0 < end < count]
    return np.argpartition(_keys(count, seed), inside) if inside else np.arange(count)


def _keys(count: int, seed: int) -> NDArray[np.uint64]:
    """Return the numbers by which `range(count)` is sorted; no two are equal."""
    start = mix(np.array([seed % 2**64], np.uint64))
    return mix(np.add(start, np.arange(count, dtype=np.uint64)))
