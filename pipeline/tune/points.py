"""Points of a search space, as Optuna's distributions and scalars."""

from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from pipeline.common.files import canonical
from pipeline.config.space import Dimension

Point = dict[str, Any]
Space = dict[str, Dimension]


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """Return the distribution of each axis."""
    return {axis: _distribution(dimension) for axis, dimension in space.items()}


def _distribution(dimension: Dimension) -> BaseDistribution:
    if dimension.choices is not None:
        return CategoricalDistribution([encode(choice) for choice in dimension.choices])
    low, high, step = dimension.low, dimension.high, dimension.step
    assert low is not None
    assert high is not None
    if all(isinstance(number, int) for number in (low, high, step or 1)):
        return IntDistribution(int(low), int(high), log=dimension.log, step=int(step or 1))
    return FloatDistribution(low, high, log=dimension.log, step=step)


def encode(value: Any) -> Any:
    """Encode a list (hidden layers) as JSON: Optuna's choices are scalars."""
    return canonical(value) if isinstance(value, list) else value


def decode(space: Space, point: Point) -> Point:
    """Return a point as params.yaml would have it."""
    decoded = dict[str, Any]()
    for axis, value in sorted(point.items()):
        texts = {encode(c): c for c in space[axis].choices or () if isinstance(c, list)}
        if isinstance(value, float) and space[axis].step is not None:
            value = round(value, 12)  # 0.1 + 2 * 0.1 is 0.30000000000000004
        decoded[axis] = texts.get(value, value)
    return decoded
