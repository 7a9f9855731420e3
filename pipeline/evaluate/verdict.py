"""What a comparison of a champion with its challenger ends with."""

from typing import NamedTuple


class Verdict(NamedTuple):
    """Whether the challenger takes the champion's place.

    Attributes:
        reason: in words.
        final: whether it would be the same again; not if the rows are not here.
    """

    leads: bool
    reason: str
    final: bool = True
