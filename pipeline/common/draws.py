"""Random numbers for generated logs, from the raw 64-bit stream of PCG64.

NumPy guarantees that this stream never changes; its distributions may. So the inverse distribution functions
are written here, and a generated file does not depend on any version.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Levels = NDArray[np.int64]


def stream(*seeds: int) -> np.random.PCG64:
    """Return a stream of raw draws of its own for each sequence of seeds."""
    return np.random.PCG64(np.random.SeedSequence(seeds))


def uniform(source: np.random.PCG64, count: int) -> Floats:
    """Return uniform numbers in [0, 1) from the upper 53 bits of raw draws."""
    return np.asarray((source.random_raw(count) >> np.uint64(11)) * 2.0**-53)


def normal(source: np.random.PCG64, *shape: int) -> Floats:
    """Return approximately normal numbers: the sum of twelve uniform ones minus six."""
    return np.asarray(uniform(source, int(np.prod(shape)) * 12).reshape(*shape, 12).sum(-1) - 6.0)


def pick(chance: Floats, u: Floats) -> Levels:
    """Return levels with the given probabilities by the inverse distribution function."""
    return np.asarray(np.searchsorted(np.cumsum(chance)[:-1], u, side="right"), np.int64)


def normalised(weights: Sequence[float] | Floats) -> Floats:
    """Return probabilities proportional to the weights."""
    return np.array(weights, np.float64) / sum(weights)


def zipf(count: int, exponent: float) -> Floats:
    """Return probabilities proportional to rank ** -exponent."""
    weight: Floats = np.floor(1e9 * np.arange(1, count + 1, dtype=np.float64) ** -exponent)
    return np.asarray(weight / weight.sum())
